"""What is promised of one process's engine and driver, looked at after each of its steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from scheduler.control import Control
from scheduler.daemon.engine_driver import EngineDriver
from scheduler.dispatch.decision_ring import DecisionRing
from scheduler.dispatch.second_tries import MOST_ATTEMPTS
from scheduler.domain.batches import Batch, FailureKind
from scheduler.domain.bills import bill_of, expected_bill
from scheduler.domain.latency import FunctionTier
from scheduler.domain.lifecycle import State
from scheduler.domain.messages import (
    AnswerRequest,
    BatchFailed,
    BatchFinished,
    BillArrived,
    Command,
    LimitsChanged,
    Message,
    RefuseRequest,
    RequestArrived,
    RequestCancelled,
    SendBatch,
    SettingsChanged,
)
from scheduler.domain.plans import EngineSettings, Limits, ModelSettings
from scheduler.domain.requests import Backend, Request
from scheduler.engine import Engine

if TYPE_CHECKING:
    from scripts.soak.world import World

SPIN = 30
"""Calls of the engine at one and the same moment, without messages, that are still not called spinning."""
HOUR_S = 3600.0
MOST_SENDS = 32
"""Sends of a request in batches that are halved, or while functions have no room: far more than any needs."""
MOST_CALLS = 20_000
"""Calls of the engines of a world, a hundred times those of most worlds."""


class WatchedEngine(Engine):
    """The engine of a world. Another one beside it gets the same messages, and is never asked for its next wake-up."""

    def __init__(
        self, settings: EngineSettings, control: Control, ring: DecisionRing | None = None, *, world: World
    ) -> None:
        """Makes the engine, and in some worlds the other one."""
        super().__init__(settings, control, ring)
        self._world = world
        self._twin = Engine(settings, Control(settings)) if world.twins else None
        world.watch = Watch(world, self, settings)

    def handle(self, messages: Sequence[Message], now_s: float) -> list[Command]:
        """Calls the engine, and looks at what it says."""
        commands = super().handle(messages, now_s)
        if self._twin is not None:
            other = self._twin.handle(messages, now_s)
            if other != commands:
                self._world.fail(f"next_wakeup_s changes decisions: {_first_unlike(commands, other)}")
            for _ in range(self._world.noise.choice((0, 1, 3))):
                self.next_wakeup_s()
        assert self._world.watch is not None
        self._world.watch.handled(messages, commands, now_s)
        return commands


class WatchedDriver(EngineDriver):
    """The driver of a world's engine: after each call, all that is promised is looked at."""

    def __init__(self, *arguments: Any, world: World, **options: Any) -> None:
        """Stores the world."""
        super().__init__(*arguments, **options)
        self._world = world

    def _run(self) -> None:
        super()._run()
        if not self._stopped:
            self._world.stepped()


class Watch:
    """What one engine was told and said."""

    def __init__(self, world: World, engine: Engine, settings: EngineSettings) -> None:
        """Starts with nothing."""
        self.world, self.engine, self.settings = world, engine, settings
        self.requests: dict[int, Request] = {}
        self.gone: set[int] = set()
        self.ended: dict[int, float] = {}
        """By request: when."""
        self.sends: dict[int, list[Batch]] = {}
        self.in_flight: dict[int, tuple[Batch, FunctionTier | None]] = {}
        self.unbilled: dict[int, tuple[Batch, FunctionTier]] = {}
        self.in_halves: set[int] = set()
        """Requests of batches that were refused for their content or their size, which are sent again in halves."""
        self.ahead: set[int] = set()
        """Batches that were sent to an edge before the one on its device was back."""
        self.too_early: set[int] = set()
        """Those of them that it refused for that."""
        self.limits: dict[str, Limits] = {}
        self.bills: dict[int, tuple[float, float, float]] = {}
        """By function batch: when it was sent, what it costs as far as is known, and what of that is an estimate."""
        self.late_before: set[tuple[str, str]] = set()
        """Models and classes that were served late before a reload."""
        self._still = 0
        self._now_s = -math.inf

    def handled(self, messages: Sequence[Message], commands: Sequence[Command], now_s: float) -> None:
        """Looks at one call of the engine."""
        self._still = self._still + 1 if now_s == self._now_s and not messages else 0
        self._now_s = now_s
        self.world.check(self._still < SPIN, f"the engine spins: {self._still} calls at {now_s}")
        self.world.check(self.world.report.engine_calls < MOST_CALLS, "the engine is called without end")
        back = set()
        for message in messages:
            self._heard(message)
            if isinstance(message, BatchFinished):
                back.add(message.batch_id)
        for command in commands:
            self._said(command, back, now_s)

    def _heard(self, message: Message) -> None:
        match message:
            case RequestArrived(request):
                self.requests[request.request_id] = request
            case RequestCancelled(request_id):
                self.gone.add(request_id)
            case BatchFinished(batch_id, report):
                batch, tier = self.in_flight.pop(batch_id)
                if tier is not None:
                    self._bill(batch, tier, bill_of(batch, tier.price, report))
                self.world.note("finished", f"{batch_id}")
            case BatchFailed(batch_id, failure, report):
                batch, tier = self.in_flight.pop(batch_id)
                if failure.kind is FailureKind.REJECTED or failure.by_size:
                    self.in_halves.update(batch.request_ids)
                if failure.kind is FailureKind.THROTTLED and batch_id in self.ahead:
                    self.too_early.add(batch_id)
                if tier is not None:
                    self.unbilled[batch_id] = batch, tier
                    self._bill(batch, tier, bill_of(batch, tier.price, report, failure.kind))
                self.world.note("failed", f"{batch_id} {failure.kind.value} {failure.message[:80]}")
            case BillArrived(batch_id, report, failure_kind):
                batch, tier = self.unbilled.pop(batch_id)
                kind = failure_kind or FailureKind.TIMEOUT
                self._bill(batch, tier, bill_of(batch, tier.price, report, kind, final=True))
            case LimitsChanged(model, limits):
                self.limits[model] = limits
            case SettingsChanged(settings):
                self.late_before |= _served_late(self.settings)
                self.settings = settings

    def _bill(self, batch: Batch, tier: FunctionTier, bill: Any) -> None:
        del tier
        self.bills[batch.batch_id] = (self.bills[batch.batch_id][0], bill.total, bill.start_estimate)
        self.world.books.paid[self.world.life, batch.batch_id] = self.bills[batch.batch_id][:2]

    def _said(self, command: Command, back: set[int], now_s: float) -> None:
        check = self.world.check
        match command:
            case SendBatch(batch):
                self._sent(batch, now_s)
            case AnswerRequest(request_id, batch_id):
                check(request_id not in self.ended, f"request {request_id} ends a second time")
                check(batch_id in back, f"request {request_id} is answered by batch {batch_id}, which is not back")
                mine = [batch.batch_id for batch in self.sends.get(request_id, [])]
                check(batch_id in mine, f"request {request_id} is answered by batch {batch_id}, which it was not in")
                self.ended[request_id] = now_s
            case RefuseRequest(request_id, refusal):
                check(request_id not in self.ended, f"request {request_id} ends a second time")
                self.ended[request_id] = now_s
                self.world.note("refused", f"{request_id} {refusal.kind.value} {refusal.message[:100]}")

    def _sent(self, batch: Batch, now_s: float) -> None:
        check, members = self.world.check, [self.requests[number] for number in batch.request_ids]
        self.world.note("sent", f"{batch.batch_id} {batch.place} {batch.model} {batch.request_ids}")
        model = next(model for model in self.settings.models if model.name == batch.model)
        tier = model.tier(batch.tier) if batch.tier else None
        for request in members:
            number = request.request_id
            check(number not in self.ended, f"request {number} is sent after its end")
            check(request.model == batch.model, f"request {number} is in a batch of another model")
            check(request.shape_id == members[0].shape_id, f"request {number} shares a batch with other shapes")
            of_class = next((each for each in model.classes if each.name == request.class_name), None)
            local = of_class is not None and of_class.edge_only
            check(batch.backend is Backend.EDGE or not local, f"request {number} left the site")
            self.sends.setdefault(number, []).append(batch)
            self._count_tries(number, model)
        ahead = [slot.occupancy.ahead_id for slot in self.engine._edges.slots if slot.occupancy.ahead_id is not None]
        if batch.batch_id in ahead:
            self.ahead.add(batch.batch_id)
        check(batch.items == sum(request.items for request in members), f"{batch} miscounts its items")
        check(batch.body_bytes == sum(request.body_bytes for request in members), f"{batch} miscounts its bytes")
        limits = self.limits.get(batch.model, Limits())
        cap = limits.edge_batch_cap if tier is None else limits.function_batch_cap
        check(cap is None or batch.items <= cap, f"{batch.items} items in a batch, the operator's limit is {cap}")
        self.in_flight[batch.batch_id] = batch, tier
        here = [each for each, _ in self.in_flight.values() if each.backend is batch.backend]
        most = 1 + bool(ahead) if tier is None else self.settings.max_function_in_flight
        check(
            len(here) <= most or self.world.reloaded, f"{len(here)} batches in flight at {batch.place}, at most {most}"
        )
        if tier is not None:
            expected = expected_bill(batch, tier.price)
            self.bills[batch.batch_id] = self.world.machine.elapsed_s(), expected.total, expected.start_estimate
            self.world.books.paid[self.world.life, batch.batch_id] = self.bills[batch.batch_id][:2]
            self._check_cap()
        check(now_s >= max((request.arrived_at_s for request in members), default=now_s), "sent before it arrived")

    def _count_tries(self, number: int, model: ModelSettings) -> None:
        """Checks that a request changes sides once, and that the tries beside that are bounded."""
        sides = [batch.backend for batch in self.sends[number] if batch.batch_id not in self.too_early]
        moves = sum(one is not other for one, other in zip(sides, sides[1:], strict=False))
        named = model.name, self.requests[number].class_name
        late = named in _served_late(self.settings) | self.late_before
        most = MOST_ATTEMPTS + 1 if late else 2 + moves
        most = MOST_SENDS if number in self.in_halves or self.world.throttled else most
        allowed = len(sides) <= most
        self.world.check(allowed, f"request {number} is sent {len(sides)} times: {[side.value for side in sides]}")

    def _check_cap(self) -> None:
        """Checks that no hour that ends now costs more than the cap, as far as is known."""
        cap, world = self.settings.spend_per_hour, self.world
        if cap is None or world.recapped:
            return
        begins_s = world.machine.elapsed_s() - HOUR_S
        spent = math.fsum(
            cost
            for (life, _), (at_s, cost) in world.books.paid.items()
            if at_s > begins_s and (life == world.life or self.settings.spend_leased)
        )
        world.check(spent <= cap * (1 + 1e-6), f"{spent:.6g} spent within an hour, the cap is {cap:.6g}")

    def check(self, bodies: set[int]) -> None:
        """Looks at the state between two calls; `bodies`: the calls whose bodies are held."""
        check, engine = self.world.check, self.engine
        table = engine._table.open
        waiting = [queued for queued in table.values() if queued.state is not State.IN_FLIGHT]
        check(engine._admission.requests == len(waiting), "the engine miscounts the requests that wait")
        held = sum(queued.request.body_bytes for queued in table.values())
        check(engine._admission.body_bytes == held, "the engine miscounts the bytes of the bodies")
        check(set(engine._outbox.in_flight) == set(self.in_flight), "batches in flight are lost")
        check(not self.ended.keys() & table.keys(), "a request that has ended is still open")
        for number, queued in table.items():
            if queued.state is State.NEW or (queued.cancelled and queued.state is not State.IN_FLIGHT):
                check(False, f"request {number} is left in state {queued.state.value}")
        early = {number for number in table.keys() - bodies if not table[number].cancelled}
        check(not early, f"the bodies of {sorted(early)} are released early")
        # Those that the engine will hear of, and those whose answers follow a batch that is being written.
        due = {number for number in bodies - table.keys() if self.ended.get(number, self._now_s) != self._now_s}
        due |= {number for number in bodies - table.keys() if number in self.gone and number in self.requests}
        check(not due, f"the bodies of {sorted(due)} are held although their requests have ended")
        known = math.fsum(cost for _, cost, _ in self.bills.values())
        estimates = math.fsum(estimate for _, _, estimate in self.bills.values())
        spent = engine._ledger.spent
        right = known - estimates - 1e-12 <= spent <= known + 1e-12
        check(right, f"the ledger says {spent:.6g}, the bills {known:.6g}, of which {estimates:.6g} is estimated")


def _served_late(settings: EngineSettings) -> set[tuple[str, str]]:
    return {(model.name, each.name) for model in settings.models for each in model.classes if each.serve_late}


def _first_unlike(ours: Sequence[Command], theirs: Sequence[Command]) -> str:
    pairs = zip([*ours, None], [*theirs, None], strict=False)
    return next((f"{one} and {other}"[:600] for one, other in pairs if one != other), "their number")
