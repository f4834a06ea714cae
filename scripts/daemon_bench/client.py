"""Clients on plain sockets: as many connections as wanted, each with one request under way, and what they see."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

WINDOW_S = 0.25
CLOSED = 0
"""Status of a request whose connection was closed without an answer."""
MANY = 256
"""Connections from which a window is four times as long: their answers come in bursts."""


@dataclass(slots=True)
class Seen:
    """What was seen while a load ran."""

    latencies_s: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    windows: list[tuple[int, float, float]] = field(default_factory=list)
    """Of each window: answers, seconds, and processor seconds of the server."""

    @property
    def rps(self) -> float:
        """Answers a second."""
        return sum(count for count, _, _ in self.windows) / sum(seconds for _, seconds, _ in self.windows)

    @property
    def cpu_us(self) -> float:
        """Microseconds of the server's processor time for an answer: the 10th percentile of the windows."""
        costs = sorted(cpu_s / count * 1e6 for count, _, cpu_s in self.windows if count)
        return costs[len(costs) // 10]

    def latency_ms(self, quantile: float) -> float:
        """Returns a quantile of the latencies in milliseconds."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] * 1e3

    def add(self, other: Seen) -> None:
        """Adds what was seen in another run."""
        self.latencies_s += other.latencies_s
        self.windows += other.windows
        for status, count in other.statuses.items():
            self.statuses[status] = self.statuses.get(status, 0) + count


class _Client(asyncio.Protocol):
    """One connection, which sends its next request as soon as an answer is whole."""

    def __init__(self, load: _Load, first: int) -> None:
        self._load = load
        self._next = first
        self._sent_s = 0.0
        self._found = bytearray()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def send(self) -> None:
        """Sends the next request."""
        requests = self._load.requests
        self._sent_s = time.perf_counter()
        self.transport.write(requests[self._next % len(requests)])
        self._next += 1

    def data_received(self, data: bytes) -> None:
        self._found += data
        end = self._found.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._found[:end]).lower()
        length = int(head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
        if len(self._found) < end + 4 + length:
            return
        self._found.clear()
        self._load.answered(int(head[9:12]), time.perf_counter() - self._sent_s)
        if self._load.idle is not None:
            self._load.idle.append(self)
        elif not self._load.ended:
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self._load.ended:
            self._load.lost += 1
            if self._load.again is not None:
                self._load.answered(CLOSED, time.perf_counter() - self._sent_s)
                self._load.again(self._next)


class _Load:
    """The connections of one load."""

    def __init__(self, requests: Sequence[bytes]) -> None:
        self.requests = requests
        self.seen = Seen()
        self.count = 0
        self.lost = 0
        self.counting = False
        self.idle: list[_Client] | None = None
        """Connections without a request, where requests have times of their own; None: each sends its next at once."""
        self.ended = False
        self.again: Callable[[int], object] | None = None
        """Opens another connection for one that is lost; None: none may be lost."""

    def answered(self, status: int, latency_s: float) -> None:
        """Counts an answer."""
        self.count += 1
        if self.counting:
            self.seen.latencies_s.append(latency_s)
            self.seen.statuses[status] = self.seen.statuses.get(status, 0) + 1


async def closed_loop(
    port: int,
    requests: Sequence[bytes],
    *,
    connections: int,
    warm_up_s: float,
    duration_s: float,
    cpu_s: Callable[[], float],
    may_close: bool = False,
) -> Seen:
    """Keeps each of the connections busy with one request after the other.

    Args:
        port: of the server, on this host.
        requests: as they go over the wire; they take turns.
        connections: how many.
        warm_up_s: seconds before anything counts.
        duration_s: seconds that count.
        cpu_s: returns the processor seconds that the server has used.
        may_close: whether the server may close connections: an answer of status `CLOSED`, and another is opened.

    Raises:
        ConnectionError: the server has closed a connection.
    """
    loop, load = asyncio.get_running_loop(), _Load(requests)
    made = []
    for first in range(connections):
        made.append(await loop.create_connection(partial(_Client, load, first), "127.0.0.1", port))

    async def again(first: int) -> None:
        made.append(await loop.create_connection(partial(_Client, load, first), "127.0.0.1", port))
        made[-1][1].send()

    if may_close:
        load.again = lambda first: loop.create_task(again(first))
    for _, client in made:
        client.send()
    await asyncio.sleep(warm_up_s)
    load.counting = True
    ends_s = time.perf_counter() + duration_s
    while (began_s := time.perf_counter()) < ends_s:
        count, used_s = load.count, cpu_s()
        await asyncio.sleep(WINDOW_S if connections < MANY else 4 * WINDOW_S)
        load.seen.windows.append((load.count - count, time.perf_counter() - began_s, cpu_s() - used_s))
    load.ended = True
    if load.lost and not may_close:
        raise ConnectionError(f"the server has closed {load.lost} connections")
    for transport, _ in made:
        transport.close()
    await asyncio.sleep(0.05)
    return load.seen


async def open_loop(port: int, requests: Sequence[bytes], due_s: Sequence[float]) -> Seen:
    """Sends requests at given times after now, whatever is still unanswered; returns when all are answered."""
    loop, load = asyncio.get_running_loop(), _Load(requests)
    load.counting = True
    idle: list[_Client] = []
    load.idle = idle
    load.ended = True  # each connection waits for its next request
    began_s = time.perf_counter()
    for index, at_s in enumerate(due_s):
        await asyncio.sleep(max(0.0, began_s + at_s - time.perf_counter()))
        if not idle:
            _, client = await loop.create_connection(partial(_Client, load, index), "127.0.0.1", port)
            idle.append(client)
        idle.pop().send()
    while load.count < len(due_s):
        await asyncio.sleep(0.01)
    for client in idle:
        client.transport.close()
    return load.seen
