"""Bodies that arrive share the memory for them: where it is full, the greedy peer's largest is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from scheduler.daemon.ingress.body_limits import BODIES_AT_ONCE, BodyLimits
from scheduler.daemon.ingress.errors import Rejected


def ends(total_bytes: int, bodies: Sequence[tuple[str, Sequence[int]]]) -> list[str]:
    """Lets bodies arrive, each of a peer in pieces, piece by piece in turn; returns how each ended."""

    async def arrive(limits: BodyLimits, peer: str, pieces: Sequence[int]) -> str:
        arrival = limits.begin(peer)
        try:
            for piece in pieces:
                arrival.add(piece)
                await asyncio.sleep(0.001)
        except Rejected as error:
            return f"refused {error.status}"
        except asyncio.CancelledError:
            assert arrival.caught()
            return "given up"
        finally:
            arrival.end()
        return "whole"

    async def run() -> list[str]:
        limits = BodyLimits(body_limit_bytes=1000, total_limit_bytes=total_bytes)
        ended = await asyncio.gather(*(arrive(limits, peer, pieces) for peer, pieces in bodies))
        assert (limits.arriving_bytes, limits.leaving_bytes) == (0, 0)
        return ended

    return asyncio.run(run())


def test_with_room_all_are_whole() -> None:
    assert ends(100, [("a", [50, 10]), ("b", [40])]) == ["whole", "whole"]


def test_the_largest_of_the_greedy_peer_gives_way() -> None:
    assert ends(100, [("a", [40, 0, 0]), ("a", [50, 0, 0]), ("b", [9, 9])]) == ["whole", "given up", "whole"]


def test_the_greedy_peer_gives_way_even_to_a_larger_body_of_another() -> None:
    found = ends(100, [*[("a", [10, 0, 0])] * 9, ("b", [5, 15, 1])])
    assert found[-1] == "whole"
    assert sorted(found[:-1]) == ["given up", "given up", *["whole"] * 7]


def test_the_largest_does_not_push_out_smaller_ones_of_its_own_peer() -> None:
    assert ends(100, [("a", [45, 1]), ("a", [45, 1]), ("a", [5, 60])]) == ["whole", "whole", "refused 429"]


def test_a_body_over_the_limit_of_one_is_413_whatever_else_arrives() -> None:
    assert ends(5000, [("a", [900, 200]), ("b", [10])]) == ["refused 413", "whole"]


def test_what_messages_may_still_bring_refuses_no_body() -> None:
    async def run() -> None:
        limits = BodyLimits(body_limit_bytes=100, total_limit_bytes=300)
        for _ in range(3):
            await limits.reserve(100, "greedy")
        arrival = limits.begin("other")
        arrival.add(90)
        arrival.end()
        for _ in range(3):
            limits.release(100, "greedy")
        assert limits.arriving_bytes == 0

    asyncio.run(run())


def test_bytes_that_still_come_of_a_body_that_was_given_up_are_counted_once() -> None:
    async def run() -> None:
        limits = BodyLimits(body_limit_bytes=200, total_limit_bytes=300)
        greedy = limits.begin("greedy", lambda: None)
        greedy.add(200)
        other = limits.begin("other")
        other.add(150)
        with suppress(Rejected):
            greedy.add(50)
        greedy.end()
        other.end()
        assert (limits.arriving_bytes, limits.leaving_bytes) == (0, 0)

    asyncio.run(run())


def test_a_client_with_many_bodies_has_less_time_for_the_next() -> None:
    async def run() -> None:
        limits = BodyLimits(body_limit_bytes=100, total_limit_bytes=300)
        greedy = [limits.begin("greedy") for _ in range(BODIES_AT_ONCE)]
        assert limits.time_limit_of("greedy") == limits.time_limit_s
        greedy += [limits.begin("greedy") for _ in range(BODIES_AT_ONCE)]
        assert limits.time_limit_of("greedy") == limits.time_limit_s / 2
        assert limits.time_limit_of("other") == limits.time_limit_s
        for arrival in greedy:
            arrival.end()
        assert limits.time_limit_of("greedy") == limits.time_limit_s

    asyncio.run(run())
