"""The daemon's gRPC face on a real socket, asked call by call: errors, deadlines, cancelled calls, streams, health."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from support.fake_runner import FakeRunner, probabilities
from support.grpc_thread import GrpcThread
from tritonclient.grpc import service_pb2

from scheduler.daemon.config.config import Config, load_config
from scheduler.daemon.grpc.messages import HealthCheckRequest, HealthCheckResponse
from scheduler.domain.errors import EdgeburstError, Refusal, RefusalKind

BODY_LIMIT_BYTES = 300_000
PICTURE = bytes(range(256)) * 40

CONFIG = f"""
[daemon]
body_limit_bytes = {BODY_LIMIT_BYTES}
[grpc]
port = 0
[edge]
[[model]]
name = "digits"
max_items = 8
edge_profile = "orin-resnet50"
[[model.class]]
slo_s = 25.0
[[model.class]]
name = "batch"
slo_s = 30.0
"""

METHODS = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    path = tmp_path_factory.mktemp("config") / "edgeburst.toml"
    path.write_text(CONFIG)
    return load_config(path, {})


@pytest.fixture(scope="module")
def running(config: Config) -> Iterator[tuple[GrpcThread, FakeRunner]]:
    runner = FakeRunner()
    with GrpcThread(runner.parts(), config) as server:
        yield server, runner


@pytest.fixture
def server(running: tuple[GrpcThread, FakeRunner]) -> GrpcThread:
    return running[0]


@pytest.fixture
def runner(running: tuple[GrpcThread, FakeRunner]) -> Iterator[FakeRunner]:
    fake = running[1]
    fake.calls.clear()
    fake.cancelled.clear()
    yield fake
    running[0].assert_accounted()
    fake.refusal, fake.hold, fake.broken, fake.draining, fake.value = None, False, False, False, None


@pytest.fixture
def channel(server: GrpcThread) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address, options=[("grpc.max_receive_message_length", -1)]) as connected:
        yield connected


def ask(channel: grpc.Channel, method: str, request: Any = b"", **options: Any) -> Any:
    """The response to a call and its trailing metadata; gRPC's exception for an error."""
    kind = getattr(service_pb2, METHODS[method].output_type.name)
    call = channel.unary_unary(
        f"/inference.GRPCInferenceService/{method}",
        request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
        response_deserializer=kind.FromString,
    )
    response, done = call.with_call(request, **{"timeout": 30, **options})
    return response, dict(done.trailing_metadata())


def error_of(work: Callable[[], Any]) -> tuple[str, str, dict[str, str]]:
    """Code, sentence and trailing metadata of a call that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        work()
    error: Any = caught.value
    sentence = error.details()
    assert sentence
    assert "\n" not in sentence
    assert not sentence.endswith(".")
    return error.code().name, sentence, dict(error.trailing_metadata() or ())


def request(*elements: bytes, model: str = "digits", raw: bool = True, **fields: Any) -> Any:
    message = service_pb2.ModelInferRequest(model_name=model, **fields)
    entry = message.inputs.add(name="image", datatype="BYTES", shape=[len(elements)])
    if raw:
        data = b"".join(len(element).to_bytes(4, "little") + element for element in elements)
        message.raw_input_contents.append(data)
    else:
        entry.contents.bytes_contents.extend(elements)
    return message


def until(condition: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up_s, "this never came"
        time.sleep(0.005)


def counts(server: GrpcThread) -> dict[str, Any]:
    return dict(server.service.telemetry.summary(server.service.now()))


class TestInfer:
    def test_an_answer_has_its_request_number_behind_it(self, channel: grpc.Channel, runner: FakeRunner) -> None:
        response, trailing = ask(channel, "ModelInfer", request(PICTURE, id="r-7"))
        assert response.id == "r-7"
        assert trailing["x-edgeburst-request-id"] == "1"
        rows = np.frombuffer(response.raw_output_contents[0], np.float32).reshape(1, 10)
        np.testing.assert_array_equal(rows, probabilities([PICTURE]))
        [call] = runner.calls
        assert call.inputs[0].elements() == [PICTURE]
        assert (call.body_bytes, call.class_name, call.priority, call.timeout_s) == (
            len(PICTURE) + 4,
            "default",
            2,
            None,
        )

    def test_typed_data_are_answered_typed(self, channel: grpc.Channel, runner: FakeRunner) -> None:
        response, _ = ask(channel, "ModelInfer", request(PICTURE, b"x", raw=False))
        assert not response.raw_output_contents
        assert response.outputs[0].contents.fp32_contents == probabilities([PICTURE, b"x"]).ravel().tolist()
        assert list(response.outputs[1].contents.bytes_contents) == [b"", b""]
        assert runner.calls[0].inputs[0].elements() == [PICTURE, b"x"]

    def test_metadata_names_class_tenant_and_trace(self, channel: grpc.Channel, runner: FakeRunner) -> None:
        parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        metadata = (("x-edgeburst-class", "batch"), ("x-edgeburst-tenant", "lab"), ("traceparent", parent))
        ask(channel, "ModelInfer", request(PICTURE), metadata=metadata)
        [call] = runner.calls
        assert (call.class_name, call.tenant) == ("batch", "lab")
        assert call.trace is not None
        assert call.trace.span_id == "00f067aa0ba902b7"

    def test_the_deadline_of_the_rpc_counts_where_it_is_earlier(
        self, channel: grpc.Channel, runner: FakeRunner
    ) -> None:
        timed = request(PICTURE)
        timed.parameters["timeout"].int64_param = 20_000_000
        ask(channel, "ModelInfer", timed, timeout=40)
        ask(channel, "ModelInfer", timed, timeout=15)
        ask(channel, "ModelInfer", request(PICTURE), timeout=40)
        ask(channel, "ModelInfer", request(PICTURE), timeout=15)
        found = [call.timeout_s for call in runner.calls]
        assert found[0] == 20.0
        assert found[1] is not None
        assert 1 < found[1] < 16  # gRPC rounds what it sends upwards
        assert found[2] is None
        assert found[3] is not None
        assert 1 < found[3] < 16

    @pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
    def test_packed_requests_are_unpacked_and_answered_alike(
        self, channel: grpc.Channel, runner: FakeRunner, compression: Any
    ) -> None:
        ask(channel, "ModelInfer", request(*[PICTURE] * 8), compression=compression)
        assert runner.calls[0].inputs[0].elements() == [PICTURE] * 8
        assert ask(channel, "ServerLive", compression=compression)[0].live

    @pytest.mark.parametrize(
        ("kind", "retry_after_s", "code"),
        [
            (RefusalKind.QUEUE_FULL, 1.2, "RESOURCE_EXHAUSTED"),
            (RefusalKind.DEADLINE, None, "DEADLINE_EXCEEDED"),
            (RefusalKind.DEADLINE, 60.0, "UNAVAILABLE"),
            (RefusalKind.NO_ANSWER, None, "DEADLINE_EXCEEDED"),
            (RefusalKind.DRAINING, 1.0, "UNAVAILABLE"),
            (RefusalKind.BACKEND, None, "UNAVAILABLE"),
            (RefusalKind.BAD_REQUEST, None, "INVALID_ARGUMENT"),
        ],
    )
    def test_refusals_have_code_sentence_and_metadata(
        self, channel: grpc.Channel, runner: FakeRunner, kind: RefusalKind, retry_after_s: float | None, code: str
    ) -> None:
        runner.refusal = Refusal(kind, "no, because", retry_after_s)
        found, sentence, trailing = error_of(lambda: ask(channel, "ModelInfer", request(PICTURE)))
        assert (found, sentence) == (code, "no, because")
        assert trailing["x-edgeburst-request-id"] == "1"
        assert (trailing.get("retry-after") is None) == (retry_after_s is None)

    def test_faults_of_a_request_never_reach_the_runner(self, channel: grpc.Channel, runner: FakeRunner) -> None:
        def refused(message: Any, code: str, sentence: str) -> None:
            found = error_of(lambda: ask(channel, "ModelInfer", message))
            assert found[0] == code
            assert sentence in found[1]

        refused(request(PICTURE, model="dogs"), "NOT_FOUND", "model 'dogs' is not served here; ask for one of digits")
        refused(request(PICTURE, model_version="7"), "NOT_FOUND", "version '7' of model digits is not served")
        refused(b"\xff\xff", "INVALID_ARGUMENT", "not valid protobuf")
        refused(b"\x0a\x02\xff\xfe", "INVALID_ARGUMENT", "not a valid inference.ModelInferRequest")
        refused(request(*[b"x"] * 9), "INVALID_ARGUMENT", "9 items, but model digits takes at most 8")
        refused(request(bytes(BODY_LIMIT_BYTES)), "RESOURCE_EXHAUSTED", f"over the limit of {BODY_LIMIT_BYTES} bytes")
        refused(request(bytes(3 * BODY_LIMIT_BYTES)), "RESOURCE_EXHAUSTED", "larger than max")
        assert runner.calls == []
        assert ask(channel, "ModelInfer", request(PICTURE))[0].outputs

    def test_a_message_that_would_fill_the_memory_is_refused_while_it_is_small(
        self, channel: grpc.Channel, runner: FakeRunner
    ) -> None:
        bomb = request(bytes(100 * BODY_LIMIT_BYTES))
        work = partial(ask, channel, "ModelInfer", bomb, compression=grpc.Compression.Gzip)
        assert error_of(work)[:2] == (
            "RESOURCE_EXHAUSTED",
            f"the body is over the limit of {BODY_LIMIT_BYTES} bytes;"
            " send fewer items at once, or raise daemon.body_limit_bytes",
        )

    @pytest.mark.provokes_fault
    def test_a_fault_of_the_program_is_told_without_its_traceback(
        self, channel: grpc.Channel, runner: FakeRunner, caplog: pytest.LogCaptureFixture
    ) -> None:
        runner.broken = True
        found = error_of(lambda: ask(channel, "ModelInfer", request(PICTURE)))
        assert found[:2] == ("INTERNAL", "the daemon failed on this request; see its log")
        assert "a bug, on purpose" in caplog.text

    def test_a_call_that_is_cancelled_or_late_ends_the_request(
        self, server: GrpcThread, channel: grpc.Channel, runner: FakeRunner
    ) -> None:
        runner.hold = True
        before = counts(server)["cancelled"]
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        future = call.future(request(PICTURE).SerializeToString())
        until(lambda: len(runner.calls) == 1)
        future.cancel()
        until(lambda: len(runner.cancelled) == 1)
        assert error_of(lambda: ask(channel, "ModelInfer", request(PICTURE), timeout=1.5))[0] == "DEADLINE_EXCEEDED"
        until(lambda: len(runner.cancelled) == 2)
        until(lambda: counts(server)["cancelled"] == before + 2)

    def test_calls_are_counted_as_those_of_http_are(
        self, server: GrpcThread, channel: grpc.Channel, runner: FakeRunner
    ) -> None:
        before, latencies = counts(server), runner.own_latency.summary()["count"]
        ask(channel, "ModelInfer", request(PICTURE))
        error_of(lambda: ask(channel, "ModelInfer", request(PICTURE, model="dogs")))
        runner.refusal = Refusal(RefusalKind.DEADLINE, "no, because")
        error_of(lambda: ask(channel, "ModelInfer", request(PICTURE)))
        until(lambda: counts(server)["answered"] == before["answered"] + 1)
        after = counts(server)
        assert (after["arrived"], after["refused"]) == (before["arrived"] + 2, before["refused"] + 1)
        assert runner.own_latency.summary()["count"] == int(str(latencies)) + 1
        text = server.service.telemetry.exposition().decode()
        assert 'edgeburst_grpc_errors_total{code="NOT_FOUND"}' in text

    def test_many_at_once_each_get_their_own_answer(self, channel: grpc.Channel, runner: FakeRunner) -> None:
        pictures = [number.to_bytes(2, "big") * (50 + number) for number in range(100)]
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )
        pending = [call.future(request(picture, id=str(at))) for at, picture in enumerate(pictures)]
        for at, one in enumerate(pending):
            response = one.result(timeout=30)
            assert response.id == str(at)
            assert response.raw_output_contents[0] == probabilities([pictures[at]]).tobytes()


class TestStream:
    def stream(self, channel: grpc.Channel, requests: Iterator[Any], **options: Any) -> Any:
        call = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )
        return call(requests, timeout=30, **options)

    @pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
    def test_answers_and_errors_come_in_the_order_of_the_requests(
        self, channel: grpc.Channel, runner: FakeRunner, compression: Any
    ) -> None:
        sent: list[Any] = [request(PICTURE[:size], id=str(size)) for size in range(1, 40)]
        sent[10] = request(PICTURE, id="unknown", model="dogs")
        sent[20] = b"\xff\xff"
        sent[30] = request(bytes(BODY_LIMIT_BYTES), id="large")
        found = list(self.stream(channel, iter(sent), compression=compression))
        assert len(found) == 39
        assert "model 'dogs' is not served here" in found[10].error_message
        assert found[10].infer_response.id == "unknown"
        assert "not valid protobuf" in found[20].error_message
        assert "over the limit" in found[30].error_message
        for at, message in enumerate(found):
            if at not in (10, 20, 30):
                assert message.error_message == ""
                assert message.infer_response.id == str(at + 1)
                assert message.infer_response.parameters["triton_final_response"].bool_param

    def test_a_stream_stays_open_between_requests(self, channel: grpc.Channel, runner: FakeRunner) -> None:
        go_on = threading.Event()

        def requests() -> Iterator[Any]:
            yield request(PICTURE, id="first")
            assert go_on.wait(timeout=30)
            yield request(PICTURE, id="second")

        answers = self.stream(channel, requests())
        assert next(answers).infer_response.id == "first"
        go_on.set()
        assert [answer.infer_response.id for answer in answers] == ["second"]

    def test_a_stream_that_is_cancelled_ends_its_requests(
        self, server: GrpcThread, channel: grpc.Channel, runner: FakeRunner
    ) -> None:
        runner.hold = True
        answers = self.stream(channel, iter([request(PICTURE)] * 5))
        until(lambda: len(runner.calls) == 5)
        answers.cancel()
        until(lambda: len(runner.cancelled) == 5)

    def test_a_refusal_does_not_end_the_stream(self, channel: grpc.Channel, runner: FakeRunner) -> None:
        runner.refusal = Refusal(RefusalKind.QUEUE_FULL, "no, because", 1.0)
        found = list(self.stream(channel, iter([request(PICTURE, id="a"), request(PICTURE, id="b")])))
        assert [(each.error_message, each.infer_response.id) for each in found] == [
            ("no, because", "a"),
            ("no, because", "b"),
        ]

    def test_more_requests_than_may_be_unanswered_wait_with_the_client(
        self, server: GrpcThread, channel: grpc.Channel, runner: FakeRunner
    ) -> None:
        runner.hold = True
        answers = self.stream(channel, iter([request(b"x")] * 300))
        until(lambda: len(runner.calls) == 256)
        time.sleep(0.05)
        assert len(runner.calls) == 256
        answers.cancel()
        until(lambda: len(runner.cancelled) == 256)


class TestHealth:
    def check(self, channel: grpc.Channel, service: str = "") -> int:
        call = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=HealthCheckResponse.FromString,
        )
        return int(call(HealthCheckRequest(service=service), timeout=30).status)

    def test_readiness_is_that_of_the_daemon(
        self, server: GrpcThread, channel: grpc.Channel, runner: FakeRunner
    ) -> None:
        assert self.check(channel) == self.check(channel, "inference.GRPCInferenceService") == 1
        assert ask(channel, "ServerReady")[0].ready
        assert ask(channel, "ModelReady", service_pb2.ModelReadyRequest(name="digits"))[0].ready
        runner.draining = True
        assert self.check(channel) == 2
        assert not ask(channel, "ServerReady")[0].ready
        assert not ask(channel, "ModelReady", service_pb2.ModelReadyRequest(name="digits"))[0].ready
        assert ask(channel, "ServerLive")[0].live
        [index] = ask(channel, "RepositoryIndex")[0].models
        assert (index.name, index.state) == ("digits", "UNAVAILABLE")
        assert "is stopping" in index.reason
        unknown = service_pb2.ModelReadyRequest(name="dogs")
        assert error_of(lambda: ask(channel, "ModelReady", unknown))[0] == "NOT_FOUND"

    def test_an_unknown_service_is_not_found(self, channel: grpc.Channel) -> None:
        assert error_of(lambda: self.check(channel, "dogs"))[:2] == (
            "NOT_FOUND",
            "service 'dogs' is unknown; ask for inference.GRPCInferenceService, or for none",
        )

    def test_a_watch_tells_changes_and_ends_with_the_daemon(self, channel: grpc.Channel, runner: FakeRunner) -> None:
        call = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=HealthCheckResponse.FromString,
        )
        statuses = call(HealthCheckRequest(), timeout=30)
        assert next(statuses).status == 1
        runner.draining = True
        assert [message.status for message in statuses] == [2]
        assert [message.status for message in call(HealthCheckRequest(service="dogs"), timeout=30)] == [3]


class TestServer:
    def test_what_is_not_supported_is_told_in_a_sentence(self, channel: grpc.Channel) -> None:
        for method in METHODS:
            if method.startswith(("RepositoryModel", "System", "Cuda", "Trace", "Log")):
                assert error_of(partial(ask, channel, method))[0] == "UNIMPLEMENTED"

    def test_a_port_that_is_taken_is_named(self, server: GrpcThread, runner: FakeRunner, tmp_path: Path) -> None:
        path = tmp_path / "edgeburst.toml"
        path.write_text(CONFIG.replace("port = 0", f"port = {server.port}"))
        with pytest.raises(EdgeburstError, match=rf"cannot listen for gRPC on 127.0.0.1:{server.port}; stop the"):
            GrpcThread(runner.parts(), load_config(path, {})).__enter__()
