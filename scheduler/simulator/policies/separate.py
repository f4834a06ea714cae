"""K engines that know nothing of each other: one for each slot of each edge server, arrivals dealt to them in turn.

It is what K daemons behind a round-robin balancer do. Unlike servers are dealt arrivals in proportion to their speed.
Each engine has its own queues and estimates; functions, uplink and quota are shared, and a spend cap is shared out.

`separate` deals blindly: the engine of a server that is away sends by function. `separate-oracle` has the engine of
`log-oracle` in each place, and deals only to servers that answer at the moment, while one does.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from scheduler.domain.messages import (
    AnswerRequest,
    BatchFailed,
    BatchFinished,
    BillArrived,
    BillCorrected,
    Command,
    ComputePlan,
    Message,
    PlanComputed,
    ProbeMeasured,
    RequestArrived,
    SendBatch,
    SendProbe,
)
from scheduler.domain.requests import EDGE_NAME, Backend, Place, Request
from scheduler.engine import Engine
from scheduler.simulator.faults import Faults
from scheduler.simulator.policies.oracle_control import oracle_control
from scheduler.simulator.scenario import EdgeServer, Scenario, SimulatedModel, SpendCaps

ONLY_EDGE = Place.edge(EDGE_NAME)
"""The edge as each engine knows it."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One batch at a time on one edge server.

    Attributes:
        server: the server.
        speed: of each model on it, in batches a second of the size that the fastest serves in half the SLO; 0 if it
            does not serve the model.
    """

    server: EdgeServer
    speed: Mapping[str, float]


class Separate:
    """The engines, and what they have under way."""

    def __init__(self, engines: Sequence[Engine], names: Sequence[str] | None, dealt: Mapping[int, int]) -> None:
        """Stores the engines.

        Args:
            engines: each for one edge server that serves one batch at a time, or each for all edge servers.
            names: of their edge servers; several engines may share one. None: each knows all by their names.
            dealt: number of the engine that a request goes to, by request id.
        """
        self._engines, self._dealt = engines, dealt
        self._edges = None if names is None else [Place.edge(name) for name in names]
        self._due_s: list[float | None] = [0.0] * len(engines)
        self._probing: dict[Place, deque[int]] = {}
        """Engines that wait for the result of a probe, by the place that was asked."""

    def handle(self, messages: Sequence[Message], now_s: float) -> list[Command]:
        """Takes the messages of one moment and returns the commands to perform."""
        parts: dict[int, list[Message]] = {
            number: [] for number, due_s in enumerate(self._due_s) if due_s is not None and due_s <= now_s
        }
        for message in messages:
            number, own = self._addressed(message)
            parts.setdefault(number, []).append(own)
        commands = []
        for number in sorted(parts):
            commands += [self._sent(number, made) for made in self._engines[number].handle(parts[number], now_s)]
            self._due_s[number] = self._engines[number].next_wakeup_s()
        return commands

    def next_wakeup_s(self) -> float | None:
        """Returns the time of the next call if no message arrives earlier; None for never."""
        return min((due_s for due_s in self._due_s if due_s is not None), default=None)

    def _addressed(self, message: Message) -> tuple[int, Message]:
        """Returns the engine that a message is for, and the message as it knows it."""
        count = len(self._engines)
        match message:
            case RequestArrived(request):
                return self._dealt[request.request_id], message
            case BatchFinished() | BatchFailed() | BillArrived():
                own_id, number = divmod(message.batch_id, count)
                return number, replace(message, batch_id=own_id)
            case PlanComputed(plan):
                own_id, number = divmod(plan.plan_id, count)
                return number, PlanComputed(replace(plan, plan_id=own_id))
            case ProbeMeasured(place):
                named = self._edges is None or place.backend is not Backend.EDGE
                own_place = place if named else ONLY_EDGE
                return self._probing[place].popleft(), replace(message, place=own_place)
            case _:
                raise AssertionError(f"the simulated world sends no {type(message).__name__}")

    def _sent(self, number: int, command: Command) -> Command:
        """Returns a command as the world knows it: with ids that no two engines share, and the name of its edge."""
        count = len(self._engines)
        match command:
            case AnswerRequest() | BillCorrected():
                return replace(command, batch_id=command.batch_id * count + number)
            case SendBatch(batch):
                place = self._in_the_world(batch.place, number)
                return SendBatch(replace(batch, batch_id=batch.batch_id * count + number, place=place))
            case ComputePlan():
                return replace(command, plan_id=command.plan_id * count + number)
            case SendProbe(place):
                asked = self._in_the_world(place, number)
                self._probing.setdefault(asked, deque()).append(number)
                return replace(command, place=asked)
            case _:
                return command

    def _in_the_world(self, place: Place, number: int) -> Place:
        return place if self._edges is None or place.backend is not Backend.EDGE else self._edges[number]


def separate(scenario: Scenario, requests: Sequence[Request]) -> Separate:
    """Returns the policy, `separate` or `separate-oracle` as the scenario says, for the requests that will arrive."""
    slots, oracle = slots_of(scenario), scenario.policy == "separate-oracle"
    dealt = deal(requests, slots, living=oracle)
    engines = []
    for number, slot in enumerate(slots):
        alone = scenario_of_slot(scenario, slot.server, len(slots))
        own = [request for request in requests if dealt[request.request_id] == number] if oracle else ()
        engines.append(Engine(alone.engine_settings(), oracle_control(alone, own) if oracle else None))
    return Separate(engines, [slot.server.name for slot in slots], dealt)


def slots_of(scenario: Scenario) -> list[Slot]:
    """Returns every slot; in turn over the servers, so that slots of one server are not dealt to in a row."""
    models, servers = scenario.served(), scenario.edge_servers()
    speeds = {model.name: _speeds(model, servers) for model in models}
    return [
        Slot(server, {name: speed[server.name] for name, speed in speeds.items()})
        for turn in range(max(server.parallel for server in servers))
        for server in servers
        if turn < server.parallel
    ]


def _speeds(model: SimulatedModel, servers: Sequence[EdgeServer]) -> dict[str, float]:
    """Returns how many batches a second each server serves of the size that the fastest serves in half the SLO."""
    laws = {server.name: server.latency_of(model) for server in servers}
    there = [law for law in laws.values() if law is not None]
    half_s = min(kind.service_class.slo_s for kind in model.classes) / 2
    size = 1
    while any(size < law.max_batch and law.predict_s(size + 1) <= half_s for law in there):
        size += 1
    return {name: 0.0 if law is None else 1.0 / law.predict_s(size) for name, law in laws.items()}


def scenario_of_slot(scenario: Scenario, server: EdgeServer, count: int) -> Scenario:
    """Returns the scenario as the engine of one slot knows it: one edge server that serves one batch at a time."""
    return replace(
        scenario,
        policy="log-oracle",
        edges=(),
        edge_parallel=1,
        edge_noise=server.noise,
        edge_faults=server.faults,
        edge_decode_s=server.decode_s,
        edge_lan_s=server.lan_s,
        edge_ahead=server.ahead,
        models=tuple(replace(model, edge_latency=server.latency_of(model)) for model in scenario.served()),
        caps=caps_of_each(scenario.caps, count),
    )


def caps_of_each(caps: SpendCaps, count: int) -> SpendCaps:
    """Returns the caps of each of so many engines that share some."""
    return replace(
        caps,
        per_hour_cny=None if caps.per_hour_cny is None else caps.per_hour_cny / count,
        per_day_cny=None if caps.per_day_cny is None else caps.per_day_cny / count,
    )


def deal(requests: Iterable[Request], slots: Sequence[Slot], *, living: bool) -> dict[int, int]:
    """Returns the number of the slot for each request, by its id: smoothly in turn, in proportion to the speeds.

    Args:
        requests: in order of arrival.
        slots: that they are dealt to.
        living: whether slots of servers that are down when a request arrives are passed over.
    """
    away = {slot.server.name: Faults(slot.server.faults) for slot in slots}
    credits = {model: [0.0] * len(slots) for model in slots[0].speed}
    dealt = {}
    for request in requests:
        credit = credits[request.model]
        serving = [n for n, slot in enumerate(slots) if slot.speed[request.model] > 0] or list(range(len(slots)))
        if living:
            up = [n for n in serving if not away[slots[n].server.name].is_down(request.arrived_at_s)]
            serving = up or serving
        speeds = [slots[n].speed[request.model] or 1.0 for n in serving]
        for n, speed in zip(serving, speeds, strict=True):
            credit[n] += speed
        # Rounding errors must not decide between slots whose turn it is alike.
        most = max(credit[n] for n in serving)
        chosen = next(n for n in serving if math.isclose(credit[n], most, abs_tol=1e-9 * sum(speeds)))
        credit[chosen] -= sum(speeds)
        dealt[request.request_id] = chosen
    return dealt
