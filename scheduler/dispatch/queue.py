"""The virtual queue: requests with their state, deadline order, and how much may be held."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from scheduler.domain.decisions import Reason
from scheduler.domain.lifecycle import IllegalTransition, State
from scheduler.domain.requests import Attempt, Place, Request

MAX_COPIES = 2
"""Batches in flight that one request may be in: it is hedged once. A check and no choice: with 1 hedging is an error,
more changes nothing."""


@dataclass(slots=True, eq=False)
class QueuedRequest:
    """A request with its state. Only the methods of this class change it; each checks the transition first.

    The request itself never changes but for its attempts: those of `request` are the ones before it was placed last.
    """

    request: Request
    state: State = State.NEW
    failed_on: tuple[Place, ...] = ()
    """The edge servers, and FUNCTIONS, that failed it or that it has left: it is sent to each other one once."""
    over_quota: bool = False
    """Whether functions have failed it by refusing it for want of capacity."""
    tried_again: bool = False
    """Whether it has had its second try on one side."""
    kept: bool = False
    """Whether a second try was granted, for which it may wait after its deadline where its class is served late."""
    cancelled: bool = False
    defers: bool = True
    """Whether a deferrable request may still wait for an idle edge."""
    copies: int = 0
    """Batches in flight that it is in: two while it is hedged."""
    late_allowed: bool = False
    """Whether it was queued to be answered after its deadline, as its class or the spend cap's rule says."""
    spent: bool = False
    """Whether it misses its objective on purpose: the miss is counted already."""
    only_edge: bool = False
    """Whether it waits, overdue, for room on the edge and for nothing else."""
    reason: Reason = Reason.LEAST_TOTAL
    """What decided its present place."""
    attempts: tuple[Attempt, ...] = ()
    """Every send of it so far."""

    def placed(self) -> Request:
        """Returns the request with all its attempts, as it is recorded with a decision."""
        if len(self.request.attempts) != len(self.attempts):
            self.request = self.request.sent_with(self.attempts)
        return self.request

    def note(self, reason: Reason) -> None:
        """Notes what decided its place."""
        self.reason = reason

    def enter(self, state: State) -> None:
        """Moves to another state.

        Raises:
            IllegalTransition: the table knows no such transition; nothing is changed.
        """
        if state not in self.state.allows:
            raise IllegalTransition(f"request {self.request.request_id}: {self.state.value} -> {state.value}")
        self.state = state

    def send(self, attempt: Attempt) -> None:
        """Notes that a batch with this request leaves; raises IllegalTransition from a queue or beyond two copies."""
        if self.copies >= MAX_COPIES:
            raise IllegalTransition(f"request {self.request.request_id}: a copy more than {MAX_COPIES}")
        self.enter(State.IN_FLIGHT)
        for earlier in self.attempts:
            # It has changed places, for whatever reason: it does not go back.
            if (earlier.backend, earlier.edge) != (attempt.backend, attempt.edge):
                self.leave(earlier.endpoint)
        self.attempts = (*self.attempts, attempt) if self.attempts else (attempt,)
        self.copies += 1

    def come_back(self) -> None:
        """Notes that a batch with this request is back, whether the request has ended or not."""
        if self.copies < 1:
            raise IllegalTransition(f"request {self.request.request_id}: back from no batch")
        self.copies -= 1

    def requeue(self) -> None:
        """Makes a request new again after its last copy failed; raises IllegalTransition while another is in flight."""
        if self.copies:
            raise IllegalTransition(f"request {self.request.request_id}: a copy is still in flight")
        self.enter(State.NEW)

    def cancel(self) -> None:
        """Notes that the client went away; a request that has ended stays as it is."""
        if self.state is not State.ENDED:
            self.cancelled = True

    def leave(self, endpoint: Place) -> None:
        """Notes that an edge server, or FUNCTIONS, takes it no more."""
        if endpoint not in self.failed_on:
            self.failed_on = (*self.failed_on, endpoint)

    def fail_on(self, endpoint: Place, *, over_quota: bool = False) -> None:
        """Notes which place failed it; `over_quota`: it was refused there for want of capacity."""
        self.leave(endpoint)
        self.over_quota = over_quota

    def try_again(self, elsewhere: tuple[Place, ...], *, counts: bool) -> None:
        """Notes that the place that failed it is asked once more.

        Args:
            elsewhere: the other places that have had it.
            counts: whether this is the second try; a send that never arrived is none.
        """
        self.kept, self.tried_again, self.failed_on = True, self.tried_again or counts, elsewhere

    @property
    def failed_for(self) -> Reason:
        """Why the place that failed it takes it no more."""
        return Reason.QUOTA if self.over_quota else Reason.FAILED_THERE

    def allow_late(self) -> None:
        """Notes that it may be answered after its deadline."""
        self.late_allowed = True

    def spend(self) -> None:
        """Notes that it misses its objective on purpose, and waits for room on the edge if it is served late."""
        self.spent = self.only_edge = True

    def stop_waiting_for_edge(self) -> None:
        """Notes that it has waited for room on the edge as long as it may."""
        self.only_edge = False

    def stop_deferring(self) -> None:
        """Notes that it has waited for an idle edge as long as it may."""
        self.defers = False

    @property
    def open(self) -> bool:
        """Whether it is in flight with no other copy left, and its client is still there."""
        return self.state is State.IN_FLIGHT and self.copies == 0 and not self.cancelled


def deadline_order(queued: QueuedRequest) -> tuple[float, int, int]:
    """Returns what requests are ordered by: deadline, then priority, then age."""
    request = queued.request
    return request.deadline_s, request.priority, request.request_id


@dataclass(slots=True)
class Changes:
    """Counts what changes in the queues of one lane, and in the terms on which requests leave them."""

    count: int = 0


class DeadlineOrder:
    """Requests by deadline, then priority, then age; knows its items and bytes."""

    __slots__ = ("_changes", "_keys", "body_bytes", "full", "items", "members", "most_items", "state")

    def __init__(self, state: State, changes: Changes | None = None) -> None:
        """Starts empty.

        Args:
            state: what a request that is added enters.
            changes: counts its changes; None: they are counted for nothing.
        """
        self.state = state
        self._changes = Changes() if changes is None else changes
        self.items = 0
        self.body_bytes = 0
        self.full = False
        """Whether it was found to have no room for an item more, and nothing has left it or changed since."""
        self.most_items = 0
        """At least the items of its largest request: of any since it was last empty."""
        self.members: list[QueuedRequest] = []
        """Its requests, earliest deadline first; not to be changed. It is another list after `take_all`."""
        self._keys: list[tuple[float, int, int]] = []
        """What each is ordered by: bisecting plain values calls nothing."""

    def __len__(self) -> int:
        """Number of requests."""
        return len(self.members)

    def __iter__(self) -> Iterator[QueuedRequest]:
        """Earliest deadline first."""
        return iter(self.members)

    def __contains__(self, queued: object) -> bool:
        """Whether a request is in it."""
        if not isinstance(queued, QueuedRequest):
            return False
        i = bisect_left(self._keys, deadline_order(queued))
        return i < len(self.members) and self.members[i] is queued

    @property
    def first(self) -> QueuedRequest:
        """The request with the earliest deadline; IndexError if empty."""
        return self.members[0]

    @property
    def last_deadline_s(self) -> float:
        """The latest deadline; IndexError if empty."""
        return self.members[-1].request.deadline_s

    def add(self, queued: QueuedRequest) -> None:
        """Adds a request at its position in the order."""
        queued.enter(self.state)
        request = queued.request
        key = request.deadline_s, request.priority, request.request_id
        i = bisect_left(self._keys, key)
        self._keys.insert(i, key)
        self.members.insert(i, queued)
        self._changes.count += 1
        self.items += request.items
        self.body_bytes += request.body_bytes
        if request.items > self.most_items:
            self.most_items = request.items

    def remove(self, queued: QueuedRequest) -> None:
        """Takes a request out; KeyError if it is not in."""
        i = bisect_left(self._keys, deadline_order(queued))
        if i == len(self.members) or self.members[i] is not queued:
            raise KeyError(queued.request.request_id)
        del self.members[i], self._keys[i]
        self._changes.count += 1
        self.full = False
        queued.enter(State.NEW)
        self.items -= queued.request.items
        self.body_bytes -= queued.request.body_bytes
        if not self.members:
            self.most_items = 0

    def take_all(self) -> tuple[QueuedRequest, ...]:
        """Empties the order and returns its requests, earliest deadline first."""
        taken = tuple(self.members)
        self.members, self._keys, self.full = [], [], False
        self._changes.count += 1
        self.items = self.body_bytes = self.most_items = 0
        for queued in taken:
            queued.enter(State.NEW)
        return taken

    def remove_all(self, leaving: Iterable[QueuedRequest]) -> None:
        """Takes several requests out."""
        for queued in leaving:
            self.remove(queued)


@dataclass(slots=True)
class Admission:
    """How much may be held: requests that wait, and bytes of all that are not yet answered."""

    max_requests: int
    max_bytes: int
    requests: int = 0
    body_bytes: int = 0

    def configure(self, *, max_requests: int, max_bytes: int) -> None:
        """Takes over reloaded limits."""
        self.max_requests, self.max_bytes = max_requests, max_bytes

    def has_room(self, body_bytes: int, *, without: int = 0, without_bytes: int = 0) -> bool:
        """Whether one more request of so many bytes may come in, if so many that wait went."""
        fits = self.body_bytes - without_bytes + body_bytes <= self.max_bytes
        return fits and self.requests - without < self.max_requests

    def stop_waiting(self) -> None:
        """Counts a request out of those that wait: it was sent, refused or cancelled."""
        self.requests -= 1

    def wait_again(self) -> None:
        """Counts a request that came back unanswered among those that wait."""
        self.requests += 1
