"""How many connections may be open: where there are too many, idle ones of the peer with the most are closed."""

from __future__ import annotations

import logging
import resource
from collections.abc import Callable, Iterable
from typing import Protocol

from scheduler.daemon.logs import log

RESERVED = 32
"""Descriptors that connections leave free, at least: for backends, files and sockets."""
_SHARE_RESERVED = 8
_SHARE_CLOSED = 100
_SAY_EVERY_S = 60.0


class Connection(Protocol):
    """A client's connection."""

    @property
    def peer(self) -> str:
        """The client's address, without port."""
        ...

    @property
    def idle_since_s(self) -> float | None:
        """When it began to wait for the rest of a request, on the loop's clock; None: a request is in hand."""
        ...

    def force_close(self) -> None:
        """Closes it at once."""
        ...


def most_connections() -> int:
    """Raises the process's limit of open files as far as it may; returns how many connections that leaves room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):
            pass  # what there is must do
    files = wanted if soft == resource.RLIM_INFINITY else soft
    return max(1, files - max(RESERVED, files // _SHARE_RESERVED))


class Connections:
    """The open connections of clients."""

    def __init__(
        self, limit: int, clock: Callable[[], float], is_proxy: Callable[[str], bool] = lambda _: False
    ) -> None:
        """Stores how many may be open, the loop's clock, and what knows peers that many clients come from."""
        self._limit = limit
        self._clock = clock
        self._is_proxy = is_proxy
        self._open: dict[str, set[Connection]] = {}
        self._count = 0
        self._said_s = -_SAY_EVERY_S

    def opened(self, new: Connection) -> None:
        """Counts a new connection; where there are too many, closes some."""
        self._open.setdefault(new.peer, set()).add(new)
        self._count += 1
        if self._count > self._limit:
            self._make_room(new)

    def closed(self, old: Connection, peer: str) -> None:
        """Counts a connection no longer."""
        of_peer = self._open.get(peer, set())
        if old in of_peer:
            of_peer.remove(old)
            self._count -= 1
            if not of_peer:
                del self._open[peer]

    def _make_room(self, new: Connection) -> None:
        """Closes the connections that wait longest, of the peer that has most that wait; without any, the new one.

        Those of a proxy are closed where no other peer has any that wait.
        """
        peers = [peer for peer in self._open if not self._is_proxy(peer)]
        if not any(each is not new and each.idle_since_s is not None for peer in peers for each in self._open[peer]):
            peers = list(self._open)
        waiting = {peer: [each for each in self._open[peer] if each is not new] for peer in peers}
        idle = {peer: _longest_first(those) for peer, those in waiting.items()}
        greedy = max(idle, key=lambda peer: len(idle[peer]))
        several = max(1, self._limit // _SHARE_CLOSED)
        closed = idle[greedy][:several] or [new]
        if self._clock() - self._said_s >= _SAY_EVERY_S:
            self._said_s = self._clock()
            log(
                logging.WARNING,
                "connections_full",
                open=self._count,
                peer=greedy,
                message="as many connections are open as the limit of open files allows; those that wait longest for a"
                " request are closed; raise LimitNOFILE of the unit, or ulimit -n",
            )
        for each in closed:
            self.closed(each, each.peer)
            each.force_close()


def _longest_first(those: Iterable[Connection]) -> list[Connection]:
    idle = [(since_s, index, each) for index, each in enumerate(those) if (since_s := each.idle_since_s) is not None]
    return [each for _, _, each in sorted(idle, key=lambda entry: entry[:2])]
