"""Open gRPC calls are shared out among clients: where there is no room, the client that has most gives way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.daemon.grpc.open_calls import OpenCalls
from scheduler.daemon.ingress.errors import Rejected


class Context:
    """A call, as far as its end is told."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[object], None]] = []

    def add_done_callback(self, callback: Callable[[object], None]) -> None:
        self.callbacks.append(callback)

    def taken(self) -> None:
        """The client has taken the status."""
        while self.callbacks:
            self.callbacks.pop()(self)


class Clients:
    """Opens calls that last until they are told to end."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.calls = OpenCalls(lambda: self.most)
        self.tasks: dict[asyncio.Task[None], tuple[str, Context]] = {}
        self.refused: Counter[str] = Counter()
        self.told: dict[str, str] = {}
        self.take_statuses = True

    async def open(self, key: str) -> asyncio.Task[None]:
        context = Context()

        async def one() -> None:
            with self.calls.opened(key, context):
                await asyncio.get_running_loop().create_future()

        task = asyncio.ensure_future(one())
        self.tasks[task] = (key, context)
        await self.settle()
        return task

    async def settle(self) -> None:
        for _ in range(4):
            await asyncio.sleep(0)
        for task in [task for task in self.tasks if task.done()]:
            key, context = self.tasks.pop(task)
            if self.take_statuses:
                context.taken()
            if not task.cancelled() and isinstance(task.exception(), Rejected):
                self.refused[key] += 1
                self.told[key] = str(task.exception())

    @property
    def held(self) -> Counter[str]:
        return Counter(key for key, _ in self.tasks.values())

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await self.settle()
        assert self.calls.count == 0


def test_a_client_alone_has_all_of_them_and_its_newest_gives_way_to_another_client() -> None:
    async def work() -> None:
        clients = Clients(4)
        greedy = [await clients.open("greedy") for _ in range(4)]
        assert clients.held == {"greedy": 4}
        await clients.open("other")
        assert clients.held == {"greedy": 3, "other": 1}
        error = greedy[3].exception()
        assert isinstance(error, Rejected)
        assert (error.status, error.headers) == (429, {"Retry-After": "1"})
        assert str(error).startswith("4 calls are open, which is all there is room for, and this client has 3 of them;")
        assert not any(task.done() for task in greedy[:3])
        await clients.open("greedy")
        assert clients.held == {"greedy": 3, "other": 1}
        await clients.end()

    asyncio.run(work())


def test_a_client_that_leaves_is_no_refusal() -> None:
    async def work() -> None:
        clients = Clients(4)
        task = await clients.open("one")
        task.cancel()
        await clients.settle()
        assert task.cancelled()
        assert not clients.refused
        await clients.end()

    asyncio.run(work())


def test_a_client_that_takes_no_status_gathers_no_calls_by_that() -> None:
    async def work() -> None:
        clients, contexts = Clients(3), []
        clients.take_statuses = False
        for _ in range(3):
            task = await clients.open("greedy")
            contexts.append(clients.tasks[task][1])
            task.cancel()
            await clients.settle()
        for _ in range(3):
            await clients.open("greedy")
        await clients.open("other")
        assert clients.held == {"greedy": 2, "other": 1}
        clients.most = 4
        await clients.open("greedy")
        assert clients.held == {"greedy": 3, "other": 1}
        clients.most = 3
        assert not await has_room(clients, "greedy")
        assert clients.told["greedy"] == (
            "this client has 3 open calls and 4 that have ended, whose statuses it has not taken;"
            " take them, or come again after the time in retry-after"
        )
        for context in contexts:
            context.taken()
        clients.most = 5
        assert await has_room(clients, "greedy")
        await clients.end()

    asyncio.run(work())


async def has_room(clients: Clients, key: str) -> bool:
    before = clients.refused[key]
    await clients.open(key)
    return clients.refused[key] == before


@given(
    most=st.integers(1, 6),
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=30),
)
def test_no_client_that_has_fewer_is_refused_while_another_has_more(most: int, steps: list[tuple[str, bool]]) -> None:
    async def work() -> None:
        clients = Clients(most)
        for key, opens in steps:
            before, refused = clients.held, clients.refused.copy()
            if opens:
                await clients.open(key)
                others = max((count for other, count in before.items() if other != key), default=0)
                if clients.refused[key] > refused[key]:
                    assert sum(before.values()) == most
                    assert others <= before[key] + 1
            elif mine := [task for task, (owner, _) in clients.tasks.items() if owner == key]:
                mine[0].cancel()
                await clients.settle()
            assert clients.calls.count == sum(clients.held.values()) <= most
            # Whoever gave way had at least as many as the one that came.
            for other in set(before) - {key}:
                assert clients.held[other] >= before[other] or clients.held[other] >= clients.held[key]
        await clients.end()

    asyncio.run(work())


@pytest.mark.parametrize("most", [1, 2])
def test_where_each_client_has_one_a_newcomer_is_refused(most: int) -> None:
    async def work() -> None:
        clients = Clients(most)
        for key in range(most):
            await clients.open(str(key))
        await clients.open("late")
        assert clients.refused == {"late": 1}
        assert clients.told["late"] == (
            f"{most} calls are open, which is all there is room for, and other clients have them;"
            " come again after the time in retry-after"
        )
        await clients.end()

    asyncio.run(work())
