"""A body that arrives in pieces is what was sent, takes memory as it arrives, and ends by its limits."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.daemon.http.arriving_body import ArrivingBody
from scheduler.daemon.ingress.body_limits import BodyLimits
from scheduler.daemon.ingress.errors import Rejected
from scripts.support.virtual_loop import VirtualLoop

LIMITS = {"body_limit_bytes": 10**8, "total_limit_bytes": 10**8}


def run(work: Callable[[BodyLimits], object], **changes: int) -> object:
    """Runs work on a loop."""

    async def on_loop() -> object:
        return work(BodyLimits(**{**LIMITS, **changes}))

    return asyncio.run(on_loop())


def fill(body: ArrivingBody, data: bytes) -> None:
    """Lets bytes arrive."""
    while data:
        room = body.room()
        part = data[: len(room)]
        room[: len(part)] = part
        body.took(len(part))
        data = data[len(part) :]


@given(st.binary(min_size=1, max_size=200_000), st.data())
def test_it_is_what_was_sent(sent: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=6)))
    pieces = [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]

    def arrive(limits: BodyLimits) -> bytes:
        body = ArrivingBody(limits, "a", len(sent) + 1, memoryview(pieces[0]), pytest.fail)
        for piece in pieces[1:]:
            fill(body, piece)
        assert (body.missing, limits.arriving_bytes) == (1, len(sent))
        fill(body, b"!")
        found = bytes(body.whole())
        assert limits.arriving_bytes == 0
        return found

    assert run(arrive) == sent + b"!"


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=20))
def test_its_buffers_are_a_few_times_what_has_arrived(sizes: list[int]) -> None:
    def arrive(limits: BodyLimits) -> None:
        body, arrived = ArrivingBody(limits, "a", 10**8, memoryview(b""), pytest.fail), 0
        for size in sizes:
            fill(body, b"x" * size)
            arrived += size
            assert len(body.room()) <= max(16 * 1024, 5 * arrived)
        body.end()

    run(arrive)


def test_half_a_body_gets_one_buffer_for_all_of_it() -> None:
    def arrive(limits: BodyLimits) -> object:
        body = ArrivingBody(limits, "a", 200_000, memoryview(b"x" * 100_000), pytest.fail)
        assert len(body.room()) == 100_000
        fill(body, b"y" * 100_000)
        return body.whole()

    assert run(arrive) == b"x" * 100_000 + b"y" * 100_000


def test_one_that_is_whole_is_not_held_by_what_received_it() -> None:
    def arrive(limits: BodyLimits) -> None:
        body = ArrivingBody(limits, "a", 200_000, memoryview(b"x" * 100_000), pytest.fail)
        fill(body, b"y" * 100_000)
        whole = body.whole()
        assert isinstance(whole, memoryview)
        buffer = weakref.ref(whole.obj)
        del whole
        assert buffer() is None
        assert not body.missing

    run(arrive)


def test_one_that_is_too_large_is_not_begun() -> None:
    def arrive(limits: BodyLimits) -> None:
        with pytest.raises(Rejected) as caught:
            ArrivingBody(limits, "a", 101, memoryview(b"x"), pytest.fail)
        assert (caught.value.status, limits.arriving_bytes) == (413, 0)

    run(arrive, body_limit_bytes=100)


def test_one_that_is_late_is_refused_once_and_one_that_is_whole_is_not() -> None:
    refused: list[Rejected] = []

    async def arrive() -> None:
        limits = BodyLimits(**LIMITS)
        late = ArrivingBody(limits, "a", 9, memoryview(b"x"), refused.append)
        whole = ArrivingBody(limits, "a", 2, memoryview(b"x"), refused.append)
        fill(whole, b"y")
        assert whole.whole() == b"xy"
        await asyncio.sleep(61)
        late.end()
        assert limits.arriving_bytes == 0

    VirtualLoop().run_until_complete(arrive())
    assert [error.status for error in refused] == [408]


def test_the_largest_of_the_greediest_gives_way() -> None:
    refused: list[str] = []

    async def arrive() -> None:
        limits = BodyLimits(body_limit_bytes=1000, total_limit_bytes=1000)
        greedy = ArrivingBody(limits, "a", 1000, memoryview(b"x" * 900), lambda error: refused.append(str(error)))
        other = ArrivingBody(limits, "b", 1000, memoryview(b"x" * 200), pytest.fail)
        await asyncio.sleep(0)
        assert "too many bodies" in refused[0]
        greedy.end()
        other.end()
        assert (limits.arriving_bytes, limits.leaving_bytes) == (0, 0)

    asyncio.run(arrive())
