"""Clients take turns at work of which only so much is done at a time."""

from __future__ import annotations

import asyncio

import pytest
from support.virtual_loop import run_virtual

from scheduler.daemon.ingress.errors import Rejected
from scheduler.daemon.ingress.turns import Turns


class Work:
    """Works that take a second each."""

    def __init__(self, *, at_once: int, of_client: int, waiting_of_client: int = 100) -> None:
        self.turns = Turns(at_once=at_once, of_client=of_client, waiting_of_client=waiting_of_client, what="a test")
        self.order: list[str] = []
        self.most = 0
        self._working = 0

    async def one(self, client: str) -> None:
        async with self.turns.turn(client):
            self.order.append(client)
            self._working += 1
            self.most = max(self.most, self._working)
            try:
                await asyncio.sleep(1.0)
            finally:
                self._working -= 1


def test_a_newcomer_is_next_however_many_of_another_wait() -> None:
    async def run() -> None:
        work = Work(at_once=1, of_client=1)
        await asyncio.gather(*(work.one(client) for client in ("a", "a", "a", "a", "b", "c", "b")))
        assert work.order == ["a", "a", "b", "c", "a", "b", "a"]
        assert work.most == 1

    run_virtual(run())


def test_one_client_never_has_more_than_its_part() -> None:
    async def run() -> float:
        work = Work(at_once=2, of_client=1)
        began_s = asyncio.get_running_loop().time()
        await asyncio.gather(*(work.one(client) for client in ("a", "a", "a", "b")))
        assert work.most == 2
        return asyncio.get_running_loop().time() - began_s

    assert run_virtual(run()) == pytest.approx(3.0, abs=0.01)


def test_one_too_many_is_refused_and_one_that_leaves_makes_room() -> None:
    async def run() -> None:
        work = Work(at_once=1, of_client=1, waiting_of_client=2)
        tasks = [asyncio.ensure_future(work.one("a")) for _ in range(3)]
        await asyncio.sleep(0.1)
        with pytest.raises(Rejected, match=r"^2 requests of this client wait for a test already; send this one again"):
            await work.one("a")
        other = asyncio.ensure_future(work.one("b"))
        await asyncio.sleep(0.1)
        tasks[0].cancel()
        tasks[1].cancel()
        await asyncio.gather(*tasks, other, return_exceptions=True)
        assert sorted(work.order) == ["a", "a", "b"]
        await asyncio.wait_for(work.one("c"), 1.5)

    run_virtual(run())
