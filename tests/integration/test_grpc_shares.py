"""Open gRPC calls of one client, however many, keep no other client out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
from support.fake_runner import FakeRunner
from support.grpc_thread import GrpcThread

from scheduler.daemon.config.config import load_config
from scheduler.daemon.grpc.messages import (
    HEALTH,
    INFERENCE,
    HealthCheckRequest,
    HealthCheckResponse,
    ModelInferRequest,
    ModelInferResponse,
)
from scheduler.daemon.ingress.access import tokens_of

MOST = 12
"""Open calls that there is room for: twice the queue."""
CONFIG = f"""
[daemon]
trusted_proxies = ["127.0.0.1"]
[engine]
queue_max_requests = {MOST // 2}
[grpc]
port = 0
[edge]
[[model]]
name = "digits"
edge_profile = "orin-resnet50"
[[token]]
name = "greedy"
sha256 = "{sha256(b"g" * 32).hexdigest()}"
scopes = ["infer"]
[[token]]
name = "honest"
sha256 = "{sha256(b"h" * 32).hexdigest()}"
scopes = ["infer"]
"""
LIMIT_S = 30.0
BY_TOKEN = ((("authorization", f"Bearer {'g' * 32}"),), (("authorization", f"Bearer {'h' * 32}"),))
BY_ADDRESS = ((("x-forwarded-for", "203.0.113.1"),), (("x-forwarded-for", "198.51.100.7"),))
Metadata = tuple[tuple[str, str], ...]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[GrpcThread, FakeRunner]]:
    path = tmp_path / "edgeburst.toml"
    path.write_text(CONFIG)
    runner, config = FakeRunner(), load_config(path, {})
    with GrpcThread(runner.parts(), config) as server:
        server.service.access.configure(tokens_of(config, {}), is_open=True)
        yield server, runner


@pytest.fixture
def channel(running: tuple[GrpcThread, FakeRunner]) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(running[0].address) as connected:
        yield connected


def request(name: str = "") -> Any:
    message = ModelInferRequest(model_name="digits", id=name, raw_input_contents=[b"\x01\x00\x00\x00x"])
    message.inputs.add(name="image", datatype="BYTES", shape=[1])
    return message


def infer(channel: grpc.Channel, client: Metadata) -> Any:
    """Begins a request."""
    call = channel.unary_unary(
        f"/{INFERENCE}/ModelInfer",
        request_serializer=ModelInferRequest.SerializeToString,
        response_deserializer=ModelInferResponse.FromString,
    )
    return call.future(request(), metadata=client, timeout=LIMIT_S)


def watch(channel: grpc.Channel, client: Metadata) -> Any:
    """Begins a call that lasts as long as the daemon."""
    call = channel.unary_stream(
        f"/{HEALTH}/Watch",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )
    return call(HealthCheckRequest(), metadata=client, timeout=LIMIT_S)


def stream(channel: grpc.Channel, client: Metadata, *requests: Any) -> Any:
    """Begins an infer stream whose client sends requests and no end, and reads no answer."""
    call = channel.stream_stream(
        f"/{INFERENCE}/ModelStreamInfer",
        request_serializer=ModelInferRequest.SerializeToString,
        response_deserializer=bytes,
    )
    sent: SimpleQueue[Any] = SimpleQueue()
    for each in requests:
        sent.put(each)
    begun = call(iter(sent.get, None), metadata=client, timeout=LIMIT_S)
    begun.add_callback(lambda: sent.put(None))
    return begun


def until(condition: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < give_up_s
        time.sleep(0.005)


def opened(server: GrpcThread, count: int, begin: Callable[[], Any]) -> list[Any]:
    """Begins calls, one after the other."""
    calls = []
    for _ in range(count):
        before = server.server.open_calls
        calls.append(begin())
        until(lambda before=before: server.server.open_calls > before)  # type: ignore[misc]
    return calls


def ended(calls: list[Any]) -> list[str]:
    """The names of the codes of those calls that have ended."""
    return [call.code().name for call in calls if not call.is_active()]


@pytest.mark.parametrize(("greedy", "honest"), [BY_TOKEN, BY_ADDRESS], ids=["tokens", "addresses"])
def test_streams_that_say_nothing_end_for_the_requests_of_a_newcomer(
    running: tuple[GrpcThread, FakeRunner], channel: grpc.Channel, greedy: Metadata, honest: Metadata
) -> None:
    server, runner = running
    streams = opened(server, MOST, lambda: stream(channel, greedy))
    assert ended(streams) == []
    runner.hold = True
    waiting = [infer(channel, honest) for _ in range(3)]
    until(lambda: runner.held == 3 and len(ended(streams)) == 3)
    assert ended(streams[-3:]) == ["RESOURCE_EXHAUSTED"] * 3
    assert dict(streams[-1].trailing_metadata())["retry-after"] == "1"
    refused = infer(channel, greedy)
    assert refused.code().name == "RESOURCE_EXHAUSTED"
    assert refused.details().startswith("12 calls are open, which is all there is room for, and this client has 9 of")

    async def let_go() -> None:
        runner.let_go()

    server.on_loop(let_go)
    assert [call.result().model_name for call in waiting] == ["digits"] * 3
    for each in streams:
        each.cancel()
    until(lambda: server.server.open_calls == 0)


def test_watches_end_for_a_newcomer_too(running: tuple[GrpcThread, FakeRunner], channel: grpc.Channel) -> None:
    server, _ = running
    greedy, honest = BY_ADDRESS
    watches = opened(server, MOST, lambda: watch(channel, greedy))
    assert [each.next().status for each in watches] == [1] * MOST
    assert infer(channel, honest).result().model_name == "digits"
    assert watch(channel, honest).next().status == 1
    until(lambda: ended(watches) == ["RESOURCE_EXHAUSTED"])
    for each in watches:
        each.cancel()


def test_a_client_that_reads_no_answer_and_so_no_status_keeps_no_other_out(
    running: tuple[GrpcThread, FakeRunner], channel: grpc.Channel
) -> None:
    server, runner = running
    greedy, honest = BY_TOKEN
    # The answer repeats the request's name: several do not fit between a server and a client that does not read.
    large = [request("n" * 100_000)] * 4
    streams = opened(server, MOST, lambda: stream(channel, greedy, *large))
    until(lambda: len(runner.calls) == 4 * MOST)
    for _ in range(2 * MOST):
        assert infer(channel, honest).result().model_name == "digits"
    # Those that gave way count as this client's until it takes their status.
    more = [stream(channel, greedy, *large) for _ in range(2 * MOST)]
    until(lambda: "RESOURCE_EXHAUSTED" in ended(more))
    assert infer(channel, honest).result().model_name == "digits"
    for each in streams + more:
        each.cancel()
    until(lambda: server.server.open_calls == 0)
