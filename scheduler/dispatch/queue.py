"""The virtual queue: who waits, in deadline order, and how much of it there may be."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from scheduler.domain.requests import Backend, Request


class Place(Enum):
    """Where an accepted request is."""

    EDGE = "edge"
    """In the edge's next batch."""
    WAITING = "waiting"
    """For an edge batch after the next: nobody else can take it."""
    SPILL = "spill"
    """In a function batch that is being gathered."""
    DEFERRED = "deferred"
    """Waiting for an edge that has nothing else to do, as its class allows."""
    LATE = "late"
    """Its deadline cannot be met any more and its class is served all the same."""
    IN_FLIGHT = "in flight"
    GONE = "gone"


@dataclass(slots=True, eq=False)
class QueuedRequest:
    """A request with its state in the queue. The request itself never changes but for its attempts."""

    request: Request
    place: Place = Place.GONE
    failed_on: Backend | None = None
    """The backend that failed it: it is sent again once, to the other."""
    cancelled: bool = False
    due: bool = False
    """Whether a deferrable request has waited long enough."""
    copies: int = 0
    """Batches in flight that it is in: two while it is being hedged."""


def deadline_order(queued: QueuedRequest) -> tuple[float, int, int]:
    """Returns what requests are ordered by: deadline, then priority, then age."""
    request = queued.request
    return request.deadline_s, request.priority, request.request_id


class DeadlineOrder:
    """Requests by deadline, then priority, then age; knows its items and bytes."""

    __slots__ = ("_queued", "body_bytes", "items", "place")

    def __init__(self, place: Place) -> None:
        """Starts empty; whoever is added is at `place`."""
        self.place = place
        self.items = 0
        self.body_bytes = 0
        self._queued: list[QueuedRequest] = []

    def __len__(self) -> int:
        """Number of requests."""
        return len(self._queued)

    def __iter__(self) -> Iterator[QueuedRequest]:
        """Earliest deadline first."""
        return iter(self._queued)

    @property
    def members(self) -> list[QueuedRequest]:
        """Those in it, earliest deadline first; not to be changed."""
        return self._queued

    @property
    def first(self) -> QueuedRequest:
        """The request with the earliest deadline; IndexError if empty."""
        return self._queued[0]

    def add(self, queued: QueuedRequest) -> None:
        """Adds a request at its place in the order."""
        insort(self._queued, queued, key=deadline_order)
        queued.place = self.place
        self.items += queued.request.items
        self.body_bytes += queued.request.body_bytes

    def remove(self, queued: QueuedRequest) -> None:
        """Takes a request out; it must be in."""
        i = bisect_left(self._queued, deadline_order(queued), key=deadline_order)
        if i == len(self._queued) or self._queued[i] is not queued:
            raise KeyError(queued.request.request_id)
        del self._queued[i]
        self._forget(queued)

    def take_all(self) -> tuple[QueuedRequest, ...]:
        """Empties the order and returns who was in it, earliest deadline first."""
        taken = tuple(self._queued)
        self._queued = []
        self.items = self.body_bytes = 0
        for queued in taken:
            queued.place = Place.GONE
        return taken

    def remove_all(self, leaving: Iterable[QueuedRequest]) -> None:
        """Takes several requests out."""
        for queued in leaving:
            self.remove(queued)

    def _forget(self, queued: QueuedRequest) -> None:
        queued.place = Place.GONE
        self.items -= queued.request.items
        self.body_bytes -= queued.request.body_bytes


@dataclass(slots=True)
class Admission:
    """How much may be held: requests that wait, and bytes of all that are not yet answered."""

    max_requests: int
    max_bytes: int
    requests: int = 0
    body_bytes: int = 0

    def has_room(self, body_bytes: int) -> bool:
        """Whether one more request of so many bytes may come in."""
        return self.requests < self.max_requests and self.body_bytes + body_bytes <= self.max_bytes
