"""Parts of the gRPC server that no client shows on demand: room for messages, compression, status codes, deadlines."""

from __future__ import annotations

import asyncio
import gzip
import random
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from hypothesis import given
from hypothesis import strategies as st
from support.fake_runner import FakeRunner
from support.hygiene import at_end

from scheduler.daemon.calls import InferenceCall, Refused
from scheduler.daemon.config.config import load_config
from scheduler.daemon.grpc.calls import SIZES_KEPT, MessageReader
from scheduler.daemon.grpc.compression import Packing, packing_of, unpacked
from scheduler.daemon.grpc.inference import InferenceCalls, _within
from scheduler.daemon.grpc.messages import ModelInferRequest
from scheduler.daemon.grpc.server import GrpcServer
from scheduler.daemon.grpc.statuses import CODES, code_of, metadata_of
from scheduler.daemon.ingress.access import Caller
from scheduler.daemon.ingress.body_limits import BodyLimits
from scheduler.daemon.ingress.errors import Rejected, client_error
from scheduler.daemon.ingress.service import InferenceService
from scheduler.domain.errors import HTTP_STATUS, Refusal, RefusalKind
from scheduler.wire import WireError

CONFIG = Path(__file__).parents[2] / "scripts" / "edgeburst.example.toml"


class FakeContext:
    """Hands messages out when told to."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[object] = asyncio.Queue()
        self.reads = 0
        self.compression: Any = None

    async def read(self) -> object:
        self.reads += 1
        return await self.messages.get()

    def set_compression(self, compression: Any) -> None:
        self.compression = compression

    async def write(self, message: bytes) -> None:
        raise ConnectionResetError

    def set_trailing_metadata(self, metadata: object) -> None:
        pass

    def invocation_metadata(self) -> None:
        return None

    def time_remaining(self) -> None:
        return None


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(work(), 30)

    asyncio.run(limited())


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class TestRoom:
    def test_reads_wait_for_room_and_then_go_on_in_their_order(self) -> None:
        async def work() -> None:
            limits = BodyLimits(body_limit_bytes=100, total_limit_bytes=250)
            reader = MessageReader(limits)
            at_end(reader.close)
            contexts = [FakeContext() for _ in range(5)]
            calls = [asyncio.ensure_future(reader.only(context)) for context in contexts]
            await settled()
            # Nothing is known of sizes yet: each may be as large as the limit.
            assert [context.reads for context in contexts] == [1, 1, 0, 0, 0]
            assert limits.arriving_bytes == 200
            contexts[1].messages.put_nowait(b"\x0a" * 40)
            assert await calls[1] == b"\x0a" * 40
            await settled()
            assert [context.reads for context in contexts] == [1, 1, 1, 0, 0]
            for context in contexts:
                context.messages.put_nowait(b"\x0a" * 50)
            assert [len(await call) for call in calls] == [50, 40, 50, 50, 50]
            assert limits.arriving_bytes == 0
            # From now on the largest of the latest messages is the measure.
            waiting = [asyncio.ensure_future(reader.only(FakeContext())) for _ in range(6)]
            await settled()
            assert limits.arriving_bytes == 250
            for call in waiting:
                call.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            assert limits.arriving_bytes == 0

        run(work)

    def test_bodies_of_http_take_part_of_the_room(self) -> None:
        async def work() -> None:
            limits = BodyLimits(body_limit_bytes=100, total_limit_bytes=150)
            (body := limits.begin("")).add(60)
            reader, context = MessageReader(limits), FakeContext()
            at_end(reader.close)
            context.messages.put_nowait(b"\x0ax")
            call = asyncio.ensure_future(reader.only(context))
            await settled()
            assert context.reads == 0
            body.end()
            assert await call == b"\x0ax"

        run(work)

    def test_a_client_that_reserves_all_leaves_room_for_another(self) -> None:
        async def work() -> None:
            limits = BodyLimits(body_limit_bytes=100, total_limit_bytes=200)
            reader = MessageReader(limits)
            at_end(reader.close)
            greedy = [asyncio.ensure_future(reader.only(FakeContext(), "greedy")) for _ in range(9)]
            await settled()
            contexts = [FakeContext() for _ in range(3)]
            for context in contexts:
                context.messages.put_nowait(b"\x0ax")
            assert await asyncio.gather(*(reader.only(context, "other") for context in contexts)) == [b"\x0ax"] * 3
            for call in greedy:
                call.cancel()
            await asyncio.gather(*greedy, return_exceptions=True)
            assert limits.arriving_bytes == 0

        run(work)

    def test_clients_that_wait_for_room_take_turns(self) -> None:
        order: list[str] = []

        async def work() -> None:
            limits = BodyLimits(body_limit_bytes=100, total_limit_bytes=100)
            (body := limits.begin("other")).add(50)

            async def one(client: str) -> None:
                await limits.reserve(100, client)
                order.append(client)
                await asyncio.sleep(0)
                limits.release(100, client)

            waiting = [asyncio.ensure_future(one(client)) for client in ("a", "a", "a", "a", "b", "c")]
            await settled()
            body.end()
            await asyncio.gather(*waiting)
            assert limits.arriving_bytes == 0

        run(work)
        assert order[:3] == ["a", "b", "c"]

    def test_one_that_gives_up_lets_the_next_one_through(self) -> None:
        async def work() -> None:
            limits = BodyLimits(body_limit_bytes=100, total_limit_bytes=100)
            await limits.reserve(100)
            first, second = (asyncio.ensure_future(limits.reserve(100)) for _ in range(2))
            await settled()
            limits.release(100)
            first.cancel()
            await second
            assert first.cancelled()
            assert limits.arriving_bytes == 100

        run(work)

    @given(st.lists(st.integers(1, 120), min_size=1, max_size=12))
    def test_all_get_through_and_never_more_than_fit(self, sizes: list[int]) -> None:
        async def work() -> None:
            limits, most = BodyLimits(body_limit_bytes=120, total_limit_bytes=150), 0

            async def one(size: int) -> None:
                nonlocal most
                await limits.reserve(size)
                most = max(most, limits.arriving_bytes)
                await asyncio.sleep(0)
                limits.release(size)

            await asyncio.gather(*(one(size) for size in sizes))
            assert limits.arriving_bytes == 0
            assert most <= 150

        run(work)

    def test_a_message_that_is_slow_or_finds_no_room_is_told_so(self) -> None:
        async def work() -> None:
            limits = BodyLimits(body_limit_bytes=100, total_limit_bytes=100, time_limit_s=0.01)
            reader = MessageReader(limits)
            at_end(reader.close)
            slow, crowded = await asyncio.gather(
                reader.only(FakeContext()), reader.only(FakeContext()), return_exceptions=True
            )
            assert isinstance(slow, Rejected)
            assert (slow.status, str(slow)) == (408, "the body did not arrive within 0.01 s; send it again")
            assert isinstance(crowded, Rejected)
            assert (crowded.status, crowded.headers) == (429, {"Retry-After": "1"})
            assert limits.arriving_bytes == 0

        run(work)

    def test_a_call_without_a_message_and_one_that_is_too_large(self) -> None:
        async def work() -> None:
            reader, context = MessageReader(BodyLimits(body_limit_bytes=10, total_limit_bytes=100)), FakeContext()
            context.messages.put_nowait(aio.EOF)
            with pytest.raises(WireError, match="the call has no message; send one"):
                await reader.only(context)
            context.messages.put_nowait(b"\x0a" * 11)
            with pytest.raises(Rejected, match="over the limit of 10 bytes"):
                await reader.only(context)

        run(work)

    def test_old_sizes_are_forgotten(self) -> None:
        async def work() -> None:
            limits = BodyLimits(body_limit_bytes=100, total_limit_bytes=1000)
            reader, context = MessageReader(limits), FakeContext()
            at_end(reader.close)
            for size in [90, *[10] * SIZES_KEPT]:
                context.messages.put_nowait(b"\x0a" * size)
                await reader.only(context)
            call = asyncio.ensure_future(reader.only(context))
            await settled()
            assert limits.arriving_bytes == 10
            call.cancel()

        run(work)


class TestCompression:
    @pytest.mark.parametrize("size", [100, 300_000])
    @pytest.mark.parametrize("packing", [Packing.GZIP, Packing.DEFLATE])
    def test_a_packed_message_is_unpacked_and_answered_alike(self, packing: Packing, size: int) -> None:
        content = b"\x0a" + random.Random(1).randbytes(size)
        packed = gzip.compress(content) if packing is Packing.GZIP else zlib.compress(content)
        wanted = grpc.Compression.Gzip if packing is Packing.GZIP else grpc.Compression.Deflate

        async def work() -> None:
            limits = BodyLimits(body_limit_bytes=4_000_000, total_limit_bytes=4_000_000)
            reader, context = MessageReader(limits), FakeContext()
            at_end(reader.close)
            context.messages.put_nowait(packed)
            assert await reader.only(context) == content
            assert context.compression is wanted
            later = FakeContext()
            later.messages.put_nowait(packed)
            assert await reader.next(later, answer_alike=False) == content
            assert later.compression is None

        run(work)

    def test_a_message_that_grows_beyond_the_limit_is_not_unpacked_further(self) -> None:
        bomb = gzip.compress(bytes(50_000_000))
        assert len(bomb) < 60_000
        assert len(unpacked(bomb, Packing.GZIP, limit_bytes=1000)) == 1001

        async def work() -> None:
            reader = MessageReader(BodyLimits(body_limit_bytes=60_000, total_limit_bytes=60_000))
            context = FakeContext()
            context.messages.put_nowait(bomb)
            with pytest.raises(Rejected, match="over the limit of 60000 bytes"):
                await reader.only(context)

        run(work)

    @pytest.mark.parametrize(
        "damaged",
        [gzip.compress(b"x" * 100)[:-9], gzip.compress(b"x" * 100)[:12] + b"\xff" * 20],
        ids=["cut off", "overwritten"],  # without names they would have the time, which each worker packs in
    )
    def test_a_damaged_message_is_told(self, damaged: bytes) -> None:
        with pytest.raises(WireError, match="not what its grpc-encoding, gzip, says"):
            unpacked(damaged, Packing.GZIP, limit_bytes=1000)

    @given(st.binary(max_size=40), st.integers(1, 14), st.sampled_from([0, 1, 2, 5]))
    def test_no_message_of_the_protocol_looks_packed(self, content: bytes, number: int, kind: int) -> None:
        assert packing_of(bytes([number << 3 | kind]) + content) is Packing.NONE


class TestStatuses:
    def test_every_refusal_has_a_code(self) -> None:
        codes = {kind: code_of(client_error(Refused(Refusal(kind, "no, because")))).name for kind in RefusalKind}
        assert codes == {
            RefusalKind.QUEUE_FULL: "RESOURCE_EXHAUSTED",
            RefusalKind.DEADLINE: "DEADLINE_EXCEEDED",
            RefusalKind.NO_ANSWER: "DEADLINE_EXCEEDED",
            RefusalKind.DRAINING: "UNAVAILABLE",
            RefusalKind.BACKEND: "UNAVAILABLE",
            RefusalKind.QUOTA: "UNAVAILABLE",
            RefusalKind.NO_BACKEND: "UNAVAILABLE",
            RefusalKind.BAD_REQUEST: "INVALID_ARGUMENT",
            RefusalKind.TOO_LARGE: "RESOURCE_EXHAUSTED",
        }
        assert {HTTP_STATUS[kind] for kind in RefusalKind} <= CODES.keys()

    @pytest.mark.parametrize(
        ("kind", "code"), [(RefusalKind.DEADLINE, "UNAVAILABLE"), (RefusalKind.NO_ANSWER, "DEADLINE_EXCEEDED")]
    )
    def test_what_is_known_to_change_may_be_sent_again(self, kind: RefusalKind, code: str) -> None:
        told = client_error(Refused(Refusal(kind, "the spend cap is reached", 12.3), 7))
        assert code_of(told).name == code
        assert metadata_of(told.headers) == (("retry-after", "13"), ("x-edgeburst-request-id", "7"))

    def test_headers_of_http_alone_stay_there(self) -> None:
        assert metadata_of({"Vary": "Origin"}) == ()
        assert metadata_of({"WWW-Authenticate": "Bearer"}) == (("www-authenticate", "Bearer"),)
        assert code_of(client_error(Rejected(418, "a teapot"))) is grpc.StatusCode.UNKNOWN


class TestDeadlines:
    @pytest.mark.parametrize(
        ("own_s", "left_s", "expected_s"),
        [(None, None, None), (None, 5.0, None), (None, 0.5, 0.5), (2.0, 0.5, 0.5), (0.2, 0.5, 0.2), (2.0, -1.0, 1e-6)],
    )
    def test_the_earlier_one_counts(self, own_s: float | None, left_s: float | None, expected_s: float | None) -> None:
        call = InferenceCall("m", (), items=1, body_bytes=0, received_at_s=0.0, timeout_s=own_s)
        assert _within(call, left_s, allowed_s=1.0 if own_s is None else own_s).timeout_s == expected_s


class TestLostClient:
    @pytest.mark.parametrize("call", ["infer", "stream"])
    def test_an_answer_that_cannot_be_written_counts_as_cancelled_and_ends_the_call(self, call: str) -> None:
        runner = FakeRunner(clock=lambda: 1.0)
        service = InferenceService(runner.parts(), load_config(CONFIG, {}))
        inference = InferenceCalls(service, MessageReader(service.bodies))
        message = ModelInferRequest(model_name="digits", raw_input_contents=[b"\x01\x00\x00\x00x"])
        message.inputs.add(name="image", datatype="BYTES", shape=[1])

        async def work() -> None:
            context = FakeContext()
            context.messages.put_nowait(message.SerializeToString())
            with pytest.raises((ConnectionResetError, asyncio.CancelledError)):
                await getattr(inference, call)(context, Caller())

        run(work)
        counts = service.telemetry.summary(1.0)
        assert (counts["arrived"], counts["answered"], counts["cancelled"]) == (1, 0, 1)
        assert runner.own_latency.summary()["count"] == 0


class TestServer:
    def test_every_call_of_the_protocol_is_served_or_refused_with_a_sentence(self) -> None:
        from tritonclient.grpc import service_pb2

        config = load_config(CONFIG, {"EDGEBURST_GRPC__PORT": "0"})
        assert config.grpc is not None
        server = GrpcServer(InferenceService(FakeRunner().parts(), config), config.grpc)
        works = server._works()
        known = set(service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name)
        assert known == set(works["inference.GRPCInferenceService"])
        assert set(works["grpc.health.v1.Health"]) == {"Check", "Watch"}
