"""Where the queue is full, the client that holds most gives way; a client alone may fill it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.virtual_loop import run_virtual

from scheduler.daemon.ingress.peers import LOCAL, Peers
from scheduler.daemon.ingress.shares import GREEDY, LEAST_LIMIT_S, Shares, shortened
from scheduler.domain.errors import RefusalKind


class Clients:
    """Clients whose requests stay open until they are told to end."""

    apart = True
    """Whether each request has been looked at before the next one comes."""

    def __init__(self, max_requests: int, max_bytes: int) -> None:
        self.shares = Shares(max_requests, max_bytes)
        self.ended: list[tuple[str, str]] = []
        self.over = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def send(self, client: str, body_bytes: int = 1, count: int = 1) -> None:
        for _ in range(count):
            self.tasks.append(asyncio.ensure_future(self._one(client, body_bytes)))
            for _ in range(5 * self.apart):
                await asyncio.sleep(0)

    async def _one(self, client: str, body_bytes: int) -> None:
        place = self.shares.place(client, body_bytes)
        try:
            if not self.shares.is_full(body_bytes):
                self.shares.take(place)
            elif (refusal := await self.shares.make_room(place)) is not None:
                assert (refusal.kind, refusal.reason) == (RefusalKind.QUEUE_FULL, GREEDY)
                self.ended.append((client, "refused"))
                return
            if self.shares.requests > self.shares.max_requests:  # as the engine's queue would say
                self.ended.append((client, "no room"))
                return
            await self.over.wait()
            self.ended.append((client, "answered"))
        except asyncio.CancelledError:
            assert place.caught()
            self.ended.append((client, "given up"))
        finally:
            place.end()

    async def finish(self) -> None:
        self.over.set()
        await asyncio.gather(*self.tasks)
        assert self.shares.clients == 0
        assert not self.shares.is_full(self.shares.max_bytes)


def ends(max_requests: int, max_bytes: int, work: Callable[[Clients], Awaitable[None]]) -> list[tuple[str, str]]:
    async def run() -> list[tuple[str, str]]:
        clients = Clients(max_requests, max_bytes)
        await work(clients)
        await clients.finish()
        return clients.ended

    return run_virtual(run())


def test_a_client_alone_fills_the_queue_and_the_queue_itself_refuses_the_rest() -> None:
    async def work(clients: Clients) -> None:
        await clients.send("a", count=10)

    assert ends(8, 100, work) == [("a", "no room")] * 2 + [("a", "answered")] * 8


def test_a_newcomer_gets_the_newest_place_of_the_greediest() -> None:
    async def work(clients: Clients) -> None:
        await clients.send("greedy", count=6)
        await clients.send("b", count=2)
        await clients.send("new")

    ended = ends(8, 100, work)
    assert ended[0] == ("greedy", "given up")
    assert sorted(ended[1:]) == [("b", "answered")] * 2 + [("greedy", "answered")] * 5 + [("new", "answered")]


def test_the_greedy_one_is_refused_itself_and_shares_end_equal() -> None:
    async def work(clients: Clients) -> None:
        await clients.send("greedy", count=8)
        await clients.send("new", count=6)
        await clients.send("greedy", count=3)

    ended = ends(8, 100, work)
    assert ended.count(("greedy", "given up")) == 4
    assert ended.count(("new", "refused")) == 2
    assert ended.count(("greedy", "refused")) == 3
    assert ended.count(("new", "answered")) == ended.count(("greedy", "answered")) == 4


def test_newcomers_that_come_together_get_a_place_each() -> None:
    async def work(clients: Clients) -> None:
        await clients.send("greedy", count=6)
        clients.apart = False
        await clients.send("b")
        await clients.send("c")
        await clients.send("d")

    ended = ends(6, 100, work)
    answered = [(client, "answered") for client in ("b", "c", "d", *["greedy"] * 3)]
    assert sorted(ended) == sorted([*answered, *[("greedy", "given up")] * 3])


def test_bytes_count_as_places_do() -> None:
    async def work(clients: Clients) -> None:
        await clients.send("greedy", body_bytes=25, count=4)
        await clients.send("new", body_bytes=30)
        await clients.send("large", body_bytes=101)

    ended = ends(8, 100, work)
    assert ended[:2] == [("greedy", "given up")] * 2
    assert ("new", "answered") in ended
    assert ("large", "refused") in ended


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 40)), max_size=60))
def test_no_client_below_an_equal_share_loses_a_place(sent: list[tuple[str, int]]) -> None:
    places = 8

    async def work(clients: Clients) -> None:
        for client, body_bytes in sent:
            await clients.send(client, body_bytes=body_bytes)

    # Bytes never bind, so places decide: up to a quarter of them belongs to each of four clients.
    ended = ends(places, 10**6, work)
    assert len(ended) == len(sent)
    for client in "abcd":
        if sum(name == client for name, _ in sent) <= places // 4:
            assert all(how == "answered" for name, how in ended if name == client)


def test_a_client_with_many_slow_ones_has_less_time_for_each() -> None:
    assert shortened(15.0, 100, 100) == 15.0
    assert shortened(15.0, 300, 100) == pytest.approx(5.0)
    assert shortened(15.0, 10**9, 100) == LEAST_LIMIT_S
    assert shortened(0.05, 10**9, 100) == 0.05, "a limit below the least one stays"


@pytest.mark.parametrize(
    ("address", "forwarded", "key"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("::ffff:10.0.0.1", ["1.2.3.4, 198.51.100.7, 10.0.0.9"], "198.51.100.7"),
        ("10.0.0.1", ["1.2.3.4", "nonsense"], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.2"], "10.0.0.2"),
        ("2001:db8:1:2:3::4", [], "2001:db8:1:2::/64"),
        ("fe80::1%eth0", [], "fe80::/64"),
        ("", [], LOCAL),
    ],
)
def test_only_a_trusted_proxy_says_which_client_it_is(address: str, forwarded: list[str], key: str) -> None:
    peers = Peers()
    peers.trust(["10.0.0.0/8"])
    assert peers.key(address, forwarded) == key
