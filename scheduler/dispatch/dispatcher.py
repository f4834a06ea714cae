"""The dispatcher: who goes where, when, and what happens to those whom nobody can serve in time.

Every request that is not in flight is in exactly one of its lane's queues:

    next_batch   the edge's next batch, as forecast
    waiting      the edge later: only where no function can take it
    spill        the function batch that is being gathered
    late         too late everywhere, served all the same because its class says so
    halves       of a batch whose content a backend refused, to be sent to it again

Decisions are made on arrival, when the edge becomes free, when a gathered batch must leave, and at the last moment at
which a request that the edge will not manage can still leave for a function.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from scheduler.dispatch.edge_side import EdgeSide
from scheduler.dispatch.function_side import FunctionSide
from scheduler.dispatch.lane import Lane
from scheduler.dispatch.queue import Queued
from scheduler.dispatch.sender import Sender, Sent
from scheduler.domain.batches import Failure, FailureKind
from scheduler.domain.errors import Refusal, RefusalKind
from scheduler.domain.requests import Backend

NEVER = float("inf")
LATE_HOLD_S = 0.25
"""How long those who are late already wait for company or for room on the edge before they go to a function."""


@dataclass(slots=True)
class Dispatcher:
    """Places requests and sends batches. Commands gather in the sender."""

    lanes: Mapping[str, Lane]
    edge: EdgeSide
    function: FunctionSide
    sender: Sender

    def place(self, queued: Queued, *, now_s: float) -> None:
        """Puts a request that is in no queue where it is served in time at the least money, or ends it."""
        lane = self.lanes[queued.request.model]
        if self.edge.has_room(lane, queued, now_s=now_s):
            lane.next_batch.add(queued)
        elif self.function.in_time(lane, queued, now_s=now_s):
            # Even where it may be late: a line of such requests before the edge is what shrinks its batches.
            self.function.join(lane, queued, now_s=now_s)
        elif self.edge.could_answer(lane, queued, now_s=now_s):
            lane.waiting.add(queued)
        else:
            self._too_late(lane, queued, now_s=now_s)

    def dispatch(self, now_s: float) -> None:
        """Sends whatever should leave now. Called after every change."""
        for lane in self.lanes.values():
            self._review(lane, now_s=now_s)
        if self.edge.occupancy.idle and self.edge.circuit.usable(now_s):
            self._send_edge(now_s)
        for lane in self.lanes.values():
            self._send_function(lane, now_s=now_s)

    def price(self, lane: Lane) -> None:
        """Weighs money, lateness and the edge's time anew by what is known now."""
        if lane.function_times is not None:
            self.function.gathering.price(lane)
        if lane.edge_times is not None:
            self.edge.price(lane)

    def next_wakeup_s(self, now_s: float) -> float:
        """Returns when a decision falls due if nothing happens before; inf for never."""
        return min((self._lane_wakeup_s(lane, now_s=now_s) for lane in self.lanes.values()), default=NEVER)

    def flush(self, now_s: float) -> None:
        """Sends gathered function batches without waiting for company, as when the daemon drains."""
        for lane in self.lanes.values():
            self.function.flush(lane, now_s=now_s)

    def place_anew(self, *, now_s: float) -> None:
        """Decides anew for everybody who waits, as after a backend went down or the plan changed."""
        for lane in self.lanes.values():
            for queued in lane.take_all():
                self.place(queued, now_s=now_s)

    def give_back(self, sent: Sent, failure: Failure, *, now_s: float) -> None:
        """Decides what becomes of the requests of a failed batch."""
        living = [q for q in sent.members if not q.cancelled]
        for queued in living:
            self.sender.requeue(queued)
        if failure.kind is FailureKind.REJECTED:
            self._halve(living, sent, failure, now_s=now_s)
            return
        for queued in living:
            self._send_to_the_other(queued, sent.batch.backend, failure, now_s=now_s)

    def _send_to_the_other(self, queued: Queued, failed: Backend, failure: Failure, *, now_s: float) -> None:
        lane = self.lanes[queued.request.model]
        if queued.barred is None:
            queued.barred = failed
            if failed is Backend.EDGE and self.function.in_time(lane, queued, now_s=now_s):
                self.function.join(lane, queued, now_s=now_s)
                return
            if failed is Backend.FUNCTION and self.edge.could_answer(lane, queued, now_s=now_s):
                lane.waiting.add(queued)
                return
        self.sender.refuse(queued, _failed(failed, failure))

    def _halve(self, members: list[Queued], sent: Sent, failure: Failure, *, now_s: float) -> None:
        """A refused content is found by halving: the halves go to the same backend, the culprit fails alone."""
        if len(sent.members) == 1:
            for queued in members:
                message = f"the {sent.batch.backend.value} refused the request: {failure.message}"
                self.sender.refuse(queued, Refusal(RefusalKind.BAD_REQUEST, message))
            return
        lane, backend = self.lanes[sent.batch.model], sent.batch.backend
        middle = (len(members) + 1) // 2
        for half in filter(None, (tuple(members[:middle]), tuple(members[middle:]))):
            if self._takes_half(lane, backend, half):
                lane.halves[backend].append(half)
                continue
            for queued in half:
                self.place(queued, now_s=now_s)

    def _takes_half(self, lane: Lane, backend: Backend, half: tuple[Queued, ...]) -> bool:
        """Whether limits, plan and circuit let the backend have it: they may have changed since the batch left."""
        most, circuit = (
            (lane.edge_limit, self.edge.circuit)
            if backend is Backend.EDGE
            else (lane.function_cap, self.function.circuit)
        )
        return circuit.closed and sum(q.request.items for q in half) <= most

    def _send_edge(self, now_s: float) -> None:
        for lane in self.edge.by_urgency():
            if self._send_edge_half(lane, now_s=now_s) or self._send_edge_batch(lane, now_s=now_s):
                return

    def _send_edge_half(self, lane: Lane, *, now_s: float) -> bool:
        halves = lane.halves[Backend.EDGE]
        if halves:
            self.edge.send(halves.popleft(), lane, now_s=now_s)
            return True
        return False

    def _send_edge_batch(self, lane: Lane, *, now_s: float) -> bool:
        composition = self.edge.compose(lane, now_s=now_s)
        if composition.chosen:
            self.edge.send(composition.chosen, lane, now_s=now_s)
        # Placed after the send, when the edge's next free moment is known.
        for queued in (*composition.dropped, *composition.left):
            self.place(queued, now_s=now_s)
        if composition.chosen:
            self._welcome_back(lane, now_s=now_s)
        return bool(composition.chosen)

    def _welcome_back(self, lane: Lane, *, now_s: float) -> None:
        """Takes from the spill set whom the following edge batch has room for after all."""
        for queued in tuple(lane.spill):
            if self.edge.has_room(lane, queued, now_s=now_s):
                lane.spill.remove(queued)
                lane.next_batch.add(queued)

    def _send_function(self, lane: Lane, *, now_s: float) -> None:
        halves = lane.halves[Backend.FUNCTION]
        while halves and self.function.has_slot(lane, now_s=now_s):
            self.function.send(halves.popleft(), lane, now_s=now_s)
        self._send_late(lane, now_s=now_s)
        while self.function.is_due(lane, now_s=now_s):
            self._welcome_back(lane, now_s=now_s)
            if len(lane.spill):
                self._fill_from_edge(lane, now_s=now_s)
                self.function.send_one(lane, now_s=now_s)

    def _fill_from_edge(self, lane: Lane, *, now_s: float) -> None:
        """A batch that leaves unfilled takes along those of the edge's next batch whose places others will fill.

        The oldest go: they bind the edge's batch, and whoever comes after them lets it be larger.
        """
        while len(lane.next_batch) and self.edge.overflows(lane, now_s=now_s):
            oldest = lane.next_batch.first
            if not self.function.usable(lane, oldest):
                return
            if self.function.gathering.joining(lane, oldest, now_s=now_s) >= lane.stakes.spill_cost:
                return
            lane.next_batch.remove(oldest)
            lane.spill.add(oldest)

    def _send_late(self, lane: Lane, *, now_s: float) -> None:
        """Late requests that the edge had no room for go to a function, in batches and before long."""
        while len(lane.late) and lane.function_cap and self.function.has_slot(lane, now_s=now_s):
            if lane.late.items < lane.function_cap and now_s < lane.late_opened_at_s + LATE_HOLD_S:
                return
            batch = self.function.first_batch(lane, lane.late)
            if not batch:
                return
            lane.late.remove_all(batch)
            self.function.send(batch, lane, now_s=now_s)

    def _review(self, lane: Lane, *, now_s: float) -> None:
        """Moves those whose place can no longer serve them while another still can."""
        self._review_halves(lane, now_s=now_s)
        if not len(lane.next_batch) and not len(lane.waiting) and not len(lane.spill):
            return
        if len(lane.next_batch):
            self._review_next_batch(lane, now_s=now_s)
        for queued in tuple(lane.waiting):
            if self.edge.could_answer(lane, queued, now_s=now_s):
                break
            lane.waiting.remove(queued)
            self.place(queued, now_s=now_s)
        for queued in tuple(lane.spill):
            if queued.request.deadline_s > now_s and not self.function.stuck(lane, queued, now_s=now_s):
                break
            lane.spill.remove(queued)
            self.place(queued, now_s=now_s)

    def _review_halves(self, lane: Lane, *, now_s: float) -> None:
        overdue = [q for q in lane.halved() if q.request.deadline_s <= now_s and not lane.serves_late(q)]
        if overdue:
            lane.keep_in_halves(lambda queued: queued not in overdue)
        for queued in overdue:
            self._too_late(lane, queued, now_s=now_s)

    def _review_next_batch(self, lane: Lane, *, now_s: float) -> None:
        """The oldest leave for a function if the edge has slipped and this is their last chance; or give up."""
        times = lane.edge_times
        while len(lane.next_batch) and times is not None:
            oldest = lane.next_batch.first
            deadline_s = oldest.request.deadline_s
            start_s = self.edge.start_s(lane, now_s=now_s, deadline_s=deadline_s)
            if start_s + times.cautious_s[min(lane.next_batch.items, lane.edge_limit)] <= deadline_s:
                return
            hopeless = start_s + times.median_s[min(oldest.request.items, times.max_batch)] > deadline_s
            if self._better_spilled(lane, oldest, now_s=now_s):
                lane.next_batch.remove(oldest)
                self.function.join(lane, oldest, now_s=now_s)
            elif hopeless:
                lane.next_batch.remove(oldest)
                self.place(oldest, now_s=now_s)
            else:
                return

    def _better_spilled(self, lane: Lane, oldest: Queued, *, now_s: float) -> bool:
        """Whether the oldest had better leave for a function than let the batch be cut at its other end.

        Either saves the edge the seconds of one item, which are worth something to others. Those cut off are fresh,
        and a function takes them for less; but the oldest's leaving lets the next deadline bind, so that the batch
        gains the gap between the two besides.
        """
        if not lane.function_cap or not self.function.in_time(lane, oldest, now_s=now_s):
            return False
        gap_s = 1.0 / lane.rate_rps if lane.rate_rps > 0 else math.inf
        relief = 1.0 + gap_s / self.edge.slope_s(lane)
        least = lane.stakes.cut_cost * relief + lane.stakes.seconds_worth
        return self.function.gathering.alone(lane, oldest, now_s=now_s) <= least

    def _lane_wakeup_s(self, lane: Lane, *, now_s: float) -> float:
        return min((at_s for at_s in self._due_times_s(lane, now_s=now_s) if at_s > now_s), default=NEVER)

    def _due_times_s(self, lane: Lane, *, now_s: float) -> Iterator[float]:
        """Yields when decisions fall due. What is overdue waits for an answer, a free slot or its deadline."""
        for order in (lane.next_batch, lane.waiting):
            if len(order) and lane.edge_times is not None:
                request = order.first.request
                yield request.deadline_s - lane.edge_times.median_s[request.items]
                yield request.deadline_s
        if len(lane.next_batch) and lane.function_cap:
            yield self.function.latest_s(lane, lane.next_batch.first, now_s=now_s)
        if len(lane.spill):
            yield self.function.closes_at_s(lane, now_s=now_s)
            yield self.function.hopeless_at_s(lane, lane.spill.first)
            yield lane.spill.first.request.deadline_s
        if len(lane.late) and lane.function_cap:
            yield lane.late_opened_at_s + LATE_HOLD_S
        yield from (queued.request.deadline_s for queued in lane.halved())

    def _too_late(self, lane: Lane, queued: Queued, *, now_s: float) -> None:
        if lane.serves_late(queued) and (self.edge.usable(lane, queued) or self.function.usable(lane, queued)):
            if not len(lane.late):
                lane.late_opened_at_s = now_s
            lane.late.add(queued)
            return
        left_s = queued.request.deadline_s - now_s
        self.sender.refuse(queued, self._why_not(lane, left_s=left_s))

    def _why_not(self, lane: Lane, *, left_s: float) -> Refusal:
        down = [
            backend.value
            for backend, there, circuit in (
                (Backend.EDGE, lane.edge_times is not None, self.edge.circuit),
                (Backend.FUNCTION, lane.function_times is not None, self.function.circuit),
            )
            if there and not circuit.closed
        ]
        reason = f"; not answering: {', '.join(down)}" if down else ""
        # No figure that differs from request to request: whoever counts errors groups them by their sentence.
        if left_s > 0:
            message = f"no backend can answer within the request's deadline{reason}"
        else:
            message = f"the request's deadline passed before any backend was free{reason}"
        return Refusal(RefusalKind.DEADLINE, message)


def _failed(failed: Backend, failure: Failure) -> Refusal:
    message = f"the {failed.value} failed ({failure.message}) and nobody else can answer within the deadline"
    return Refusal(RefusalKind.BACKEND, message)
