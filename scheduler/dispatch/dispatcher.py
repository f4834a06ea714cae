"""The dispatcher: who goes where, when, and what happens to those whom nobody can serve in time.

Every request that is not in flight is in exactly one of its queues's queues:

    next_batch   the edge's next batch, as forecast
    waiting      the edge later: only where no function can take it
    gathered     in one of the function buffers, until its batch leaves
    deferred     for an edge that has nothing else to do, as its class allows
    late         too late everywhere, served all the same because its class says so
    halves       of a batch whose content a backend refused, to be sent to it again

Decisions are made on arrival, when the edge becomes free, when a gathered batch must leave, and at the last moment at
which a request that the edge will not manage can still leave for a function.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from scheduler.dispatch.deferring import deferred_until_s
from scheduler.dispatch.due_times import LATE_HOLD_S, due_times_s
from scheduler.dispatch.edge_side import EdgeSide
from scheduler.dispatch.endings import Endings
from scheduler.dispatch.function_buffer import Buffer
from scheduler.dispatch.function_side import FunctionSide
from scheduler.dispatch.hedging import Hedging
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.queue import Place, QueuedRequest
from scheduler.dispatch.request_table import Sender
from scheduler.dispatch.spend_cap import SpendVerdict
from scheduler.dispatch.terms import decision
from scheduler.domain.errors import Refusal
from scheduler.domain.requests import Backend

NEVER = float("inf")
MOST_TRIED = 16
"""Of the edge's next batch that are asked to make room."""
STARVED_S = 1.0
"""How long a request that might have gone to a function keeps the link under watch."""


@dataclass(slots=True)
class Dispatcher:
    """Places requests and sends batches. Commands gather in the sender."""

    all_queues: Mapping[str, ModelQueues]
    edge: EdgeSide
    function: FunctionSide
    sender: Sender
    hedging: Hedging
    endings: Endings
    plan_id: int = 0

    def place(self, queued: QueuedRequest, now_s: float, cause: str = "arrival") -> None:
        """Puts a request that is in no queue where it is served in time at the least money, or ends it.

        Args:
            queued: in no queue and in no batch.
            now_s: the present.
            cause: why now, for the record: arrival, or what has changed since the last time.
        """
        queues = self.all_queues[queued.request.model]
        where, refusal = self._choose(queues, queued, now_s=now_s)
        self._note(queues, queued, place=where, now_s=now_s, cause=cause)
        if refusal is not None:
            self.sender.refuse(queued, refusal)
        elif where == "function":
            self.function.join(queues, queued, now_s=now_s)
        else:
            if where == "late" and not len(queues.late):
                queues.late_opened_at_s = now_s
            queues.order(where).add(queued)

    def _choose(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> tuple[str, Refusal | None]:
        """Returns where a request goes, and if nowhere, why."""
        if self._may_wait(queues, queued, now_s=now_s):
            return "deferred", None
        if self.edge.has_room(queues, queued, now_s=now_s):
            return "edge", None
        course = self.function.course(queues, queued, now_s=now_s)
        in_time = course is SpendVerdict.FUNCTION and self.function.in_time(queues, queued, now_s=now_s)
        if self.function.usable(queues, queued):
            queues.starved_at_s = now_s
            if in_time or self.function.too_cold(queues, queued, now_s=now_s):
                self.function.wanted(queues, queued, now_s=now_s)
        # Even where it may be late: a line of such requests before the edge is what shrinks its batches.
        if in_time and self.function.worth_trying(queues, queued, now_s=now_s):
            return "function", None
        if course is SpendVerdict.EDGE_IF_IDLE:
            return "refused", self.endings.no_money(queues, queued, now_s=now_s)
        if self._make_room(queues, queued, now_s=now_s):
            return "edge", None
        if self.edge.could_answer(queues, queued, now_s=now_s):
            return "waiting", None
        if course is SpendVerdict.FUNCTION and self.function.worth_finding_out(queues, queued, now_s=now_s):
            self.function.trying(queues, queued, now_s=now_s)
            return "function", None
        return self.endings.too_late(queues, queued, now_s=now_s, course=course)

    def _make_room(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> bool:
        """Lets somebody of the edge's next batch leave for a request that nobody else can take.

        Whoever a function can still serve goes there; failing that, somebody of lower priority is placed anew.
        """
        for other in list(reversed(queues.next_batch.members))[:MOST_TRIED]:
            spillable = self.function.course(
                queues, other, now_s=now_s
            ) is SpendVerdict.FUNCTION and self.function.in_time(queues, other, now_s=now_s)
            if not spillable and other.request.priority <= queued.request.priority:
                continue
            queues.next_batch.remove(other)
            if not self.edge.has_room(queues, queued, now_s=now_s):
                queues.next_batch.add(other)
                continue
            if spillable:
                self._note(queues, other, place="function", now_s=now_s, cause="displaced")
                self.function.join(queues, other, now_s=now_s)
            else:
                # It shall find its place taken.
                queues.next_batch.add(queued)
                self.place(other, now_s, "displaced")
                queues.next_batch.remove(queued)
            return True
        return False

    def _may_wait(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> bool:
        """Whether a deferrable request still has time to wait for an idle edge."""
        if queued.due or queued.request.class_name not in queues.deferrable:
            return False
        ever = queued.failed_on is not Backend.EDGE and queued.request.items <= queues.edge_limit
        return ever and now_s < deferred_until_s(self.edge, self.function, queues, queued, now_s=now_s)

    def dispatch(self, now_s: float) -> None:
        """Sends whatever should leave now. Called after every change."""
        self.hedging.watch()
        for queues in self.all_queues.values():
            self._review(queues, now_s=now_s)
        if self.edge.occupancy.idle and self.edge.circuit.usable(now_s):
            self._send_edge(now_s)
        for queues, hedged in self.hedging.to_functions(now_s):
            self._note(queues, hedged, place="function", now_s=now_s, cause="hedging")
        for queues in self.all_queues.values():
            self._send_halves(queues, now_s=now_s)
            self._send_late(queues, now_s=now_s)
            for buffer in queues.buffers:
                self._send_gathered(buffer, queues, now_s=now_s)

    def price(self, queues: ModelQueues) -> None:
        """Weighs money, lateness and the edge's time anew by what is known now."""
        self.function.gathering.price(queues)
        if queues.edge_times is not None:
            self.edge.price(queues)

    def next_wakeup_s(self, now_s: float) -> float:
        """Returns when a decision falls due if nothing happens before; inf for never."""
        self.hedging.watch()
        due_s = (due_times_s(self.edge, self.function, queues, now_s=now_s) for queues in self.all_queues.values())
        lanes_s = (at_s for at_s in chain.from_iterable(due_s) if at_s > now_s)
        return min(min(lanes_s, default=NEVER), self.hedging.next_s(now_s))

    def brace(self) -> None:
        """Takes lateness seriously again, as after a change."""
        for queues in self.all_queues.values():
            queues.lateness.brace()

    def starved(self, now_s: float) -> bool:
        """Whether somebody without room on the edge might have gone to a function lately."""
        return any(now_s - queues.starved_at_s < STARVED_S for queues in self.all_queues.values())

    def flush(self, now_s: float) -> None:
        """Sends gathered function batches without waiting for company, as when the daemon drains."""
        for queues in self.all_queues.values():
            for buffer in queues.buffers:
                self.function.flush(buffer, queues, now_s=now_s)

    def reassign_all(self, cause: str, *, now_s: float) -> None:
        """Decides anew for everybody who waits, as after a backend went down or limits changed."""
        for queues in self.all_queues.values():
            self.assign_all(queues.take_all(), cause, now_s=now_s)

    def withdraw_all(self) -> tuple[QueuedRequest, ...]:
        """Takes everybody who waits out of the queues: whoever changes a plan does so, and places them again after."""
        return tuple(chain.from_iterable(queues.take_all() for queues in self.all_queues.values()))

    def assign_all(self, waiting: Iterable[QueuedRequest], cause: str, *, now_s: float) -> None:
        """Places those who are in no queue."""
        for queued in waiting:
            self.place(queued, now_s, cause)

    def _send_edge(self, now_s: float) -> None:
        for queues in self.edge.by_urgency():
            if self._send_edge_half(queues, now_s=now_s) or self._send_edge_batch(queues, now_s=now_s):
                return
        # Nobody waits: an idle edge takes up whom a slow function has in hand, or who could wait for this moment.
        for queues in self.all_queues.values():
            riders = self.hedging.riders(queues, (), now_s=now_s) or self.edge.deferred_batch(queues, now_s=now_s)
            if riders:
                queues.deferred.remove_all(q for q in riders if q.place is Place.DEFERRED)
                self._note_hedged(queues, riders, now_s=now_s)
                self.edge.send(riders, queues, now_s=now_s)
                return

    def _send_edge_half(self, queues: ModelQueues, *, now_s: float) -> bool:
        halves = queues.halves[Backend.EDGE]
        if halves:
            self.edge.send(halves.popleft(), queues, now_s=now_s)
            return True
        return False

    def _send_edge_batch(self, queues: ModelQueues, *, now_s: float) -> bool:
        composition = self.edge.compose(queues, now_s=now_s)
        if composition.chosen:
            for queued in composition.riding:
                self._note(queues, queued, place="edge", now_s=now_s, cause="riding")
            riders = self.hedging.riders(queues, composition.chosen, now_s=now_s)
            self._note_hedged(queues, riders, now_s=now_s)
            self.edge.send((*composition.chosen, *riders), queues, now_s=now_s)
        # Placed after the send, when the edge's next free moment is known.
        for queued in (*composition.dropped, *composition.left):
            self.place(queued, now_s, "edge-sent")
        if composition.chosen:
            self._welcome_back(queues, now_s=now_s)
        return bool(composition.chosen)

    def _welcome_back(self, queues: ModelQueues, *, now_s: float) -> None:
        """Takes from the spill set whom the following edge batch has room for after all."""
        for queued in tuple(queues.spilled()):
            if self.edge.has_room(queues, queued, now_s=now_s):
                queues.take_back(queued)
                self._note(queues, queued, place="edge", now_s=now_s, cause="edge-sent")
                queues.next_batch.add(queued)

    def _send_halves(self, queues: ModelQueues, *, now_s: float) -> None:
        halves = queues.halves[Backend.FUNCTION]
        while halves:
            buffer = queues.buffer_of(halves[0][0])
            if buffer is not None and not self.function.has_slot(buffer, now_s=now_s):
                return
            half = halves.popleft()
            items = sum(q.request.items for q in half)
            if buffer is not None and items <= buffer.cap and self.function.affords(buffer, items, now_s=now_s):
                self.function.send(half, buffer, queues, now_s=now_s)
                continue
            self.assign_all(half, "limits", now_s=now_s)

    def _send_gathered(self, buffer: Buffer, queues: ModelQueues, *, now_s: float) -> None:
        while self.function.is_due(buffer, now_s=now_s):
            self._welcome_back(queues, now_s=now_s)
            if len(buffer.gathered):
                self._fill_from_edge(buffer, queues, now_s=now_s)
                self.function.send_one(buffer, queues, now_s=now_s)

    def _fill_from_edge(self, buffer: Buffer, queues: ModelQueues, *, now_s: float) -> None:
        """A batch that leaves unfilled takes along those of the edge's next batch whose places others will fill.

        The oldest go: they bind the edge's batch, and whoever comes after them lets it be larger.
        """
        while len(queues.next_batch) and self.edge.overflows(queues, now_s=now_s):
            oldest = queues.next_batch.first
            if queues.buffer_of(oldest) is not buffer or not self.function.usable(queues, oldest):
                return
            if not buffer.has_room(oldest):
                return
            if self.function.gathering.joining(buffer, oldest, now_s=now_s) >= buffer.spill_cost:
                return
            queues.next_batch.remove(oldest)
            self._note(queues, oldest, place="function", now_s=now_s, cause="filling")
            buffer.gathered.add(oldest)

    def _send_late(self, queues: ModelQueues, *, now_s: float) -> None:
        """Late requests that the edge had no room for go to a function, in batches and before long."""
        for buffer in queues.buffers if len(queues.late) else ():
            while len(queues.late) and buffer.cap and self.function.has_slot(buffer, now_s=now_s):
                batch = self.function.first_batch(buffer, queues, queues.late)
                full = sum(q.request.items for q in batch) >= buffer.most
                if not batch or (not full and now_s < queues.late_opened_at_s + LATE_HOLD_S):
                    break
                if not self.function.affords(buffer, sum(q.request.items for q in batch), now_s=now_s):
                    self._no_longer_paid(queues, batch, now_s=now_s)
                    break
                queues.late.remove_all(batch)
                self.function.send(batch, buffer, queues, now_s=now_s)

    def _no_longer_paid(self, queues: ModelQueues, batch: Sequence[QueuedRequest], *, now_s: float) -> None:
        """Whom the edge cannot take either is told: nobody waits for money that may come in an hour."""
        for queued in batch:
            if not self.edge.usable(queues, queued):
                queues.late.remove(queued)
                self.place(queued, now_s, "limits")

    def _review(self, queues: ModelQueues, *, now_s: float) -> None:
        """Moves those whose place can no longer serve them while another still can."""
        self._review_halves(queues, now_s=now_s)
        if not any((len(queues.next_batch), len(queues.waiting), queues.spilled_items, len(queues.deferred))):
            return
        if len(queues.next_batch):
            self._review_next_batch(queues, now_s=now_s)
        for queued in tuple(queues.waiting):
            if self.edge.could_answer(queues, queued, now_s=now_s):
                break
            queues.waiting.remove(queued)
            self.place(queued, now_s, "edge-slipped")
        for buffer in queues.buffers:
            self._review_gathered(buffer, now_s=now_s)
        while len(queues.deferred) and now_s >= deferred_until_s(
            self.edge, self.function, queues, queues.deferred.first, now_s=now_s
        ):
            # Those who are due soon come along: together they cost less than one by one.
            own = queues.buffer_of(queues.deferred.first)
            for queued in queues.deferred.members[: 1 if own is None else max(1, own.cheapest_size)]:
                queues.deferred.remove(queued)
                queued.due = True
                self.place(queued, now_s, "deferred")

    def _review_gathered(self, buffer: Buffer, *, now_s: float) -> None:
        for queued in tuple(buffer.gathered):
            if queued.request.deadline_s > now_s and not self.function.stuck(buffer, queued, now_s=now_s):
                break
            buffer.gathered.remove(queued)
            self.place(queued, now_s, "slot")
        if len(buffer.gathered) and not self.function.affords_gathered(buffer, now_s=now_s):
            self.assign_all(buffer.gathered.take_all(), "spend-cap", now_s=now_s)

    def _review_halves(self, queues: ModelQueues, *, now_s: float) -> None:
        overdue = [q for q in queues.halved() if q.request.deadline_s <= now_s and not queues.serves_late(q)]
        if overdue:
            queues.keep_in_halves(lambda queued: queued not in overdue)
        for queued in overdue:
            self.place(queued, now_s, "half")

    def _review_next_batch(self, queues: ModelQueues, *, now_s: float) -> None:
        """The oldest leave for a function if the edge has slipped and this is their last chance; or give up."""
        times = queues.edge_times
        while len(queues.next_batch) and times is not None:
            oldest = queues.next_batch.first
            deadline_s = oldest.request.deadline_s
            start_s = self.edge.start_s(queues, now_s=now_s, deadline_s=deadline_s)
            if start_s + times.safe_s[min(queues.next_batch.items, queues.edge_limit)] <= deadline_s:
                return
            hopeless = start_s + times.median_s[min(oldest.request.items, times.max_batch)] > deadline_s
            if self._better_spilled(queues, oldest, now_s=now_s):
                queues.next_batch.remove(oldest)
                self._note(queues, oldest, place="function", now_s=now_s, cause="edge-slipped")
                self.function.join(queues, oldest, now_s=now_s)
            elif hopeless:
                queues.next_batch.remove(oldest)
                self.place(oldest, now_s, "edge-slipped")
            else:
                return

    def _better_spilled(self, queues: ModelQueues, oldest: QueuedRequest, *, now_s: float) -> bool:
        """Whether the oldest had better leave for a function than let the batch be cut at its other end.

        Either saves the edge the seconds of one item, which are worth something to others. Those cut off are fresh,
        and a function takes them for less; but the oldest's leaving lets the next deadline bind, so that the batch
        gains the gap between the two besides.
        """
        buffer = queues.buffer_of(oldest)
        if buffer is None or not self.function.in_time(queues, oldest, now_s=now_s):
            return False
        if self.function.course(queues, oldest, now_s=now_s) is not SpendVerdict.FUNCTION:
            return False
        gap_s = 1.0 / queues.rate_rps if queues.rate_rps > 0 else math.inf
        relief = 1.0 + gap_s / self.edge.slope_s(queues)
        least = queues.lateness.cut_cost * relief + queues.lateness.seconds_worth
        return self.function.gathering.alone(buffer, oldest, now_s=now_s) <= least

    def _note_hedged(self, queues: ModelQueues, riders: Sequence[QueuedRequest], *, now_s: float) -> None:
        for queued in riders:
            if queued.place is Place.IN_FLIGHT:
                self._note(queues, queued, place="edge", now_s=now_s, cause="hedging")

    def _note(self, queues: ModelQueues, queued: QueuedRequest, *, place: str, now_s: float, cause: str) -> None:
        record = decision(
            self.edge, self.function, queues, queued, place=place, cause=cause, plan_id=self.plan_id, now_s=now_s
        )
        self.sender.ring.note(record)
