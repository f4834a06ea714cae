"""Which lanes a call has to look at: those in which something may have fallen due since they were looked at last.

Lanes share the slots of the edges and the uplink. A lane rests while none of its queues has changed, the path to the
functions is as it was, the first thing that falls due in it lies ahead, and the first members of its next batches are
in time. The last of these depends on all other lanes: a batch starts when the slot is free, after the next batches of
more urgent lanes. What those have grown by since, in seconds, is an upper bound of what has put it off. So each slot
sums up all growth, and a lane keeps the sum of free time and growth up to which it need not be looked at.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from scheduler.dispatch.edges import Edges
from scheduler.dispatch.function_buffer import FunctionBuffer
from scheduler.dispatch.function_sending import FunctionSending
from scheduler.dispatch.lanes import Lanes
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.rest import PathState

ROUNDING_S = 1e-6
"""Seconds by which a lane is looked at too early rather than too late: sums are rounded."""


@dataclass(slots=True)
class Resting:
    """Tells the lanes that need a look from those that rest: a call costs by what happens, not by models served."""

    lanes: Lanes
    edges: Edges
    function: FunctionSending

    def awake(self, now_s: float, *, edges: bool) -> Iterator[tuple[ModelQueues, bool]]:
        """Iterates over the lanes that need a look, in their order, each with whether its next batches need one too.

        Args:
            now_s: the present.
            edges: whether next batches are asked about, or only what falls due elsewhere.
        """
        lanes, slots = self.lanes.all, self.edges.slots
        free_s = [slot.occupancy.free_at_s(now_s) for slot in slots] if edges else []
        for queues in lanes if edges else ():
            if queues.rest.seen != queues.changes.count:
                self._grow(queues)
        path, uplink = self._path(now_s), self.function.side.uplink
        for queues in lanes:
            rest, count = queues.rest, queues.changes.count
            changed = hurried = rest.seen != count
            if edges and not changed:
                for number, until_s in rest.next_until_s:
                    if free_s[number] + slots[number].grown_s > until_s:
                        hurried = True
                        break
            if hurried or now_s >= rest.until_s or (rest.gathers and (path is None or rest.path != path)):
                yield queues, hurried
                if path is None or path[0] != uplink.changes:
                    path = self._path(now_s)
                if edges and queues.changes.count != count:
                    self._grow(queues)
                elif hurried and not changed:
                    rest.next_until_s = self._next_until_s(queues, now_s)

    def settle(self, queues: ModelQueues, *, now_s: float) -> None:
        """Notes until when a lane rests that has just been looked at."""
        rest = queues.rest
        waits = queues.any_bisected or queues.overdue.items or queues.deferred.items
        gathering = [buffer for buffer in queues.buffers if buffer.queue.items]
        # A circuit that opens has all requests placed anew; one that closes need not.
        barred = gathering and not self.function.side.circuit.serves(queues.model.name)
        changed = rest.seen != queues.changes.count
        if changed:
            self._grow(queues)
        if waits or barred or (queues.edge_later.items and self.edges.alone is None):
            rest.seen = -1
            return
        if changed:
            rest.next_until_s = self._next_until_s(queues, now_s)
        rest.gathers, rest.path = bool(gathering), self._path(now_s) if gathering else None
        rest.until_s = min([self._gathers_until_s(buffer, now_s) for buffer in gathering], default=math.inf)
        rest.seen, rest.due_s = queues.changes.count, -math.inf

    def due_s(self, due_times_s: Callable[[ModelQueues, float], Sequence[float]], *, now_s: float) -> float:
        """Returns when the next decision falls due, of all lanes; inf for never.

        Args:
            due_times_s: works out, of a lane and the present, when decisions fall due.
            now_s: the present.
        """
        path, next_s = self._path_if_idle(now_s), math.inf
        for queues in self.lanes.all:
            rest = queues.rest
            rests = rest.seen == queues.changes.count and path is not None and now_s >= queues.returning.held_s
            due_s = rest.due_s
            if not rests or now_s >= due_s or rest.due_path != path:
                due_s = math.inf
                for at_s in due_times_s(queues, now_s):
                    if now_s < at_s < due_s:
                        due_s = at_s
                if rests and self._stands(queues, now_s):
                    rest.due_s, rest.due_path = due_s, path
            if due_s < next_s:
                next_s = due_s
        return next_s

    def _stands(self, queues: ModelQueues, now_s: float) -> bool:
        """Whether what is due in a lane does not move with the present: no function batch waits for a slot."""
        has_slot = self.function.side.has_slot
        return all([has_slot(buffer, now_s=now_s) for buffer in queues.buffers])

    def _path_if_idle(self, now_s: float) -> PathState | None:
        """Returns the path where nothing puts off a batch that leaves now or later; None where something may."""
        uplink = self.function.side.uplink
        if now_s < uplink.free_at_s or now_s >= uplink.overdue_from_s:
            return None
        return self._path(now_s)

    def _path(self, now_s: float) -> PathState | None:
        """Returns the path to the functions; None where what is allowed there also depends on other things."""
        side = self.function.side
        uplink, circuit, cap, tenants = side.uplink, side.circuit, side.ledger.cap, side.ledger.tenants
        if now_s < circuit.not_before_s or circuit.probe_at_s is not None or side.quota.known:
            return None
        if cap.lease is not None or cap.capped or tenants.capped:
            return None
        known = uplink.estimate
        terms = known.bytes_per_s, known.rtt_s, known.excess_s, known.margin_s
        return (uplink.changes, uplink.free_at_s, side.max_in_flight, *terms)

    def _next_until_s(self, queues: ModelQueues, now_s: float) -> list[tuple[int, float]]:
        until_s: list[tuple[int, float]] = []
        for slot in self.edges.slots:
            batch, terms = queues.next_batches[slot.number], queues.edges[slot.edge]
            times, waiting = terms.times, []
            if times is not None and batch.items:
                waiting.append((batch.members[0], times.safe_s[min(batch.items, terms.limit)]))
            if queues.edge_later.items:
                first = queues.edge_later.first
                takes = times is not None and slot.usable(queues, first)
                # One that the slot does not take is looked at in each call.
                waiting.append((first, times.median_s[first.request.items] if times and takes else math.inf))
            for queued, takes_s in waiting:
                deadline_s = queued.request.deadline_s
                start_s = slot.start_s(queues, now_s=now_s, deadline_s=deadline_s)
                reached_s = slot.occupancy.free_at_s(now_s) + slot.grown_s
                until_s.append((slot.number, reached_s + (deadline_s - takes_s - start_s) - ROUNDING_S))
        return until_s

    def _gathers_until_s(self, buffer: FunctionBuffer, now_s: float) -> float:
        """Returns until when a gathered batch (not empty) stays as it is, if the path does."""
        if buffer.beside or buffer.queue.items >= buffer.at_once:
            return -math.inf
        side, first = self.function.side, buffer.queue.members[0]
        until_s = first.request.deadline_s
        if not side.has_slot(buffer, now_s=now_s):
            return min(until_s, side.hopeless_at_s(buffer, first))
        return min(until_s, self.function.closes_at_s(buffer, now_s=now_s))

    def _grow(self, queues: ModelQueues) -> None:
        """Adds to the growth of each slot what a lane's next batch there has grown by since it was counted."""
        counted = queues.rest.grown
        for slot in self.edges.slots:
            batch, terms = queues.next_batches[slot.number], queues.edges[slot.edge]
            if not batch.items or terms.times is None:
                counted.pop(slot.number, None)
                continue
            first_s, takes_s = batch.members[0].request.deadline_s, terms.times.median_s[min(batch.items, terms.limit)]
            before = counted.get(slot.number)
            # One that has become more urgent than others were until now puts them off by all its seconds.
            grown_s = takes_s if before is None or first_s < before[0] else takes_s - before[1]
            if grown_s > 0.0:
                slot.grown_s += grown_s
            counted[slot.number] = first_s, takes_s
