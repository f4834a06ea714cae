"""Keeps what was decided about the last requests and what came of it: a bounded ring, worded only when it is read."""

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from scheduler.domain.batches import Batch, BatchReport, FailureKind
from scheduler.domain.decisions import Decision
from scheduler.domain.requests import Request

DECISIONS_KEPT = 8
"""Of one request: the first, and the last of the others. A bound of memory."""
SENDINGS_KEPT = 3
"""Of one request: the last. Two are usual at most, as a request is sent again or hedged once; content that a backend
refuses is halved and sent oftener. A bound of memory."""
ANSWERED = "answered"
CANCELLED = "cancelled"
"""Outcomes beside the values of RefusalKind."""


class Sending(NamedTuple):
    """One batch that a request was in; None in the last four: not back yet."""

    batch: Batch
    settled_at_s: float | None = None
    report: BatchReport | None = None
    failure_kind: FailureKind | None = None
    """None also where it was answered."""
    cost: float | None = None
    """Of the whole batch."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is kept about one request; absolute times are on the shell's monotonic clock."""

    request: Request
    """As it arrived, without its attempts: those are in the decisions and sendings."""
    decisions: tuple[Decision, ...]
    """In order. Empty for a request that ended before anything could be decided, as with a full queue."""
    left_out: int = 0
    """How many decisions between the first and the others are not kept."""
    sendings: tuple[Sending, ...] = ()
    """In order."""
    ended_at_s: float | None = None
    """None: it has not ended."""
    outcome: str = ""
    """`answered`, `cancelled`, or the kind of refusal; empty: it has not ended."""

    @property
    def request_id(self) -> int:
        """The number of the request."""
        return self.request.request_id


_Shared = list[Any]
"""A batch as all its requests share it: [batch, what became of it (the rest of a Sending), how many have it]."""
_BATCH, _OUTCOME, _HOLDERS = 0, 1, 2

_Story = list[Any]
"""A request: [its only batch or a tuple of them, its end, number of decisions left out, decision, decision, ...]. Its
end is (time, outcome, the request where there is no decision that has it)."""
_SENT, _END, _LEFT_OUT, _FIRST = 0, 1, 2, 3


class DecisionRing:
    """The last requests by id; when it is full, the one that was first heard of the longest ago goes."""

    # Bare lists of what is handed in, made into values only in `explain`: with objects instead of them this cost twice
    # as much, and it runs for every request.
    __slots__ = ("_batches", "_longest", "_order", "_sendings", "_size", "_stories")

    def __init__(self, size: int, *, whole: bool = False) -> None:
        """Stores how much is kept.

        Args:
            size: number of requests, at least 1.
            whole: whether all decisions and sendings of a request are kept, however many they are.
        """
        self._size = size
        self._longest = sys.maxsize if whole else _FIRST + DECISIONS_KEPT
        self._sendings = sys.maxsize if whole else SENDINGS_KEPT
        self._order: deque[int] = deque()
        self._stories: dict[int, _Story] = {}
        self._batches: dict[int, _Shared] = {}

    def __len__(self) -> int:
        """Returns how many requests are known."""
        return len(self._order)

    @property
    def batches(self) -> int:
        """How many batches are kept."""
        return len(self._batches)

    def note(self, decision: Decision) -> None:
        """Keeps a decision; a request that was not known is from now on."""
        request_id = decision.request.request_id
        story = self._stories.get(request_id)
        if story is None:
            self._add(request_id, [None, None, 0, decision])
            return
        story.append(decision)
        if len(story) > self._longest:
            del story[_FIRST + 1]
            story[_LEFT_OUT] += 1

    def sent(self, batch: Batch) -> None:
        """Keeps a batch with those of its requests that are known."""
        shared: _Shared = [batch, None, 0]
        stories, holders = self._stories, 0
        for request_id in batch.request_ids:
            story = stories.get(request_id)
            if story is None:
                continue
            holders += 1
            if story[_SENT] is None:
                story[_SENT] = shared
            else:
                self._sent_again(story, shared)
        if holders:
            shared[_HOLDERS] = holders
            self._batches[batch.batch_id] = shared

    def settled(
        self, batch_id: int, report: BatchReport, failure_kind: FailureKind | None, *, cost: float, at_s: float
    ) -> None:
        """Keeps what became of a batch. A later word, as of a late bill, takes the place of an earlier one.

        Args:
            batch_id: the batch; one that is not kept is ignored.
            report: what was measured.
            failure_kind: why it failed; None where it was answered.
            cost: of the whole batch, in the prices' currency.
            at_s: when it came back.
        """
        shared = self._batches.get(batch_id)
        if shared is not None:
            shared[_OUTCOME] = (at_s, report, failure_kind, cost)

    def ended(self, request: Request, at_s: float, outcome: str) -> None:
        """Keeps how a request ended: ANSWERED, CANCELLED, or the value of a RefusalKind."""
        story = self._stories.get(request.request_id)
        if story is None:
            self._add(request.request_id, [None, (at_s, outcome, request), 0])
        else:
            story[_END] = (at_s, outcome, request if len(story) == _FIRST else None)

    def explain(self, request_id: int) -> Explanation | None:
        """Returns what is known of a request; None where newer ones took its place, or it never was."""
        story = self._stories.get(request_id)
        if story is None:
            return None
        end: tuple[Any, ...] = story[_END] or (None, "", None)
        ended_at_s, outcome, undecided = end
        decisions: tuple[Decision, ...] = tuple(story[_FIRST:])
        request: Request = decisions[0].request if decisions else undecided
        return Explanation(
            replace(request, attempts=()),
            decisions,
            story[_LEFT_OUT],
            tuple([Sending(shared[_BATCH], *(shared[_OUTCOME] or ())) for shared in _sendings(story)]),
            ended_at_s,
            outcome,
        )

    def newest(self, *, missed: bool = False) -> Iterator[int]:
        """Yields the numbers of the kept requests, the one that was first heard of last before the others.

        Args:
            missed: whether only those that were refused, or answered after their deadline.
        """
        for request_id in reversed(self._order):
            if not missed or _missed(self._stories[request_id]):
                yield request_id

    def _add(self, request_id: int, story: _Story) -> None:
        order, stories = self._order, self._stories
        if len(order) >= self._size:
            sent = stories.pop(order.popleft())[_SENT]
            if isinstance(sent, list):
                self._release(sent)
            elif sent:
                for shared in sent:
                    self._release(shared)
        order.append(request_id)
        stories[request_id] = story

    def _sent_again(self, story: _Story, shared: _Shared) -> None:
        sendings = (*_sendings(story), shared)
        if len(sendings) > self._sendings:
            self._release(sendings[0])
            sendings = sendings[1:]
        story[_SENT] = sendings

    def _release(self, shared: _Shared) -> None:
        shared[_HOLDERS] -= 1
        if not shared[_HOLDERS]:
            del self._batches[shared[_BATCH].batch_id]


def _missed(story: _Story) -> bool:
    end: tuple[Any, ...] | None = story[_END]
    if end is None or end[1] == CANCELLED:
        return False
    request: Request = end[2] or story[_FIRST].request
    late: bool = end[0] > request.deadline_s
    return late or end[1] != ANSWERED


def _sendings(story: _Story) -> Sequence[_Shared]:
    sent = story[_SENT]
    return (sent,) if isinstance(sent, list) else sent or ()
