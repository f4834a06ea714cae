"""The function backend against the local Function Compute endpoint: real signatures, processes, uplink."""

import asyncio
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import local_fc_process
from support.daemon_process import environment
from support.local_fc_process import LocalFc

from scheduler.daemon.backends.batch_send import BatchSend, Reply, SendFailed
from scheduler.daemon.backends.function import FunctionBackend, FunctionName
from scheduler.domain.batches import Batch, FailureKind
from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.requests import Place
from scheduler.fc_client import AccessKey, Account
from scheduler.wire import InferRequest, Tensor
from scripts.support.stub_edge import expected_row

PROGRAM = Path(__file__).parents[1] / "support" / "frame_function.py"
CONFIG = f"""
[access_keys]
{local_fc_process.KEY} = "{local_fc_process.SECRET}"

[images.frames]
command = ["python", "{PROGRAM}"]
env = {{ PYTHONPATH = "{environment({})["PYTHONPATH"]}" }}

[[function]]
functionName = "digits"
runtime = "custom-container"
handler = "index.handler"
cpu = 1
memorySize = 1024
diskSize = 512
timeout = 20
customContainerConfig = {{ image = "frames" }}
"""
UPLINK_MBIT_PER_S = 8.0
TIER = FunctionTier("1gb", "digits", LatencyModel(0.2, 0.1, 8), Price(1.0, 0.1))


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFc]:
    options = ("--uplink-mbit-per-s", str(UPLINK_MBIT_PER_S))
    with local_fc_process.running(tmp_path_factory.mktemp("fc"), CONFIG, *options) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def a_backend(endpoint: LocalFc, secret: str = local_fc_process.SECRET) -> FunctionBackend:
    account = Account("cn-hangzhou", AccessKey(local_fc_process.KEY, secret), endpoint.address, "http")
    names = [FunctionName("digits", "LATEST")]
    return FunctionBackend(account=account, functions=names, max_in_flight=4, clock=time.monotonic)


async def sent(backend: FunctionBackend, *pictures: bytes) -> Reply:
    now_s = time.monotonic()
    batch = Batch(
        batch_id=1,
        place=Place.function("1gb"),
        model="digits",
        request_ids=tuple(range(len(pictures))),
        items=len(pictures),
        body_bytes=0,
        sent_at_s=now_s,
        deadline_s=now_s + 30.0,
        give_up_at_s=now_s + 30.0,
        predicted_finish_s=now_s + 1.0,
        predicted_service_s=1.0,
    )
    request = InferRequest("1", (Tensor.from_elements("image", list(pictures)),), binary_by_default=True)
    return await backend.send(BatchSend(batch, TIER, now_s), request)


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(main, 60.0))


def test_a_batch_starts_an_instance_and_the_next_one_finds_it_warm(endpoint: LocalFc) -> None:
    async def main() -> list[Reply]:
        backend = a_backend(endpoint)
        await backend.open()
        replies = [await sent(backend, b"a", b"b"), await sent(backend, b"c")]
        await backend.close()
        return replies

    cold, warm = run(main())
    assert np.array_equal(cold.outputs[0].to_numpy(), np.stack([expected_row(b"a"), expected_row(b"b")]))
    assert (cold.report.cold_start, warm.report.cold_start) == (True, False)
    assert cold.report.instance_id == warm.report.instance_id
    assert endpoint.usage("digits")["invocations"] == 2


def test_a_container_that_dies_mid_batch_is_a_failed_function_and_the_next_batch_gets_another(
    endpoint: LocalFc,
) -> None:
    async def main() -> tuple[SendFailed, Reply]:
        backend = a_backend(endpoint)
        with pytest.raises(SendFailed) as failed:
            await sent(backend, b"crash")
        after = await sent(backend, b"x")
        await backend.close()
        return failed.value, after

    failed, after = run(main())
    assert failed.failure.kind is FailureKind.FUNCTION
    assert after.report.cold_start


def test_a_wrong_secret_is_refused_and_named(endpoint: LocalFc, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> tuple[SendFailed, bool]:
        backend = a_backend(endpoint, secret="wrong")
        with pytest.raises(SendFailed) as failed:
            await sent(backend, b"x")
        ok = (await backend.probe()).ok
        await backend.close()
        return failed.value, ok

    failed, ok = run(main())
    assert failed.failure.kind is FailureKind.FORBIDDEN
    assert "check the access key that [function] refers to" in failed.failure.message
    assert not ok
    assert "function_check" in caplog.text


def test_a_probe_finds_the_bandwidth_of_the_uplink_and_is_not_billed(endpoint: LocalFc) -> None:
    async def main() -> list[Any]:
        backend = a_backend(endpoint)
        probes = [await backend.probe() for _ in range(5)]
        await backend.close()
        return probes

    def invocations() -> int:
        # The meter names a function from its first instance on.
        functions: dict[str, Any] = endpoint.admin("GET", "meter")["functions"]
        return sum(usage["invocations"] for usage in functions.values())

    before = invocations()
    probes = run(main())
    assert all(probe.ok for probe in probes)
    assert invocations() == before
    rates = sorted(probe.sent_bytes / probe.transfer_s for probe in probes if probe.transfer_s)
    # A factor of two either way: other processes share the machine, and the median of five takes out the rest.
    assert 0.5 < rates[len(rates) // 2] / (UPLINK_MBIT_PER_S * 1e6 / 8) < 2.0
