"""The function backend with the real SDK over real sockets: every outcome has its kind, its bill and one sentence."""

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import numpy as np
import pytest
from support import stub_fc
from support.stub_fc import Heard, Say, Script, StubFc

from models.card import TensorSpec
from scheduler import wire
from scheduler.daemon.backends.batch_send import BatchSend, Reply, SendFailed
from scheduler.daemon.backends.function import FunctionBackend, FunctionName
from scheduler.daemon.model_outputs import ModelOutputs
from scheduler.domain.batches import Batch, BatchReport, FailureKind
from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.requests import Place
from scheduler.fc_client import AccessKey, Account, CallFailed, FunctionCaller
from scheduler.wire import InferRequest, Tensor, item_crc32
from scheduler.wire.trace_context import TraceContext
from scripts.support.stub_edge import expected_row

SECRET = "very-secret-secret"
TIER = FunctionTier("1gb", "infer", LatencyModel(0.2, 0.1, 8), Price(1.0, 0.1), qualifier="prod")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def a_send(items: int = 2, *, batch_id: int = 1, give_up_after_s: float = 5.0) -> BatchSend:
    now_s = time.monotonic()
    batch = Batch(
        batch_id=batch_id,
        place=Place.function("1gb"),
        model="digits",
        request_ids=tuple(range(items)),
        items=items,
        body_bytes=0,
        # A second ago: the function's times, which are no longer than that, can be believed.
        sent_at_s=now_s - 1.0,
        deadline_s=now_s + 1.0,
        give_up_at_s=now_s + give_up_after_s,
        predicted_finish_s=now_s + 0.1,
        predicted_service_s=0.1,
    )
    return BatchSend(batch, TIER, now_s)


def a_request(items: int = 2, prefix: str = "") -> InferRequest:
    pictures = [f"{prefix}{index}".encode() for index in range(items)]
    return InferRequest("1", (Tensor.from_elements("image", pictures),), binary_by_default=True)


def an_account(port: int) -> Account:
    return Account("cn-hangzhou", AccessKey("an-id", SECRET), f"127.0.0.1:{port}", "http")


def a_backend(port: int, *, max_in_flight: int = 4, functions: Sequence[FunctionName] = ()) -> FunctionBackend:
    return FunctionBackend(
        account=an_account(port), functions=functions, max_in_flight=max_in_flight, clock=time.monotonic
    )


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(main, 30.0))


@asynccontextmanager
async def opened(backend: FunctionBackend) -> AsyncIterator[FunctionBackend]:
    try:
        yield backend
    finally:
        await backend.close()


async def against(script: Script, batch_send: BatchSend | None = None) -> tuple[StubFc, Reply]:
    stub, server, port = await stub_fc.start(script)
    backend = a_backend(port)
    try:
        await backend.open()
        return stub, await backend.send(batch_send or a_send(), a_request())
    finally:
        await backend.close()
        server.close()


def failure_of(script: Script, batch_send: BatchSend | None = None) -> SendFailed:
    with pytest.raises(SendFailed) as failed:
        run(against(script, batch_send))
    assert SECRET not in str(failed.value)
    return failed.value


def test_a_batch_comes_back_with_its_rows_and_what_the_container_measured() -> None:
    stub, reply = run(against(stub_fc.answer_frame))
    assert np.array_equal(reply.outputs[0].to_numpy(), np.stack([expected_row(b"0"), expected_row(b"1")]))
    report = reply.report
    assert (report.service_s, report.billed_duration_s, report.memory_bytes) == (0.25, 0.3, 123456789)
    assert (report.instance_id, report.cold_start) == ("c-1", True)
    (heard,) = stub.heard
    assert heard.target == "/2023-03-30/functions/infer/invocations?qualifier=prod"
    assert heard.headers["x-acs-content-sha256"]
    assert heard.headers["authorization"].startswith("ACS3-HMAC-SHA256 Credential=an-id,")


def test_the_identity_of_the_files_that_answered_is_passed_on() -> None:
    assert run(against(answered(identity="sha256:1")))[1].identity == "sha256:1"
    assert run(against(answered()))[1].identity == ""


def test_a_warming_call_carries_nothing_and_tells_of_its_instance_and_its_bill() -> None:
    def warmed(heard: Heard) -> Say:
        header, payload = wire.unpack_frame(heard.body)
        assert header["warm"] is True
        assert payload.body == b""
        said = {"status": 200, "service_s": 0.0, "duration_s": 0.001, "instance_id": "c-1", "cold_start": False}
        return Say(200, wire.pack_frame({**said, "batch_id": header["batch_id"]}, wire.Encoded(b"", None)))

    _, reply = run(against(warmed, a_send(items=0)))
    assert reply.outputs == ()
    assert (reply.report.billed_duration_s, reply.report.instance_id, reply.report.cold_start) == (0.001, "c-1", False)


def answered(**changes: object) -> Callable[[Heard], Say]:
    return lambda heard: stub_fc.answer_frame(heard, **changes)


def failed_function(error_type: str, message: str) -> Say:
    body = json.dumps({"errorMessage": message, "errorType": "X", "stackTrace": []}).encode()
    return Say(200, body, {"X-Fc-Error-Type": error_type})


@pytest.mark.parametrize("promised", [0, 10_000_000])
def test_no_more_is_read_of_an_answer_than_the_models_outputs_can_take(promised: int) -> None:
    outputs = ModelOutputs((TensorSpec("probabilities", "FP32", (10,)),))

    def large(heard: Heard) -> Say:
        body = stub_fc.answer_frame(heard).body
        # Either the body itself is too long, or it says that it will be; nothing waits for the rest.
        return Say(200, body, truncate=promised) if promised else Say(200, body + bytes(2_000_000))

    failed = failure_of(large, replace(a_send(), outputs=outputs))
    assert failed.failure.kind is FailureKind.BROKEN
    assert "sent an answer of more than 1049216 bytes" in failed.failure.message
    assert run(against(stub_fc.answer_frame, replace(a_send(), outputs=outputs)))[1].outputs


def test_an_answer_about_other_items_is_a_broken_batch() -> None:
    sums = item_crc32(a_request().inputs)
    assert run(against(answered(item_crc32=sums), replace(a_send(), item_crc32=sums)))[1].outputs
    failed = failure_of(answered(item_crc32=sums[8:] + sums[:8]), replace(a_send(), item_crc32=sums))
    assert failed.failure.kind is FailureKind.BROKEN
    assert "the items of the batch in another order" in failed.failure.message


def test_an_answer_that_does_not_fit_the_card_is_a_broken_batch_that_is_paid_for() -> None:
    five = ModelOutputs((TensorSpec("probabilities", "FP32", (5,)),))
    failed = failure_of(stub_fc.answer_frame, replace(a_send(), outputs=five))
    assert failed.failure.kind is FailureKind.BROKEN
    assert "'probabilities' has the shape [10] for each item" in failed.failure.message
    assert failed.report.billed_duration_s == 0.3


@pytest.mark.parametrize(
    ("said", "kind", "sentence"),
    [
        (stub_fc.error(400, "InvalidArgument"), FailureKind.FORBIDDEN, "400 InvalidArgument): check `endpoint`"),
        (stub_fc.error(400, "EntityTooLarge"), FailureKind.REJECTED, "400 EntityTooLarge"),
        (stub_fc.error(403, "SignatureNotMatch"), FailureKind.FORBIDDEN, "check the access key"),
        (stub_fc.error(404, "FunctionNotFound"), FailureKind.FORBIDDEN, "deploy the function"),
        (stub_fc.error(429, "ResourceExhausted"), FailureKind.THROTTLED, "429 ResourceExhausted"),
        (stub_fc.error(503, "ResourceThrottled"), FailureKind.THROTTLED, "503 ResourceThrottled"),
        (stub_fc.error(500, "InternalServerError"), FailureKind.SERVER, "500 InternalServerError"),
        (stub_fc.error(502, "BadResponse"), FailureKind.SERVER, "502 BadResponse"),
        (stub_fc.error(400, "InsufficientBalance"), FailureKind.FORBIDDEN, "settle the provider's account"),
        (stub_fc.error(400, "SomethingNew"), FailureKind.FORBIDDEN, "400 SomethingNew): look the code up"),
        (stub_fc.error(400, "Throttling.User"), FailureKind.THROTTLED, "400 Throttling.User"),
        (stub_fc.error(500, "Throttling"), FailureKind.THROTTLED, "500 Throttling"),
        (Say(429), FailureKind.THROTTLED, "cannot be read"),
        (Say(403, b"<html>forbidden</html>"), FailureKind.FORBIDDEN, "cannot be read"),
        (Say(413, b"<html>too large</html>"), FailureKind.REJECTED, "cannot be read"),
        (Say(502, b"<html>bad gateway</html>"), FailureKind.SERVER, "cannot be read"),
        (Say(500), FailureKind.SERVER, "cannot be read"),
        (Say(cut=True), FailureKind.BROKEN, "broke the connection"),
        (Say(200, b"EBF1", truncate=10), FailureKind.BROKEN, "broke the connection"),
        (Say(200, b"hello"), FailureKind.BROKEN, "does not begin with EBF1"),
        (failed_function("UnhandledInvocationError", "Process exited"), FailureKind.FUNCTION, "Process exited"),
        (failed_function("InitializeError", "no weights"), FailureKind.FUNCTION, "no weights"),
        (Say(200, b"", {"X-Fc-Error-Type": "HandledInvocationError"}), FailureKind.FUNCTION, "HandledInvocationError"),
    ],
)
def test_what_goes_wrong_on_the_way_has_its_kind(said: Say, kind: FailureKind, sentence: str) -> None:
    failed = failure_of(lambda heard: said)
    assert failed.failure.kind is kind
    assert sentence in failed.failure.message


@pytest.mark.parametrize(
    ("off_s", "words"),
    [(3600, "ahead of the provider's"), (-3600, "behind the provider's"), (0, "check the access key")],
)
def test_a_clock_that_is_wrong_is_named_from_the_answers_date(off_s: int, words: str) -> None:
    date = formatdate(time.time() - off_s, usegmt=True)  # noqa: TID251 - as the provider writes it
    failed = failure_of(lambda heard: stub_fc.error(403, "SignatureNotMatch", Date=date))
    assert failed.failure.kind is FailureKind.FORBIDDEN
    assert words in failed.failure.message
    assert failed.failure.said.startswith("127.0.0.1:")
    assert failed.failure.said.endswith(": SignatureNotMatch: SignatureNotMatch happened")


@pytest.mark.parametrize(
    ("changes", "kind", "sentence"),
    [
        ({"status": 400, "error": "wrong shape"}, FailureKind.REJECTED, "the function answered 400: wrong shape"),
        ({"status": 404, "error": "no model x"}, FailureKind.FORBIDDEN, "the function answered 404: no model x"),
        ({"status": 500, "error": "exploded"}, FailureKind.FUNCTION, "the function failed (500): exploded"),
        ({"batch_id": "other-7"}, FailureKind.BROKEN, "answered to another batch, other-7"),
        ({"status": "yes"}, FailureKind.FUNCTION, "the function failed (yes)"),
    ],
)
def test_a_frame_that_says_it_failed_is_a_failure_and_its_bill_is_known(
    changes: dict[str, object], kind: FailureKind, sentence: str
) -> None:
    failed = failure_of(answered(**changes))
    assert failed.failure.kind is kind
    assert sentence in failed.failure.message
    assert failed.report.billed_duration_s == 0.3


def test_a_good_frame_under_an_error_type_is_still_a_failed_function() -> None:
    def script(heard: Heard) -> Say:
        return replace(stub_fc.answer_frame(heard), headers={"X-Fc-Error-Type": "UnhandledInvocationError"})

    failed = failure_of(script)
    assert failed.failure.kind is FailureKind.FUNCTION
    assert failed.report.billed_duration_s == 0.3


@pytest.mark.parametrize(
    ("said", "sentence"), [({"model": "another"}, "from model 'another'"), ({}, "has 2 rows for 3 items")]
)
def test_an_answer_of_another_model_or_length_is_never_taken_for_this_batchs(
    said: dict[str, str], sentence: str
) -> None:
    def script(heard: Heard) -> Say:
        header, payload = wire.unpack_frame(heard.body)
        return stub_fc.answer_frame(replace(heard, body=wire.pack_frame({**header, **said}, payload)))

    failed = failure_of(script, a_send(3))
    assert failed.failure.kind is FailureKind.BROKEN
    assert sentence in failed.failure.message


def test_throttling_passes_on_when_to_come_back() -> None:
    said = stub_fc.error(429, "ResourceExhausted", **{"x-acs-retry-after": "1500"})
    assert failure_of(lambda heard: said).failure.retry_after_s == 1.5


def test_an_endpoint_that_is_not_there_is_unreachable() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))

        async def main() -> None:
            async with opened(a_backend(reserved.getsockname()[1])) as backend:
                await backend.send(a_send(), a_request())

        with pytest.raises(SendFailed) as failed:
            run(main())
    assert failed.value.failure.kind is FailureKind.UNREACHABLE


def test_a_silent_endpoint_times_out_in_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.daemon.backends.function.LATE_READ_S", 0.0)
    failed = failure_of(lambda heard: Say(hang_s=3.0), a_send(give_up_after_s=0.3))
    assert failed.failure.kind is FailureKind.TIMEOUT


def test_a_batch_that_finds_no_thread_in_time_is_not_sent_late() -> None:
    failed = failure_of(stub_fc.answer_frame, a_send(give_up_after_s=-0.1))
    assert failed.failure.kind is FailureKind.UNREACHABLE


def test_many_batches_at_once_keep_their_answers_apart() -> None:
    async def main() -> None:
        _, server, port = await stub_fc.start(stub_fc.answer_frame)
        backend = a_backend(port, max_in_flight=8)
        await backend.open()

        async def one(batch_id: int) -> None:
            reply = await backend.send(a_send(batch_id=batch_id), a_request(prefix=f"{batch_id}-"))
            rows = [expected_row(f"{batch_id}-{index}".encode()) for index in range(2)]
            assert np.array_equal(reply.outputs[0].to_numpy(), np.stack(rows))

        await asyncio.gather(*(one(batch_id) for batch_id in range(100)))
        await backend.close()
        server.close()

    run(main())


INFER = FunctionName("infer", "prod")


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (Say(200, b"{}", {"Content-Type": "application/json"}), ""),
        (stub_fc.error(403, "InvalidAccessKeyID"), "check the access key that [function] refers to"),
        (stub_fc.error(404, "FunctionNotFound"), "deploy the function"),
        (stub_fc.error(403, "AccessDenied"), ""),
    ],
)
def test_the_first_probe_tells_a_wrong_key_or_name_but_not_a_key_that_may_only_invoke(
    said: Say, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> tuple[bool, Heard]:
        stub, server, port = await stub_fc.start(lambda heard: said if heard.method == "GET" else Say(403))
        backend = a_backend(port, functions=[INFER])
        try:
            return (await backend.probe()).ok, stub.heard[0]
        finally:
            await backend.close()
            server.close()

    ok, heard = run(main())
    told = [record.fields["message"] for record in caplog.records if record.getMessage() == "function_check"]  # type: ignore[attr-defined]
    assert ok == (sentence == "")
    assert told == [] if ok else sentence in told[0]
    assert (heard.method, heard.target) == ("GET", "/2023-03-30/functions/infer?qualifier=prod")


def test_one_wrong_name_among_several_functions_does_not_shut_the_others_out() -> None:
    def script(heard: Heard) -> Say:
        if "infer" in heard.target:
            return Say(200, b"{}", {"Content-Type": "application/json"})
        return stub_fc.error(404, "FunctionNotFound")

    async def main() -> bool:
        _, server, port = await stub_fc.start(script)
        backend = a_backend(port, functions=[INFER, FunctionName("typo", "prod")])
        try:
            return (await backend.probe()).ok
        finally:
            await backend.close()
            server.close()

    assert run(main())


def test_a_probe_measures_the_way_by_an_unsigned_request() -> None:
    async def main() -> tuple[Any, Heard]:
        stub, server, port = await stub_fc.start(lambda heard: replace(stub_fc.error(403, "AccessDenied"), hang_s=0.05))
        backend = a_backend(port)
        try:
            return await backend.probe(), stub.heard[0]
        finally:
            await backend.close()
            server.close()

    measured, heard = run(main())
    assert measured.ok
    assert 0 < measured.rtt_s < 0.05
    assert measured.sent_bytes == len(heard.body) == 32 * 1024
    assert measured.transfer_s >= 0.04
    assert "authorization" not in heard.headers


@pytest.mark.parametrize("said", [Say(cut=True), Say(403)])
def test_a_probe_that_is_hung_up_on_still_found_somebody(said: Say) -> None:
    async def main() -> Any:
        _, server, port = await stub_fc.start(lambda heard: said)
        backend = a_backend(port)
        try:
            return await backend.probe()
        finally:
            await backend.close()
            server.close()

    assert run(main()).ok


def test_a_probe_of_a_closed_port_fails() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))

        async def main() -> Any:
            async with opened(a_backend(reserved.getsockname()[1])) as backend:
                return await backend.probe()

        assert not run(main()).ok


def test_after_a_refused_key_a_probe_succeeds_only_when_the_key_is_good_again() -> None:
    async def main() -> list[bool]:
        refuse = False

        def script(heard: Heard) -> Say:
            if "authorization" not in heard.headers:
                return Say(403)
            if refuse:
                return stub_fc.error(403, "SignatureNotMatch")
            is_check = heard.method == "GET"
            return Say(200, b"{}", {"Content-Type": "application/json"}) if is_check else stub_fc.answer_frame(heard)

        _, server, port = await stub_fc.start(script)
        backend = a_backend(port, functions=[INFER])
        await backend.send(a_send(), a_request())
        refuse = True
        with pytest.raises(SendFailed):
            await backend.send(a_send(), a_request())
        while_wrong = (await backend.probe()).ok
        refuse = False
        when_right = (await backend.probe()).ok
        await backend.close()
        server.close()
        return [while_wrong, when_right]

    assert run(main()) == [False, True]


def test_no_error_of_the_sdk_leaves_with_body_or_key() -> None:
    async def main() -> CallFailed:
        _, server, port = await stub_fc.start(lambda heard: Say(cut=True))

        def call() -> CallFailed:
            caller = FunctionCaller(an_account(port), connections=1)
            caller.open()
            with pytest.raises(CallFailed) as failed:
                caller.invoke(function="infer", qualifier="LATEST", body=b"x", read_timeout_s=2.0)
            return failed.value

        failed = await asyncio.get_running_loop().run_in_executor(None, call)
        server.close()
        return failed

    failed = run(main())
    assert failed.__context__ is None
    assert failed.__cause__ is None


def test_a_forked_child_shares_no_session_with_its_parent() -> None:
    async def warm() -> None:
        await against(stub_fc.answer_frame)

    run(warm())
    from darabonba.core import DaraCore

    assert DaraCore._sessions
    child = os.fork()
    if child == 0:
        os._exit(0 if not DaraCore._sessions else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_proxy_in_the_environment_is_named_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    account = replace(an_account(1), endpoint="fc.example.invalid")

    async def main() -> None:
        made = FunctionBackend(account=account, functions=(), max_in_flight=1, clock=time.monotonic)
        async with opened(made) as backend:
            await backend.open()

    run(main())
    assert any(record.fields["variable"] == "HTTPS_PROXY" for record in caplog.records if hasattr(record, "fields"))


def test_a_start_that_the_container_reports_comes_with_the_report() -> None:
    assert run(against(answered(init_s=0.5)))[1].report.init_s == 0.5
    assert run(against(answered()))[1].report.init_s is None


def test_a_report_that_cannot_be_true_is_replaced_by_the_prediction_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> list[BatchReport]:
        _, server, port = await stub_fc.start(answered(duration_s=1e9, init_s=-1.0))
        backend = a_backend(port)
        try:
            await backend.open()
            return [(await backend.send(a_send(), a_request())).report for _ in range(2)]
        finally:
            await backend.close()
            server.close()

    for report in run(main()):
        assert report.billed_duration_s == 0.1
        assert report.disbelieved == ("duration_s", "init_s")
    told = [record for record in caplog.records if record.message == "report_not_believed"]
    assert sorted(vars(record)["fields"]["field"] for record in told) == ["duration_s", "init_s"]


def test_the_end_of_the_containers_log_is_asked_for_and_taken() -> None:
    def said(heard: Heard) -> Say:
        asked = wire.unpack_frame(heard.body)[0].get("log_tail")
        return stub_fc.answer_frame(heard, log_tail="x" * 5000 if asked else "unasked")

    send = a_send()
    send.wants_log = True
    run(against(said, send))
    assert send.log_tail == "x" * 2048


def test_a_failed_initializer_is_no_run() -> None:
    def said(_: Heard) -> Say:
        return Say(200, b'{"errorMessage": "no"}', {"X-Fc-Error-Type": "InitializationError"})

    failed = failure_of(said)
    assert failed.failure.kind is FailureKind.FUNCTION
    assert failed.report.initializer_failed


def test_the_trace_of_a_batch_is_in_the_header_of_its_frame() -> None:
    heads: list[dict[str, object]] = []

    def said(heard: Heard) -> Say:
        heads.append({key: value for key, value in wire.unpack_frame(heard.body)[0].items() if key.startswith("trace")})
        return stub_fc.answer_frame(heard)

    for trace in (TraceContext("4b" * 16, "00f067aa0ba902b7", state="a=1"), None):
        run(against(said, replace(a_send(), trace=trace)))
    assert heads == [{"traceparent": f"00-{'4b' * 16}-00f067aa0ba902b7-00", "tracestate": "a=1"}, {}]


def test_a_body_may_take_longer_than_it_takes_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.fc_client.CONNECT_TIMEOUT_S", 0.3)

    async def main() -> None:
        stub, connections = StubFc(stub_fc.answer_frame), []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(writer)
            while True:
                await asyncio.sleep(0.9)  # the uplink's buffers are full, and it is slow
                if not await stub.serve_one(reader, writer):
                    return

        server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**16)
        backend = a_backend(int(server.sockets[0].getsockname()[1]))
        await backend.open()
        large = InferRequest("1", (Tensor.from_elements("image", [bytes(2**24)]),), binary_by_default=True)
        for batch_id in (1, 2):
            await backend.send(a_send(1, batch_id=batch_id, give_up_after_s=20.0), large)
        assert len(connections) == 1, "the second batch did not use the first one's connection"
        await backend.close()
        connections[0].transport.abort()
        server.close()

    run(main())


def test_bytes_that_were_not_sent_are_dropped_with_their_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.fc_client.CONNECT_TIMEOUT_S", 0.3)
    monkeypatch.setattr("scheduler.sdk_connections.SEND_LIMIT_S", 0.3)

    async def main() -> bool:
        ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(1.0)  # the sender's patience ends meanwhile
            try:
                while await reader.read(2**20):
                    pass
                ended.set_result(False)
            except ConnectionResetError:
                ended.set_result(True)

        server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**16)
        backend = a_backend(int(server.sockets[0].getsockname()[1]))
        await backend.open()
        large = InferRequest("1", (Tensor.from_elements("image", [bytes(2**24)]),), binary_by_default=True)
        with pytest.raises(SendFailed):
            await backend.send(a_send(1, give_up_after_s=10.0), large)
        was_reset = await ended
        await backend.close()
        server.close()
        return was_reset

    assert run(main())
