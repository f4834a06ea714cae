"""Gathers requests for function batches and sends the batches."""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypedDict

from scheduler.dispatch.function_buffer import COLD_COUNTS, FunctionBuffer, items_of
from scheduler.dispatch.function_side import FunctionSide, buffer_of, first_batch
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.outbox import InFlightBatch, Outbox, Sending
from scheduler.dispatch.own_lateness import OwnLateness
from scheduler.dispatch.queue import QueuedRequest
from scheduler.dispatch.shared_pool import batches_ahead
from scheduler.dispatch.suspicion import HUNG_PERCENTILE
from scheduler.dispatch.tenant_money import Parts
from scheduler.domain.batches import Batch, WhyLeft

STALL_GRACE_S = 0.05
"""How much later than its safe service a batch may be back before the link is taken to have stalled. Judgement: halved
or doubled, cost and lateness stay within noise."""
PATIENCE_S = 60.0
"""How long past its expected end an invocation is waited for where being late is better than nothing: a GPU function's
cold start takes 10 to 30 s. Judgement: no simulated start is that slow; with 5 s no simulation differs."""
LONG_START = 2.0
"""A start that takes so many times the median is not thought to hang, however little those that were seen scatter.
Judgement: of sparse requests each may meet a start, and a circuit that opens by mistake loses the next one."""
UNKNOWN_START_S = 30.0
"""Seconds of a start while none has been seen. Judgement: that of a GPU function takes 10 to 30 s."""
PATIENCE_FOR_DEADLINES_S = 10.0
"""The same where an answer after the deadline is of little use, counted from the last deadline. The shell holds the
connection longer, for the bill's sake: a client that hangs up cancels the run on the platform and pays for it.
Judgement: it guards functions that hang."""


@dataclass(slots=True)
class FunctionSending:
    """Which requests share a function batch, when it leaves, and what is booked for it."""

    side: FunctionSide
    outbox: Outbox
    lateness: OwnLateness = field(default_factory=OwnLateness)

    def join(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> None:
        """Adds a request to the batch being gathered; that batch leaves first if the two had better go apart."""
        buffer = buffer_of(queues, queued)
        if len(buffer.queue) and self._apart(buffer, queued, now_s=now_s):
            self.flush(buffer, queues, now_s=now_s, why=WhyLeft.APART)
        buffer.join(queued, now_s=now_s)

    def try_out(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> None:
        """Sends a request at once to find out whether its tier is still as slow as it seems; nothing may be gathered.

        What waits for company tells nothing, and all that come meanwhile are refused.
        """
        buffer = buffer_of(queues, queued)
        buffer.tried_at_s = now_s
        buffer.join(queued, now_s=now_s)
        self.flush(buffer, queues, now_s=now_s, why=WhyLeft.TRIAL)

    def tried(self, sent: InFlightBatch, queues: ModelQueues, *, now_s: float) -> None:
        """Notes that a batch came back: a trial that was in time after all asks for more of them."""
        batch, buffer = sent.batch, queues.buffer_of(sent.members[0])
        if buffer is not None and batch.why_left is WhyLeft.TRIAL and now_s <= batch.deadline_s:
            buffer.tried_at_s = -math.inf

    def _apart(self, buffer: FunctionBuffer, queued: QueuedRequest, *, now_s: float) -> bool:
        if buffer.follows_fixed_plan:
            return not buffer.has_room(queued)
        economics = self.side.economics
        alone = economics.alone(buffer, queued, now_s=now_s).total
        return economics.joining(buffer, queued, now_s=now_s) > alone

    def closes_at_s(self, buffer: FunctionBuffer, *, now_s: float) -> float:
        """Returns when the batch being gathered must leave; worked out again when something in it has changed."""
        uplink, ahead = self.side.uplink, batches_ahead(buffer)
        path = uplink.free_at_s, uplink.estimate.bytes_per_s
        state = (buffer.queue.items, buffer.times, path, buffer.pool_state, ahead)
        closes_at_s = buffer.closes_at_s(state)
        if closes_at_s is None:
            closes_at_s, why = self.side.economics.closes(buffer, now_s=now_s, ahead=ahead)
            if not buffer.follows_fixed_plan:
                # A timer that is late makes the members late.
                closes_at_s = max(min(closes_at_s, now_s), closes_at_s - self.lateness.slack_s)
            buffer.close_at(closes_at_s, why, state)
        return closes_at_s

    def due_for(self, buffer: FunctionBuffer, *, now_s: float) -> WhyLeft | None:
        """Returns why the batch being gathered should leave now; None: it should not, or cannot."""
        if not buffer.queue.items or not self.side.has_slot(buffer, now_s=now_s):
            return None
        if not self.side.affords_gathered(buffer, now_s=now_s):
            return None
        if buffer.queue.items >= buffer.at_once:
            return WhyLeft.FULL if buffer.queue.items >= buffer.max_items else WhyLeft.TIMER
        return buffer.closes_for if self.closes_at_s(buffer, now_s=now_s) <= now_s else None

    def send_best(self, buffer: FunctionBuffer, queues: ModelQueues, *, now_s: float, why: WhyLeft) -> None:
        """Sends the best batch of the gathered requests; the others stay."""
        batch = self._best_batch(buffer, queues, now_s=now_s)
        buffer.take(batch)
        if why is WhyLeft.FULL and not buffer.filled_by(batch):
            why = WhyLeft.PRICE
        self.send(batch, buffer, queues, now_s=now_s, why=why)

    def flush(self, buffer: FunctionBuffer, queues: ModelQueues, *, now_s: float, why: WhyLeft) -> None:
        """Sends all that has gathered, as far as slots are free."""
        while len(buffer.queue) and self.side.has_slot(buffer, now_s=now_s):
            if not self.side.affords_gathered(buffer, now_s=now_s):
                return
            self.send_best(buffer, queues, now_s=now_s, why=why)

    def _best_batch(self, buffer: FunctionBuffer, queues: ModelQueues, *, now_s: float) -> list[QueuedRequest]:
        """Returns the batch that is cheapest per item, lateness included; under a fixed plan, all that wait.

        Slots that were all taken let more gather than one batch can carry in time. A request that cannot be in time
        even alone leaves in a full batch when no other waits: it must not hold back those that still can.
        """
        full = first_batch(buffer, queues, self._savable(buffer, now_s=now_s))
        if not full:
            return first_batch(buffer, queues, buffer.queue) or [buffer.queue.first]
        full = self._carried(buffer, full, now_s=now_s)
        if buffer.follows_fixed_plan:
            return full
        # What is kept for a late answer is not there for a longer service.
        begins_s = now_s + self.lateness.of_answers_s
        return self.side.economics.cheapest_prefix(buffer, full, now_s=begins_s)

    def _carried(self, buffer: FunctionBuffer, batch: list[QueuedRequest], *, now_s: float) -> list[QueuedRequest]:
        """Returns the first of `batch` that the uplink can carry in time for the first; that one at least."""
        uplink, median_s = self.side.uplink, buffer.known_times.median_s
        deadline_s = batch[0].request.deadline_s
        items, body_bytes, own_bytes = items_of(batch), sum([q.request.body_bytes for q in batch]), 0
        count = len(batch)
        while count > 1 and uplink.begins_s(now_s, body_bytes, buffer.pool) + median_s[items] > deadline_s:
            own_bytes = own_bytes or batch[0].request.body_bytes
            if uplink.begins_s(now_s, own_bytes, buffer.pool) + median_s[items] > deadline_s:
                break  # late for another reason than its bytes
            count -= 1
            items -= batch[count].request.items
            body_bytes -= batch[count].request.body_bytes
        return batch[:count]

    def _savable(self, buffer: FunctionBuffer, *, now_s: float) -> Iterator[QueuedRequest]:
        """Iterates over the gathered requests that can be in time alone, earliest deadline first."""
        members, lost = buffer.queue.members, self.side.lost
        first = 0
        if members and lost(buffer, members[0], now_s=now_s):
            # With more time left, fewer are lost: there is no need to ask about each of thousands.
            first = bisect_left(members, True, key=lambda queued: not lost(buffer, queued, now_s=now_s))
        return (q for q in islice(members, first, None) if not lost(buffer, q, now_s=now_s))

    def send(
        self,
        members: Sequence[QueuedRequest],
        buffer: FunctionBuffer,
        queues: ModelQueues,
        *,
        now_s: float,
        why: WhyLeft,
    ) -> None:
        """Sends one batch."""
        assert not any(q.request.class_name in queues.edge_only for q in members), "edge-only data stays on the site"
        side, times, items = self.side, buffer.known_times, items_of(members)
        body_bytes = sum([q.request.body_bytes for q in members])
        takes_s = side.takes_s(buffer, items=items, body_bytes=body_bytes, now_s=now_s, safe=False)
        service_s = times.median_s[items]
        cost = buffer.tier.price.cost(service_s)
        batch = self.outbox.send(
            members,
            Sending(
                place=buffer.place,
                now_s=now_s,
                finish_s=now_s + takes_s,
                service_s=service_s,
                give_up_at_s=_give_up_at_s(queues, members, finish_s=now_s + min(takes_s, PATIENCE_S)),
                why_left=why,
                expected_cost=cost,
                size_factor=buffer.plan.size_factor,
                **_start_terms(buffer, now_s=now_s),
            ),
        )
        longest_s = service_s * (times.margin - 1.0) + side.uplink.estimate.margin_s + STALL_GRACE_S
        overdue_s = now_s + takes_s + longest_s
        side.uplink.occupy(
            batch_id=batch.batch_id,
            body_bytes=body_bytes,
            now_s=now_s,
            finish_s=now_s + takes_s,
            overdue_s=overdue_s,
            pool=buffer.pool,
            warm=buffer.cold <= COLD_COUNTS,
            hung_s=overdue_s
            + service_s * math.expm1(times.scatter.quantile(HUNG_PERCENTILE))
            + _start_may_take_s(buffer),
        )
        parts, max_cost = side.ledger.tenants.parts(members), side.max_cost(buffer, items)
        self._book(batch, buffer, max_cost=max_cost, parts=parts, now_s=now_s)
        self._occupy_instance(batch.batch_id, buffer, now_s=now_s, back_s=overdue_s)

    def warm_up(self, buffer: FunctionBuffer, *, now_s: float) -> None:
        """Sends a warming call."""
        uplink, cost = self.side.uplink, buffer.tier.price.cost(0.0)
        takes_s = uplink.idle_path_s(0) + buffer.cold_start_s
        finish_s = now_s + takes_s
        sending = Sending(
            place=buffer.place,
            now_s=now_s,
            finish_s=finish_s,
            service_s=0.0,
            give_up_at_s=now_s + min(takes_s, PATIENCE_S) + PATIENCE_S,
            why_left=WhyLeft.WARMING,
            expected_cost=cost,
            **_start_terms(buffer, now_s=now_s),
        )
        batch = self.outbox.send_warming(buffer.model.name, sending)
        uplink.occupy(batch_id=batch.batch_id, body_bytes=0, now_s=now_s, finish_s=finish_s, pool=buffer.pool)
        self._book(batch, buffer, max_cost=self.side.max_cost(buffer, 1), now_s=now_s)
        back_s = now_s + uplink.idle_path_s(0) + uplink.estimate.margin_s + STALL_GRACE_S
        self._occupy_instance(batch.batch_id, buffer, now_s=now_s, back_s=back_s)

    def _book(
        self,
        batch: Batch,
        buffer: FunctionBuffer,
        *,
        max_cost: float,
        now_s: float,
        parts: Parts = (),
    ) -> None:
        self.side.ledger.book(
            batch,
            buffer.tier.price,
            now_s=now_s,
            max_cost=max_cost,
            parts=parts,
            on_provisioned=buffer.warm is not None and not buffer.may_start,
        )
        if self.side.quota.known:
            self.side.quota.sent(batch.batch_id, buffer.pool, now_s=now_s)

    @staticmethod
    def _occupy_instance(batch_id: int, buffer: FunctionBuffer, *, now_s: float, back_s: float) -> None:
        if buffer.warm is not None:
            buffer.warm.sent(batch_id, now_s=now_s, back_s=back_s)


class _StartTerms(TypedDict):
    """What is known of a cold start when a batch leaves; the fields of a Sending."""

    cold_risk: float
    start_s: float
    init_s: float


def _start_terms(buffer: FunctionBuffer, *, now_s: float) -> _StartTerms:
    warm = buffer.warm
    if warm is None:
        return {"cold_risk": 0.0, "start_s": 0.0, "init_s": 0.0}
    cold_risk = warm.cold_probability(now_s) if buffer.may_start else 0.0
    return {"cold_risk": cold_risk, "start_s": warm.start_s(0.5), "init_s": warm.init_s(0.5)}


def _give_up_at_s(queues: ModelQueues, members: Sequence[QueuedRequest], *, finish_s: float) -> float:
    if any(queues.serves_late(queued) for queued in members):
        return finish_s + PATIENCE_S
    last_deadline_s = max(queued.request.deadline_s for queued in members)
    return max(finish_s, last_deadline_s) + PATIENCE_FOR_DEADLINES_S


def _start_may_take_s(buffer: FunctionBuffer) -> float:
    """Returns the seconds that a cold start may explain of a batch's being late; 0 where it surely meets none."""
    if buffer.warm is None or not buffer.may_start or buffer.cold <= COLD_COUNTS:
        return 0.0
    if not buffer.warm.starts_seen:
        return UNKNOWN_START_S
    starts, unit_s = buffer.starts
    return max(LONG_START * buffer.cold_start_s, unit_s * math.exp(starts.quantile(HUNG_PERCENTILE)))
