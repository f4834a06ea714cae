"""How requests end in an engine, counted from what it gets and what it returns: the same way for both engines."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from scheduler.daemon.history.latency_bins import bin_of, quantile_s
from scheduler.domain.errors import RefusalKind
from scheduler.domain.messages import (
    AnswerRequest,
    BatchFailed,
    BatchFinished,
    Command,
    Message,
    RefuseRequest,
    RequestArrived,
    RequestCancelled,
    SendBatch,
)
from scheduler.domain.requests import Request

_REJECTED = frozenset({RefusalKind.BAD_REQUEST, RefusalKind.TOO_LARGE})
"""What the client sent is wrong: it does not count against the SLO."""


@dataclass(slots=True)
class Group:
    """Requests of one class of one model."""

    arrived: int = 0
    answered: int = 0
    within_slo: int = 0
    refused: int = 0
    rejected: int = 0
    cancelled: int = 0
    latency_s: float = 0.0
    """Of all answers together."""
    latencies: dict[int, int] = field(default_factory=dict)
    """Of the answers, in bins."""

    def add(self, other: "Group") -> None:
        """Adds the counts of another group."""
        self.arrived += other.arrived
        self.answered += other.answered
        self.within_slo += other.within_slo
        self.refused += other.refused
        self.rejected += other.rejected
        self.cancelled += other.cancelled
        self.latency_s += other.latency_s
        for index, number in other.latencies.items():
            self.latencies[index] = self.latencies.get(index, 0) + number

    @property
    def share(self) -> float | None:
        """The part of those that ended which was in time; None: none has ended."""
        ended = self.answered + self.refused
        return self.within_slo / ended if ended else None

    def percentile_s(self, fraction: float) -> float | None:
        """Returns the latency below which that part of the answers lies; None without any."""
        return quantile_s(self.latencies, fraction)


class Tally:
    """Counts of an engine's requests, since it was made or cleared."""

    def __init__(self) -> None:
        """Starts with nothing."""
        self.groups: dict[tuple[str, str], Group] = {}
        """By model and class."""
        self.places: dict[str, int] = {}
        """Answers by the place that gave them, as in records."""
        self._open: dict[int, Request] = {}
        self._sent: dict[int, str] = {}
        """The place of each batch that has not come back."""

    def hear(self, messages: Sequence[Message], commands: Sequence[Command], now_s: float) -> None:
        """Takes in one call of the engine."""
        back: list[int] = []
        for message in messages:
            match message:
                case RequestArrived(request):
                    self._open[request.request_id] = request
                    self.group(request).arrived += 1
                case RequestCancelled(request_id):
                    if (cancelled := self._open.pop(request_id, None)) is not None:
                        self.group(cancelled).cancelled += 1
                case BatchFinished() | BatchFailed():
                    back.append(message.batch_id)
        for command in commands:
            match command:
                case SendBatch(batch):
                    self._sent[batch.batch_id] = str(batch.place)
                case AnswerRequest(request_id, batch_id):
                    self._answered(request_id, batch_id, now_s)
                case RefuseRequest(request_id, refusal):
                    self.refused(request_id, rejected=refusal.kind in _REJECTED)
        # A batch's answers are given out in the call that hears of its end.
        for batch_id in back:
            self._sent.pop(batch_id, None)

    def refused(self, request_id: int, *, rejected: bool = False) -> None:
        """Counts a refusal of a request that has arrived and not ended."""
        request = self._open.pop(request_id, None)
        if request is None:
            return
        if rejected:
            self.group(request).rejected += 1
        else:
            self.group(request).refused += 1

    def group(self, request: Request) -> Group:
        """Returns the counts of a request's class."""
        key = request.model, request.class_name
        found = self.groups.get(key)
        if found is None:
            found = self.groups[key] = Group()
        return found

    def total(self) -> Group:
        """Returns the counts of all classes together."""
        return total(self.groups.values())

    def leave_open(self) -> None:
        """Forgets what has not ended: its end will not be heard."""
        for request in self._open.values():
            self.group(request).arrived -= 1
        self._open.clear()
        self._sent.clear()

    def clear(self) -> None:
        """Counts from here on; requests that have not ended are left out."""
        self.groups, self.places = {}, {}
        self._open.clear()
        self._sent.clear()

    def _answered(self, request_id: int, batch_id: int, now_s: float) -> None:
        request = self._open.pop(request_id, None)
        if request is None:
            return
        group, latency_s = self.group(request), now_s - request.arrived_at_s
        group.answered += 1
        group.within_slo += now_s <= request.deadline_s + request.reserve_s
        group.latency_s += latency_s
        index = bin_of(latency_s)
        group.latencies[index] = group.latencies.get(index, 0) + 1
        place = self._sent.get(batch_id, "")
        self.places[place] = self.places.get(place, 0) + 1


def total(groups: Iterable[Group]) -> Group:
    """Returns the sum of groups."""
    found = Group()
    for group in groups:
        found.add(group)
    return found
