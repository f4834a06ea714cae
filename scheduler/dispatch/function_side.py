"""The functions: any number at once, each paid for, all behind one uplink."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scheduler.dispatch.batch_economics import BatchEconomics
from scheduler.dispatch.circuit_breaker import Circuit
from scheduler.dispatch.forecast import Slots, UplinkOccupancy
from scheduler.dispatch.function_buffer import Buffer
from scheduler.dispatch.keep_warm import WANTED_MEMORY_S
from scheduler.dispatch.ledger import Ledger
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.queue import QueuedRequest
from scheduler.dispatch.request_table import Sender
from scheduler.dispatch.spend_cap import Closed, OverCap, SpendVerdict, closed, course
from scheduler.domain.requests import Backend

AT_MOST = 0.995
"""Percentile of the service that is held back from the spend caps until the bill is known."""
REFUSAL_WEIGHT = 8.0
"""What a refusal weighs, in the cheapest requests: more than any function, less than a late answer that is one too
many."""
ALWAYS_TRIED = 0.08
"""Probability of being late up to which a request is sent whatever the weight: refused, it has no chance at all."""
TRY_AGAIN_S = 1.0
COLD_LOOK_S = 0.1
COLD_COUNTS, TOO_COLD, SURELY_COLD = 0.05, 0.6, 0.95
"""Probabilities of a cold start: it may explain a late answer; it is expected; nothing else explains it."""
STALL_GRACE_S = 0.05
PATIENCE_S = 60.0
"""How long past its expected end an invocation is waited for where being late is better than nothing: a GPU function's
cold start takes 10 to 30 s."""
PATIENCE_FOR_DEADLINES_S = 10.0
"""The same where an answer after the deadline is of little use, counted from the last deadline. The shell holds the
connection longer, for the bill's sake: a client that hangs up cancels the run on the platform and pays for it."""


@dataclass(slots=True)
class FunctionSide:
    """Who shares a function batch, and when it must leave."""

    uplink: UplinkOccupancy
    circuit: Circuit
    sender: Sender
    ledger: Ledger
    gathering: BatchEconomics
    max_in_flight: int
    over_cap: OverCap = OverCap.EDGE_ONLY

    def usable(self, queues: ModelQueues, queued: QueuedRequest) -> bool:
        """Whether this request may go to a function at all."""
        return self.circuit.closed and _allowed(queues, queued)

    def allowed(self, queues: ModelQueues, queued: QueuedRequest) -> bool:
        """Whether it may once the functions answer again."""
        return _allowed(queues, queued)

    def course(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> SpendVerdict:
        """Returns what may be done with this request as far as money goes, all that is gathered counted in."""
        cap = self.ledger.cap
        if cap.per_hour is None and cap.per_day is None:
            return SpendVerdict.FUNCTION
        # Whoever may not go there, or fits into no batch, asks for no money.
        if not _allowed(queues, queued):
            return SpendVerdict.FUNCTION
        cost, low_priority = self._asks_for(queues, queued)
        return course(cap, self.over_cap, cost=cost, now_s=now_s, low_priority=low_priority)

    def closed(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> Closed:
        """Returns which cap forbids to send this request, which may go to functions as far as money is not asked."""
        cost, low_priority = self._asks_for(queues, queued)
        return closed(self.ledger.cap, self.over_cap, cost=cost, now_s=now_s, low_priority=low_priority)

    def _asks_for(self, queues: ModelQueues, queued: QueuedRequest) -> tuple[float, bool]:
        """The money of all that is gathered, with this request, and whether it is of low priority."""
        own, cost = _buffer(queues, queued), 0.0
        for buffer in queues.buffers:
            joining = queues.late.items + queued.request.items if buffer is own else 0
            if buffer.cap:
                cost += self._at_most_for(buffer, buffer.gathered.items + joining)
        return cost, queued.request.priority > queues.model.default_priority

    def _at_most_for(self, buffer: Buffer, items: int) -> float:
        full, rest = divmod(items, buffer.most)
        return full * self.at_most(buffer, buffer.most) + (self.at_most(buffer, rest) if rest else 0.0)

    def at_most(self, buffer: Buffer, items: int) -> float:
        """Returns what such a batch is unlikely to exceed."""
        times = buffer.known_times
        return buffer.tier.price.cost(times.median_s[items] * math.exp(times.scatter.quantile(AT_MOST)))

    def affords(self, buffer: Buffer, items: int, *, now_s: float) -> bool:
        """Whether the spend caps allow one more batch of so many items."""
        cap = self.ledger.cap
        if cap.per_hour is None and cap.per_day is None:
            return True
        return cap.allows(self.at_most(buffer, items), now_s)

    def affords_gathered(self, buffer: Buffer, *, now_s: float) -> bool:
        """Whether they allow the next batch of those who are gathered."""
        most = max(buffer.most, buffer.gathered.first.request.items)
        return self.affords(buffer, min(buffer.gathered.items, most, buffer.cap), now_s=now_s)

    def look_for_instances(self, buffer: Buffer, *, now_s: float) -> None:
        """Asks anew, every so often, how likely a cold start is."""
        if buffer.warm is None or now_s < buffer.cold_seen_s + COLD_LOOK_S:
            return
        buffer.cold_seen_s = now_s
        buffer.cold, buffer.cold_start_s = buffer.warm.cold_probability(now_s), buffer.warm.start_s(0.5)
        self.uplink.grace_s[buffer.pool] = buffer.cold_start_s if buffer.cold > COLD_COUNTS else 0.0
        oldest_s = self.uplink.oldest_overdue_s(buffer.pool)
        if buffer.cold > COLD_COUNTS and now_s > max(oldest_s, self.uplink.back_at_s):
            # Whoever was sent first should be back if it had met a warm instance.
            buffer.cold = max(buffer.cold, SURELY_COLD)

    def takes_s(self, buffer: Buffer, *, items: int, body_bytes: int, now_s: float, cautious: bool) -> float:
        """Returns the seconds from now to the answer of such a batch: slot, uplink, transfer, round trip, service.

        What is more than one batch, because no slot is free, waits for the slots of the batches before it.
        """
        times, cap = buffer.known_times, buffer.cap
        ahead, last = (items - 1) // cap, min(items, cap)
        service_s = times.safe_s[last] + self.uplink.slack_s if cautious else times.median_s[last]
        expected_path_s = self.uplink.expected_path_s(body_bytes, now_s=now_s, slots=self._slots(buffer), ahead=ahead)
        return max(0.0, self.circuit.not_before_s - now_s) + expected_path_s + service_s

    def worth_trying(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> bool:
        """Whether being late is unlikely enough for this request to be better sent than refused.

        While the objective holds hardly anything is refused for this; once more are late than may be, who is likely to
        be late is told so at once.
        """
        if queues.serves_late(queued):
            return True
        buffer, request = _buffer(queues, queued), queued.request
        begins_s = self.uplink.begins_s(now_s, request.body_bytes, buffer.pool)
        late = self.gathering.late(buffer, request.items, request.deadline_s - begins_s)
        late_cost = queues.lateness.late_cost(request.class_name)
        return late <= ALWAYS_TRIED or late_cost * late <= REFUSAL_WEIGHT * queues.lateness.unit_cost

    def worth_finding_out(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> bool:
        """Whether to send a request that seems hopeless, because nobody would ever learn that it is not any more.

        One at a time, now and then, and only where the profile says that it could be in time.
        """
        if not self.usable(queues, queued):
            return False
        buffer = _buffer(queues, queued)
        known = len(buffer.gathered) or self.uplink.in_pool[buffer.pool] or now_s < buffer.tried_at_s + TRY_AGAIN_S
        if known or not self.has_slot(buffer, now_s=now_s):
            return False
        request = queued.request
        begins_s = self.uplink.begins_s(now_s, request.body_bytes, buffer.pool)
        return begins_s + buffer.tier.latency.predict_s(request.items) <= request.deadline_s

    def trying(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> None:
        """Notes that this request is sent to find out."""
        _buffer(queues, queued).tried_at_s = now_s

    def too_cold(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> bool:
        """Whether this request would most likely wait for an instance for too long.

        Only while something is under way that will tell: a risk that nobody tries is never unlearned.
        """
        buffer = _buffer(queues, queued)
        if buffer.cold <= TOO_COLD or buffer.warm is None or buffer.warm.busy == 0:
            return False
        return now_s + buffer.cold_start_s > self.hopeless_at_s(buffer, queued)

    def wanted(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> None:
        """Counts a request that the functions shall take or should have taken: what warming calls are sent for."""
        buffer = _buffer(queues, queued)
        buffer.wanted_items *= math.exp((buffer.wanted_at_s - now_s) / WANTED_MEMORY_S)
        buffer.wanted_items += queued.request.items
        buffer.wanted_at_s = now_s

    def in_time(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> bool:
        """Whether this request, alone in a batch sent as soon as a slot is free, can be expected in time."""
        request = queued.request
        if not self.usable(queues, queued):
            return False
        buffer = _buffer(queues, queued)
        if self.stuck(buffer, queued, now_s=now_s):
            return False
        if buffer.cold > TOO_COLD and self.too_cold(queues, queued, now_s=now_s):
            return False
        full_batches = buffer.gathered.items // buffer.cap * buffer.cap
        return request.deadline_s >= now_s + self.takes_s(
            buffer,
            items=full_batches + request.items,
            body_bytes=request.body_bytes,
            now_s=now_s,
            cautious=False,
        )

    def latest_s(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> float:
        """Returns the last moment at which this request alone can leave for a function and be in time.

        Never for one that may not.
        """
        request = queued.request
        if not _allowed(queues, queued):
            return math.inf
        return request.deadline_s - self.takes_s(
            _buffer(queues, queued), items=request.items, body_bytes=request.body_bytes, now_s=now_s, cautious=True
        )

    def hopeless_at_s(self, buffer: Buffer, queued: QueuedRequest) -> float:
        """Returns from when on this request is expected to be late even if it leaves alone, at once, by an idle way."""
        request = queued.request
        idle_path_s = self.uplink.transfer_s(request.body_bytes) + self.uplink.rtt_s
        return request.deadline_s - buffer.known_times.median_s[request.items] - idle_path_s

    def stuck(self, buffer: Buffer, queued: QueuedRequest, *, now_s: float) -> bool:
        """Whether this request waits for a slot that comes too late, if it comes at all."""
        start_s = max(now_s, self.circuit.not_before_s)
        return not self.has_slot(buffer, now_s=now_s) and start_s >= self.hopeless_at_s(buffer, queued)

    def join(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> None:
        """Adds a request to the batch being gathered; that batch leaves first if the two had better go apart."""
        buffer = _buffer(queues, queued)
        if len(buffer.gathered) and self._apart(buffer, queued, now_s=now_s):
            self.flush(buffer, queues, now_s=now_s)
        if not len(buffer.gathered):
            buffer.opened_at_s = now_s
        buffer.gathered.add(queued)
        buffer.closes_at_s = None

    def _apart(self, buffer: Buffer, queued: QueuedRequest, *, now_s: float) -> bool:
        if buffer.follows_fixed_plan:
            return not buffer.has_room(queued)
        alone = self.gathering.alone(buffer, queued, now_s=now_s)
        return self.gathering.joining(buffer, queued, now_s=now_s) > alone

    def closes_at_s(self, buffer: Buffer, *, now_s: float) -> float:
        """Returns when the batch being gathered must leave; worked out again when something in it has changed."""
        state = (buffer.gathered.items, buffer.times, self.uplink.free_at_s, self.uplink.bytes_per_s)
        closes_at_s = buffer.closes_at_s
        if closes_at_s is None or state != buffer.closing_seen:
            buffer.closes_at_s = closes_at_s = self.gathering.closes_at_s(buffer, now_s=now_s)
            buffer.closing_seen = state
        return closes_at_s

    def has_slot(self, buffer: Buffer, *, now_s: float) -> bool:
        """Whether one more batch may be in flight now."""
        return self.circuit.usable(now_s) and self.uplink.has_slot(self._slots(buffer))

    def is_due(self, buffer: Buffer, *, now_s: float) -> bool:
        """Whether the batch being gathered should leave now and can."""
        if not len(buffer.gathered) or not self.has_slot(buffer, now_s=now_s):
            return False
        if not self.affords_gathered(buffer, now_s=now_s):
            return False
        return buffer.gathered.items >= buffer.at_once or self.closes_at_s(buffer, now_s=now_s) <= now_s

    def send_one(self, buffer: Buffer, queues: ModelQueues, *, now_s: float) -> None:
        """Sends the best batch of those who have gathered; whoever is not in it stays."""
        batch = self._best_batch(buffer, queues, now_s=now_s)
        buffer.gathered.remove_all(batch)
        buffer.closes_at_s = None
        self.send(batch, buffer, queues, now_s=now_s)

    def flush(self, buffer: Buffer, queues: ModelQueues, *, now_s: float) -> None:
        """Sends all that has gathered, as far as slots are free."""
        while len(buffer.gathered) and self.has_slot(buffer, now_s=now_s):
            if not self.affords_gathered(buffer, now_s=now_s):
                return
            self.send_one(buffer, queues, now_s=now_s)

    def _best_batch(self, buffer: Buffer, queues: ModelQueues, *, now_s: float) -> list[QueuedRequest]:
        """Returns the batch that is cheapest per item, lateness included; where a plan is obeyed, all who wait.

        Slots that were all taken let more gather than one batch can carry in time. Whoever cannot be in time even
        alone leaves in a full batch when nobody else waits: it must not hold back those who still can.
        """
        savable = [q for q in buffer.gathered if not self._lost(buffer, q, now_s=now_s)]
        full = self.first_batch(buffer, queues, savable or buffer.gathered)
        if not savable or not full:
            return full or list(buffer.gathered)[:1]
        return full if buffer.follows_fixed_plan else self.gathering.cheapest_prefix(buffer, full, now_s=now_s)

    def _lost(self, buffer: Buffer, queued: QueuedRequest, *, now_s: float) -> bool:
        request = queued.request
        takes_s = self.takes_s(buffer, items=request.items, body_bytes=request.body_bytes, now_s=now_s, cautious=False)
        return now_s + takes_s > request.deadline_s

    def first_batch(self, buffer: Buffer, queues: ModelQueues, waiting: Iterable[QueuedRequest]) -> list[QueuedRequest]:
        """Returns the first of those waiting that fit in one batch of this buffer and may go to a function."""
        batch: list[QueuedRequest] = []
        items = 0
        for queued in waiting:
            if queues.buffer_of(queued) is not buffer or not _allowed(queues, queued):
                continue
            if items + queued.request.items > (buffer.most if batch else buffer.cap):
                break
            batch.append(queued)
            items += queued.request.items
        return batch

    def send(self, members: Sequence[QueuedRequest], buffer: Buffer, queues: ModelQueues, *, now_s: float) -> None:
        """Sends one batch."""
        assert not any(q.request.class_name in queues.edge_only for q in members), "edge-only data stays on the site"
        times, items = buffer.known_times, sum(q.request.items for q in members)
        body_bytes = sum(q.request.body_bytes for q in members)
        takes_s = self.takes_s(buffer, items=items, body_bytes=body_bytes, now_s=now_s, cautious=False)
        service_s = times.median_s[items]
        cost = buffer.tier.price.cost(service_s)
        batch = self.sender.send(
            members,
            backend=Backend.FUNCTION,
            now_s=now_s,
            finish_s=now_s + takes_s,
            service_s=service_s,
            give_up_at_s=_give_up_at_s(queues, members, finish_s=now_s + min(takes_s, PATIENCE_S)),
            expected_cost=cost,
            tier=buffer.tier.name,
            size_factor=buffer.plan.size_factor,
        )
        longest_s = service_s * (times.margin - 1.0) + self.uplink.slack_s + STALL_GRACE_S
        self.uplink.occupy(
            batch_id=batch.batch_id,
            body_bytes=body_bytes,
            now_s=now_s,
            finish_s=now_s + takes_s,
            overdue_s=now_s + takes_s + longest_s,
            pool=buffer.pool,
            warm=buffer.cold <= COLD_COUNTS,
        )
        self._book(batch.batch_id, buffer, cost=cost, at_most=self.at_most(buffer, items), now_s=now_s)

    def warm_up(self, buffer: Buffer, *, now_s: float) -> None:
        """Sends a warming call."""
        cost = buffer.tier.price.cost(0.0)
        idle_path_s = self.uplink.idle_path_s(0) + buffer.cold_start_s
        model, tier = buffer.pool
        batch = self.sender.send_warming(
            model=model,
            tier=tier,
            now_s=now_s,
            finish_s=now_s + idle_path_s,
            give_up_at_s=now_s + idle_path_s + PATIENCE_S,
            cost=cost,
        )
        self.uplink.occupy(
            batch_id=batch.batch_id, body_bytes=0, now_s=now_s, finish_s=now_s + idle_path_s, pool=buffer.pool
        )
        self._book(batch.batch_id, buffer, cost=cost, at_most=self.at_most(buffer, 1), now_s=now_s)

    def _book(self, batch_id: int, buffer: Buffer, *, cost: float, at_most: float, now_s: float) -> None:
        self.ledger.book(batch_id, price=buffer.tier.price, expected_cost=cost, now_s=now_s, at_most=at_most)
        if buffer.warm is not None:
            buffer.warm.sent(batch_id, now_s=now_s)
            buffer.cold_seen_s = -math.inf

    def _slots(self, buffer: Buffer) -> Slots:
        return Slots(self.max_in_flight, buffer.pool, buffer.tier.max_in_flight)


def _allowed(queues: ModelQueues, queued: QueuedRequest) -> bool:
    """Whether the request may leave the site for its buffer's functions, and fits."""
    if queued.failed_on is Backend.FUNCTION or queued.request.class_name in queues.edge_only:
        return False
    buffer = queues.buffer_of(queued)
    return buffer is not None and queued.request.items <= buffer.cap


def _buffer(queues: ModelQueues, queued: QueuedRequest) -> Buffer:
    """The buffer of a request that is allowed to have one."""
    buffer = queues.buffer_of(queued)
    if buffer is None:
        raise ValueError(f"model {queues.model.name!r} has no function")
    return buffer


def _give_up_at_s(queues: ModelQueues, members: Sequence[QueuedRequest], *, finish_s: float) -> float:
    if any(queues.serves_late(queued) for queued in members):
        return finish_s + PATIENCE_S
    last_deadline_s = max(queued.request.deadline_s for queued in members)
    return max(finish_s, last_deadline_s) + PATIENCE_FOR_DEADLINES_S
