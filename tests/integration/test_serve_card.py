"""A daemon with a model's card: measured at the start, shapes apart, ragged answers, which files each place serves."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from support import operators
from support.card_edge import CARD, CardEdge, card_folder, expected
from support.daemon_process import Running, daemon_process, until

from models.card import TensorSpec
from models.card_reader import read_card
from scheduler import wire
from scheduler.daemon.backends.batch_send import BatchSend, SendFailed
from scheduler.daemon.backends.edge import EdgeBackend
from scheduler.daemon.model_outputs import ModelOutputs
from scheduler.domain.batches import Batch, Failure, FailureKind
from scheduler.domain.requests import Place
from scheduler.wire import InferRequest, Tensor

pytestmark = pytest.mark.xdist_group("serve")

CONFIG = """
[daemon]
port = 0
{daemon}
[edge]
url = "{edge}"
[[model]]
card = "ragged"
[[model.class]]
slo_s = 20.0
"""


def written(folder: Path, edge: str, daemon: str = "") -> Path:
    path = folder / "edgeburst.toml"
    path.write_text(CONFIG.format(edge=edge, daemon=daemon))
    return path


def status(daemon: Running) -> dict[str, Any]:
    with urllib.request.urlopen(f"{daemon.url}/v1/status", timeout=20) as response:
        found: dict[str, Any] = json.loads(response.read())
    return found


def ragged(daemon: Running) -> dict[str, Any]:
    found: dict[str, Any] = status(daemon)["models"]["ragged"]
    return found


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def asked(session: aiohttp.ClientSession, url: str, x: Any) -> tuple[Tensor, ...]:
    body = wire.encode_request(InferRequest("", (Tensor.from_numpy("x", x),), binary_by_default=True))
    async with session.post(f"{url}/v2/models/ragged/infer", data=body.body, headers=body.headers) as response:
        answer = await response.read()
        assert response.status == 200, answer
        return wire.parse_response(answer, wire.json_length_of(response.headers)).outputs


async def all_answered(url: str, inputs: list[Any]) -> None:
    async with aiohttp.ClientSession() as session:
        answers = await asyncio.gather(*(asked(session, url, x) for x in inputs))
    for x, outputs in zip(inputs, answers, strict=True):
        sums, rows, counts = (output.to_numpy() for output in outputs)
        wanted = [expected(item) for item in x]
        assert sums.tolist() == [total for total, _ in wanted]
        assert counts.tolist() == [len(own) for _, own in wanted]
        assert np.array_equal(rows, np.concatenate([own for _, own in wanted]))


def test_a_card_is_enough_and_shapes_share_no_batch(tmp_path: Path) -> None:
    folder = card_folder(tmp_path)
    identity = read_card(folder).identity()
    with CardEdge(identity=identity) as edge, daemon_process(written(tmp_path, edge.url)) as daemon:
        profile = ragged(daemon)["edge_profile"]
        assert profile["source"] == "measured"
        assert [row["items"] for row in profile["rows"]] == [1, 2, 8]
        assert "edge_measured" in daemon.log
        assert "plan_infeasible" not in daemon.log
        assert {shape[0] for shape in edge.batches} == {1, 2, 8}
        edge.batches.clear()
        random = np.random.default_rng(1)
        inputs = [
            random.integers(0, 4, (random.integers(1, 4), random.choice([3, 5, 9]))).astype(np.float32)
            for _ in range(60)
        ]
        asyncio.run(all_answered(daemon.url, inputs))
        assert sum(shape[0] for shape in edge.batches) == sum(map(len, inputs))
        assert len(edge.batches) < len(inputs), "requests of one shape share batches"
        until(lambda: ragged(daemon)["agree"] is True, "both report the same files")
        assert ragged(daemon)["places"] == {"edge:main": identity}
        assert "identity_differs" not in daemon.log
        metadata = json.loads(urllib.request.urlopen(f"{daemon.url}/v2/models/ragged", timeout=20).read())
        assert [output["name"] for output in metadata["outputs"]] == ["sum", "rows", "rows_rows"]


def test_each_of_two_edges_is_measured_and_one_that_serves_other_files_gets_no_batch(tmp_path: Path) -> None:
    folder = card_folder(tmp_path)
    right, wrong = read_card(folder).identity(), "sha256:" + "0" * 64
    with CardEdge(identity=wrong, largest=5) as near, CardEdge(identity=right) as far:
        edges = [f'[[edge]]\nname = "{name}"\nurl = "{edge.url}"' for name, edge in (("near", near), ("far", far))]
        path = written(tmp_path, "", 'state = "state"')
        path.write_text(path.read_text().replace('[edge]\nurl = ""', "\n".join(edges)))
        with daemon_process(path) as daemon:
            until(lambda: {"near", "far"} <= ragged(daemon)["edge_profiles"].keys(), "both are measured")
            measured = ragged(daemon)["edge_profiles"]
            assert {name: [row["items"] for row in of["rows"]] for name, of in measured.items()} == {
                "near": [1, 2, 5],
                "far": [1, 2, 8],
            }
            until(lambda: list(ragged(daemon)["refused"]) == ["edge:near"], "the one with other files is refused")
            near.batches.clear()
            far.batches.clear()
            asyncio.run(all_answered(daemon.url, [np.array([[2, 3]], np.float32)] * 20))
            assert (len(near.batches), sum(shape[0] for shape in far.batches)) == (0, 20)
            assert sorted(file.name for file in (tmp_path / "state" / "edge_profiles").iterdir()) == [
                "ragged@far.json",
                "ragged@near.json",
            ]
            operators.put(f"{daemon.url}/v1/models/ragged/identity", {"identity": wrong})
            until(lambda: list(ragged(daemon)["refused"]) == ["edge:far"], "now the other one is")
            asyncio.run(all_answered(daemon.url, [np.array([[2, 3]], np.float32)] * 20))
            assert len(near.batches) > 0


def test_an_edge_that_comes_later_is_measured_then_and_remembered(tmp_path: Path) -> None:
    folder, port = card_folder(tmp_path), free_port()
    path = written(tmp_path, f"http://127.0.0.1:{port}", 'state = "state"')
    edge = CardEdge(port=port, identity="sha256:" + "0" * 64, largest=5, listens=False)
    with daemon_process(path) as daemon:
        assert ragged(daemon)["edge_profile"]["source"] == "not measured"
        assert "edge_not_measured" in daemon.log
        with edge:
            until(lambda: ragged(daemon)["edge_profile"]["source"] == "measured", "the measurement")
            # The edge refuses 8 items, and says how many it takes.
            assert [row["items"] for row in ragged(daemon)["edge_profile"]["rows"]] == [1, 2, 5]
            until(lambda: "identity_refused" in daemon.log, "a sentence that the files differ")
            assert list(ragged(daemon)["refused"]) == ["edge:main"]
            url = f"{daemon.url}/v1/models/ragged/identity"
            operators.put(url, {"identity": edge.identity})
            asyncio.run(all_answered(daemon.url, [np.array([[2, 3]], np.float32)]))
            assert "identity_differs" in daemon.log
            assert ragged(daemon)["agree"] is False
            metrics = urllib.request.urlopen(f"{daemon.url}/metrics", timeout=20).read().decode()
            assert 'edgeburst_model_identity_agrees{model="ragged"} 0.0' in metrics
            daemon.signal(signal.SIGTERM)
            assert daemon.exit_status() == 0
    edge = CardEdge(port=port, largest=5)
    with edge, daemon_process(path) as again:
        assert ragged(again)["edge_profile"]["source"] == "measured"
        # It is not measured again; one made-up item shows that it answers.
        assert edge.batches == [(1, 8)]
        (folder / "model.toml").write_text(CARD + 'summary = "another one"\n')
        again.signal(signal.SIGHUP)
        until(lambda: len(edge.batches) > 3, "another card is measured anew")


def test_requests_wait_for_the_measurement_within_their_deadlines(tmp_path: Path) -> None:
    card_folder(tmp_path)
    port = free_port()
    edge = CardEdge(port=port, listens=False)
    one = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
    with daemon_process(written(tmp_path, f"http://127.0.0.1:{port}")) as daemon:
        hasty = json.dumps({**one, "parameters": {"timeout": 100_000}}).encode()
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{daemon.url}/v2/models/ragged/infer", hasty, timeout=20)
        assert refused.value.code == 503
        assert "could not be measured on the edge yet" in json.loads(refused.value.read())["error"]
        assert int(refused.value.headers["Retry-After"]) >= 1
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(asyncio.run, all_answered(daemon.url, [np.array([[2, 3]], np.float32)]))
            with edge:
                waiting.result(timeout=30)
        daemon.assert_accounted()


async def failure_of(edge: CardEdge) -> Failure:
    backend = EdgeBackend(url=edge.url, connect_timeout_s=1.0, clock=time.monotonic)
    await backend.open()
    now_s = time.monotonic()
    batch = Batch(1, Place.edge(), "ragged", (1, 2), 2, 0, now_s, now_s + 5, now_s + 5, now_s + 1, 1.0)
    outputs = TensorSpec("rows", "FP32", (2,), ragged=True), TensorSpec("rows_rows", "INT64")
    send = BatchSend(batch, None, now_s, outputs=ModelOutputs(outputs))
    x = Tensor.from_numpy("x", np.ones((2, 3), np.float32))
    try:
        await backend.send(send, InferRequest("1", (x,), binary_by_default=True))
    except SendFailed as failed:
        return failed.failure
    finally:
        await backend.close()
    raise AssertionError("the answer was taken")


def test_rows_that_do_not_add_up_cannot_be_used() -> None:
    with CardEdge(rows_off_by=1) as edge:
        failure = asyncio.run(failure_of(edge))
    assert failure.kind is FailureKind.BROKEN
    assert "output 'rows' has 2 rows, which 'rows_rows' (2, 2) do not fit" in failure.message
