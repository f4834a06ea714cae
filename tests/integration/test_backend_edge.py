"""The edge backend over real sockets: every way in which an edge can fail has its name, and answers never mix."""

import asyncio
import socket
import time
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from itertools import repeat
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from models.card import TensorSpec
from scheduler.daemon.backends.batch_send import BatchSend, Reply, SendFailed
from scheduler.daemon.backends.edge import EdgeBackend
from scheduler.daemon.model_outputs import ModelOutputs
from scheduler.domain.batches import Batch, BatchReport, FailureKind
from scheduler.domain.requests import Place
from scheduler.wire import InferRequest, Tensor, item_crc32
from scheduler.wire.trace_context import TraceContext
from scripts.support import stub_edge
from scripts.support.stub_edge import Behaviour


def a_send(items: int, *, batch_id: int = 1) -> BatchSend:
    now_s = time.monotonic()
    batch = Batch(
        batch_id=batch_id,
        place=Place.edge(),
        model="digits",
        request_ids=tuple(range(items)),
        items=items,
        body_bytes=0,
        sent_at_s=now_s,
        deadline_s=now_s + 1.0,
        give_up_at_s=now_s + 5.0,
        predicted_finish_s=now_s + 0.1,
        predicted_service_s=0.1,
    )
    return BatchSend(batch, None, now_s)


def a_request(pictures: list[bytes], batch_id: int = 1) -> InferRequest:
    return InferRequest(str(batch_id), (Tensor.from_elements("image", pictures),), binary_by_default=True)


async def an_edge(port: int, connect_timeout_s: float = 1.0) -> EdgeBackend:
    edge = EdgeBackend(url=f"http://127.0.0.1:{port}", connect_timeout_s=connect_timeout_s, clock=time.monotonic)
    await edge.open()
    return edge


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(main, 20.0))


async def against(behaviour: Behaviour, items: int = 3) -> tuple[BatchSend, Reply]:
    _, server, port = await stub_edge.start(behaviour)
    edge = await an_edge(port)
    batch_send = a_send(items)
    try:
        return batch_send, await edge.send(batch_send, a_request([b"%d" % index for index in range(items)]))
    finally:
        await edge.close()
        server.close()


@pytest.mark.parametrize(("said", "believed_s"), [(None, None), (0.0, 0.0), (99.0, None), (-1.0, None), ("x", None)])
def test_the_wait_for_the_device_is_taken_as_the_edge_says_it_if_it_can_be(said: object, believed_s: object) -> None:
    _, reply = run(against(Behaviour(waited_s=said)))  # type: ignore[arg-type]
    assert reply.report.queue_s == believed_s


def failure_of(behaviour: Behaviour) -> SendFailed:
    with pytest.raises(SendFailed) as failed:
        run(against(behaviour))
    return failed.value


def test_a_batch_comes_back_with_its_rows_its_service_time_and_the_kernels_round_trip() -> None:
    batch_send, reply = run(against(Behaviour(alpha_s=0.02, beta_s=0.01)))
    rows = reply.outputs[0].to_numpy()
    assert np.array_equal(rows, np.stack([stub_edge.expected_row(b"%d" % index) for index in range(3)]))
    assert reply.report.service_s == pytest.approx(0.05)
    assert reply.report.rtt_s is not None
    assert 0 < reply.report.rtt_s < 0.1
    assert batch_send.written_at_s is not None
    assert batch_send.decided_at_s <= batch_send.written_at_s <= reply.read_at_s


@pytest.mark.parametrize(
    ("mode", "sentence"),
    [
        ("short", "has 4 rows for 3 items"),
        ("other_model", "the answer is from model 'another'"),
        ("wrong_id", "the answer is to batch '77777'"),
        ("garbage", "is not valid JSON"),
        ("cut", "broke the connection"),
    ],
)
def test_an_answer_that_cannot_be_the_batchs_own_is_a_broken_batch_and_never_an_answer(
    mode: str, sentence: str
) -> None:
    failed = failure_of(Behaviour(mode=mode))
    assert failed.failure.kind is FailureKind.BROKEN
    assert sentence in failed.failure.message


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, FailureKind.REJECTED),
        (413, FailureKind.REJECTED),
        (401, FailureKind.FORBIDDEN),
        (404, FailureKind.FORBIDDEN),
        (429, FailureKind.THROTTLED),
        (503, FailureKind.THROTTLED),
        (500, FailureKind.SERVER),
        (302, FailureKind.SERVER),
    ],
)
def test_a_status_says_what_can_be_done(status: int, kind: FailureKind) -> None:
    failed = failure_of(Behaviour(mode="status", status=status, error="because", retry_after="2.5"))
    assert failed.failure.kind is kind
    assert failed.failure.message == f"the edge server answered {status}: because"
    assert failed.failure.retry_after_s == 2.5


def test_an_edge_that_is_not_there_is_unreachable_and_no_batch_was_written() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        batch_send = a_send(1)

        async def main() -> None:
            edge = await an_edge(reserved.getsockname()[1])
            try:
                await edge.send(batch_send, a_request([b"x"]))
            finally:
                await edge.close()

        with pytest.raises(SendFailed, match="cannot be reached: Conn") as failed:
            run(main())
    assert failed.value.failure.kind is FailureKind.UNREACHABLE
    assert batch_send.written_at_s is None


def test_an_edge_that_takes_no_connection_is_unreachable() -> None:
    async def main() -> SendFailed:
        with socket.socket() as full, socket.socket() as first, socket.socket() as second:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for occupant in (first, second):
                occupant.setblocking(False)
                occupant.connect_ex(full.getsockname())
            edge = await an_edge(full.getsockname()[1], connect_timeout_s=0.2)
            try:
                await edge.send(a_send(1), a_request([b"x"]))
            except SendFailed as failed:
                return failed
            finally:
                await edge.close()
        raise AssertionError("it was answered")

    assert run(main()).failure.kind is FailureKind.UNREACHABLE


def test_many_batches_at_once_keep_their_answers_apart_and_connections_are_kept_alive() -> None:
    async def main() -> int:
        stub, server, port = await stub_edge.start(Behaviour())
        edge = await an_edge(port)

        async def one(batch_id: int) -> None:
            pictures = [b"%d-%d" % (batch_id, index) for index in range(batch_id % 5 + 1)]
            batch_send = a_send(len(pictures), batch_id=batch_id)
            reply = await edge.send(batch_send, a_request(pictures, batch_id))
            assert np.array_equal(reply.outputs[0].to_numpy(), np.stack([*map(stub_edge.expected_row, pictures)]))

        for first in range(0, 200, 10):
            await asyncio.gather(*(one(first + offset) for offset in range(10)))
        await edge.close()
        server.close()
        return stub.counters.connections

    assert run(main()) <= 10


def test_a_probe_says_whether_the_edge_is_ready_and_why_not(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> list[bool]:
        stub, server, port = await stub_edge.start(Behaviour())
        edge = await an_edge(port)
        ready = (await edge.probe()).ok
        stub.behaviour = replace(stub.behaviour, not_ready=True)
        not_ready = (await edge.probe()).ok
        server.close()
        await edge.close()
        gone = await an_edge(port)
        absent = (await gone.probe()).ok
        await gone.close()
        return [ready, not_ready, absent]

    assert run(main()) == [True, False, False]
    not_ready, absent = [record.fields["message"] for record in caplog.records if hasattr(record, "fields")]
    assert "is not ready: it answered 503" in not_ready
    assert "cannot be reached: Connect" in absent


def test_a_server_that_was_started_anew_unseen_is_asked_again_what_it_takes() -> None:
    said = {"max_batch": 8, "parallel": 2}

    async def ready(_: web.Request) -> web.Response:
        return web.json_response({})

    async def model(_: web.Request) -> web.Response:
        return web.json_response({"parameters": {**said, "identity": "sha256:1"}})

    async def main() -> list[tuple[tuple[tuple[str, int], ...], int | None]]:
        app = web.Application()
        app.router.add_get("/v2/health/ready", ready)
        app.router.add_get("/v2", ready)
        app.router.add_get("/v2/models/digits", model)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        edge = EdgeBackend(url=url, connect_timeout_s=1.0, clock=time.monotonic, models={"digits": frozenset()})
        await edge.open()
        heard = []
        for largest, parallel in ((8, 2), (8, 2), (32, 2), (32, 2), (32, 4)):
            said.update(max_batch=largest, parallel=parallel)
            assert await edge.identity("digits") == "sha256:1"
            probe = await edge.probe()
            heard.append((probe.largest_batches, probe.parallel))
        await edge.close()
        await runner.cleanup()
        return heard

    eight, more = (("digits", 8),), (("digits", 32),)
    assert run(main()) == [(eight, 2), ((), None), (more, 2), ((), None), (more, 4)]


def test_an_identity_is_read_an_absent_one_is_empty_and_no_description_says_nothing() -> None:
    answers: list[tuple[int, object]] = [
        (200, {"parameters": {"identity": "sha256:1"}}),
        (200, {"parameters": {"identity": 7}}),
        (200, {"name": "digits"}),
        (200, []),
        (503, {"error": "starting"}),
    ]

    async def model(_: web.Request) -> web.Response:
        status, said = answers.pop(0)
        return web.json_response(said, status=status)

    async def main() -> list[str | None]:
        app = web.Application()
        app.router.add_get("/v2/models/digits", model)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        edge = EdgeBackend(url=url, connect_timeout_s=1.0, clock=time.monotonic)
        await edge.open()
        found = [await edge.identity("digits") for _ in range(5)]
        await runner.cleanup()
        found.append(await edge.identity("digits"))
        await edge.close()
        return found

    assert run(main()) == ["sha256:1", "", "", None, None, None]


def test_the_trace_of_a_batch_is_passed_on_in_w3cs_headers_and_nothing_without_one() -> None:
    heard: list[dict[str, str]] = []

    async def serve(request: web.Request) -> web.Response:
        heard.append({key.lower(): value for key, value in request.headers.items() if key.lower().startswith("trace")})
        return web.Response(status=503)

    async def main() -> None:
        app = web.Application()
        app.router.add_post("/v2/models/digits/infer", serve)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        edge = await an_edge(runner.addresses[0][1])
        for trace in (TraceContext("4b" * 16, "00f067aa0ba902b7", sampled=True, state="a=1"), None):
            with pytest.raises(SendFailed):
                await edge.send(replace(a_send(1), trace=trace), a_request([b"x"]))
        await edge.close()
        await runner.cleanup()

    run(main())
    assert heard == [{"traceparent": f"00-{'4b' * 16}-00f067aa0ba902b7-01", "tracestate": "a=1"}, {}]


def test_a_batch_that_meets_a_kept_connection_as_the_server_closes_it_is_sent_again_on_another() -> None:
    async def main() -> tuple[int, Reply]:
        stub, server, port = await stub_edge.start(Behaviour())
        edge = await an_edge(port)
        await edge.send(a_send(1), a_request([b"a"]))

        # What a server does that closes its connection after an answer, without saying so before.
        served = stub.serve_one

        async def closes(*connection: asyncio.StreamReader | asyncio.StreamWriter) -> bool:
            if stub.counters.connections == 1:
                await connection[0].readuntil(b"\r\n\r\n")  # type: ignore[union-attr]
                return False
            return await served(*connection)  # type: ignore[arg-type]

        stub.serve_one = closes  # type: ignore[method-assign, assignment]
        await asyncio.sleep(0)
        # The server is reading already by the old method: this batch is still answered, the next one is not.
        await edge.send(a_send(1, batch_id=2), a_request([b"b"], 2))
        reply = await edge.send(a_send(2, batch_id=3), a_request([b"c", b"d"], 3))
        await edge.close()
        server.close()
        return stub.counters.connections, reply

    connections, reply = run(main())
    assert connections == 2
    assert np.array_equal(
        reply.outputs[0].to_numpy(), np.stack([stub_edge.expected_row(b"c"), stub_edge.expected_row(b"d")])
    )


@pytest.mark.parametrize("kept", ["probe", "batches"])
def test_connections_that_all_end_as_the_next_call_comes_cost_no_batch(kept: str) -> None:
    """Each connection serves one call; whatever kept it, the next batch is sent at once on a fresh one."""

    async def main() -> list[Reply]:
        stub, server, port = await stub_edge.start(Behaviour())
        served = stub.serve_one

        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
            if await served(reader, writer):
                await reader.readuntil(b"\r\n\r\n")
            return False

        stub.serve_one = once  # type: ignore[method-assign]
        edge = await an_edge(port)
        if kept == "probe":
            assert (await edge.probe()).ok
        else:
            await asyncio.gather(*(edge.send(a_send(1, batch_id=n), a_request([b"x"], n)) for n in range(4)))
        replies = [await edge.send(a_send(1, batch_id=n), a_request([b"y"], n)) for n in range(10, 14)]
        await edge.close()
        server.close()
        return replies

    assert len(run(main())) == 4


OUTPUTS = ModelOutputs((TensorSpec("probabilities", "FP32", (10,)), TensorSpec("item_error", "BYTES")))


async def against_bytes(head: bytes, pieces: Iterator[bytes], batch_send: BatchSend) -> tuple[SendFailed, int]:
    """Returns the failure of a batch that is answered so, and how many bytes the server could write."""
    written = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n" + head)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                written += len(piece)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    edge = await an_edge(server.sockets[0].getsockname()[1])
    try:
        await edge.send(batch_send, a_request([b"x"]))
    except SendFailed as failed:
        return failed, written
    finally:
        await edge.close()
        server.close()
    raise AssertionError("it was answered")


@pytest.mark.parametrize("endless", [True, False])
def test_no_more_is_read_of_an_answer_than_the_models_outputs_can_take(endless: bool) -> None:
    if endless:
        head, pieces = b"Transfer-Encoding: chunked\r\n\r\n", repeat(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
    else:
        head, pieces = b"Content-Length: 10000000\r\n\r\n", repeat(b"x" * 0x10000, 150)
    batch_send = replace(a_send(1), outputs=OUTPUTS)
    failed, written = run(against_bytes(head, pieces, batch_send))
    assert failed.failure.kind is FailureKind.BROKEN
    assert "it is over 1052992 bytes, more than the model's outputs can take" in failed.failure.message
    # What is in the buffers of two sockets comes on top of what was read.
    assert written < 30_000_000


def test_an_answer_that_does_not_fit_the_card_is_a_broken_batch() -> None:
    async def main() -> None:
        _, server, port = await stub_edge.start(Behaviour())
        edge = await an_edge(port)
        five = ModelOutputs((TensorSpec("probabilities", "FP32", (5,)),))
        try:
            assert len((await edge.send(replace(a_send(1), outputs=OUTPUTS), a_request([b"x"]))).outputs) == 2
            await edge.send(replace(a_send(1), outputs=five), a_request([b"x"]))
        finally:
            await edge.close()
            server.close()

    with pytest.raises(SendFailed, match=r"'probabilities' has the shape \[10\] for each item") as failed:
        run(main())
    assert failed.value.failure.kind is FailureKind.BROKEN


@pytest.mark.parametrize("said", [-0.5, 999999, "NaN", "0.01"])
def test_seconds_that_the_edge_says_of_itself_are_believed_only_within_what_was_measured(
    said: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> list[BatchReport]:
        stub, server, port = await stub_edge.start(Behaviour())
        edge = await an_edge(port)
        reports = []
        try:
            for says_s in (said, said, 0.0):
                stub.behaviour = Behaviour(says_s=says_s)  # type: ignore[arg-type]
                reports.append((await edge.send(a_send(1), a_request([b"x"]))).report)
        finally:
            await edge.close()
            server.close()
        return reports

    first, second, honest = run(main())
    assert (first.service_s, first.disbelieved) == (second.service_s, second.disbelieved) == (None, ("service_s",))
    assert (honest.service_s, honest.disbelieved) == (0.0, ())
    assert [record.getMessage() for record in caplog.records].count("report_not_believed") == 1


def test_an_answer_about_the_items_in_another_order_is_a_broken_batch() -> None:
    async def main(mode: str, sums: str) -> Reply:
        _, server, port = await stub_edge.start(Behaviour(mode=mode))
        edge = await an_edge(port)
        try:
            return await edge.send(replace(a_send(2), item_crc32=sums), a_request([b"a", b"b"]))
        finally:
            await edge.close()
            server.close()

    sums = item_crc32([Tensor.from_elements("image", [b"a", b"b"])])
    assert run(main("ok", sums)).outputs
    for said, sentence in ((sums, "the items of the batch in another order"), ("0" * 16, "from item 0 on")):
        with pytest.raises(SendFailed, match=sentence) as failed:
            run(main("reversed", said))
        assert failed.value.failure.kind is FailureKind.BROKEN
