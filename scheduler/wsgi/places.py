"""How many connections there may be, and which one ends where there are too many. Knows no socket; thread-safe."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar

MOST_KNOWN = 64
"""Number of peers that are known: those that were served last."""


class Held(Protocol):
    """A connection that holds a place."""

    @property
    def peer(self) -> str:
        """The client's address, without port."""
        ...

    @property
    def waits_since_s(self) -> float | None:
        """Since when it waits for a request or the rest of one; None: a whole request is in hand."""
        ...

    @property
    def served_at_s(self) -> float:
        """When it was last served; 0 before that."""
        ...


Connection = TypeVar("Connection", bound=Held)


class Places(Generic[Connection]):
    """The connections of a server.

    A peer that was served is known, and one connection is its own for good: the one served last is never ended for
    another peer's, and a known peer without any gets in though all places are taken.
    """

    def __init__(self, most: int) -> None:
        """Stores how many there may be."""
        self._most = most
        self._held: set[Connection] = set()
        self._known: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def enter(self, new: Connection) -> tuple[bool, Sequence[Connection]]:
        """Takes a place; returns whether there is one, and which connections to end for it."""
        with self._lock:
            surplus = len(self._held) + 1 - self._most
            ending = most_dispensable(self._held, self._known)[:surplus] if surplus > 0 else []
            its_own = new.peer in self._known and all(each.peer != new.peer for each in self._held)
            if len(ending) < surplus and not its_own:
                return False, ()
            self._held.difference_update(ending)
            self._held.add(new)
            return True, ending

    def shed(self) -> Sequence[Connection]:
        """Returns a connection to end because the system is short of what connections need; none if all are in use."""
        with self._lock:
            ending = most_dispensable(self._held, self._known)[:1]
            self._held.difference_update(ending)
            return ending

    def leave(self, old: Connection) -> None:
        """Gives a place back; does nothing if it was given to another one."""
        with self._lock:
            self._held.discard(old)

    def know(self, peer: str) -> None:
        """Notes that a peer was served."""
        with self._lock:
            self._known[peer] = None
            self._known.move_to_end(peer)
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)

    def held(self) -> list[Connection]:
        """Returns the connections."""
        with self._lock:
            return list(self._held)


def most_dispensable(held: Iterable[Connection], known: Iterable[str]) -> list[Connection]:
    """Returns the connections that may end for another one, the one to end first in front.

    Those of the peer that has most waiting connections come first; of these, those that were never served, and then the
    one that waits longest. Connections with a request in hand are not among them, nor the one that a known peer was
    served on last.
    """
    of_peer: dict[str, list[Connection]] = {}
    for each in held:
        of_peer.setdefault(each.peer, []).append(each)
    for peer in of_peer.keys() & set(known):
        of_peer[peer].remove(max(of_peer[peer], key=lambda each: each.served_at_s))
    since_s = {id(each): each.waits_since_s for those in of_peer.values() for each in those}
    waiting = [each for those in of_peer.values() for each in those if since_s[id(each)] is not None]
    counts = Counter(each.peer for each in waiting)
    return sorted(waiting, key=lambda each: (-counts[each.peer], each.served_at_s > 0, since_s[id(each)] or 0.0))
