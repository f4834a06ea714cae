"""The value of one second of lookahead: the engine, and two variants that know the next second's arrivals.

"rule told" is the engine with the true arrivals, up to one second ahead, as its forecast for the edge's next batch.
"planned anew" solves the clairvoyant problem whenever the edge is free. Its requests are the waiting ones, the arrivals
of the next second, and after these one second of evenly spaced arrivals at the current rate. It follows the schedule
until the edge is free again. Its distance to the bound is the value of a longer lookahead. The distance of the engine
to it is the value of one second of lookahead, which no policy without knowledge of the future can gain.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scheduler.beliefs import Beliefs
from scheduler.domain.latency import FunctionTier
from scheduler.domain.messages import Command, Message, SendBatch
from scheduler.domain.requests import Backend, Request
from scheduler.engine import Engine
from scheduler.simulator.bound import PlacedBatch, clairvoyant_bound, clairvoyant_schedule
from scheduler.simulator.bound_note import bound_problem
from scheduler.simulator.policies.log_oracle import Truth
from scheduler.simulator.policies.oracle_control import OracleControl
from scheduler.simulator.policies.true_beliefs import TrueBeliefs
from scheduler.simulator.report import cheapest_per_item
from scheduler.simulator.scenario import Scenario
from scheduler.simulator.shell import Simulation
from scheduler.simulator.world import generators, make_backends, make_requests, make_simulation
from scheduler.workloads import Workload
from scripts.evaluation.options import with_slo
from scripts.evaluation.suites import SLOS_S
from scripts.evaluation.traffic import Bursty, Trace

SCALES = (2.2, 2.4, 3.0, 4.0)
LOOKAHEAD_S = 1.0
EVEN_S = 1.0
"""Seconds of evenly spaced arrivals after the known ones, so that no batch is planned as if it were the last."""
RATE_WINDOW_S = 2.0


class ToldForecast(TrueBeliefs):
    """Tells, as the rate, which requests really come until the edge is free."""

    def __init__(self, learned: Beliefs, scenario: Scenario, requests: Sequence[Request]) -> None:
        """Stores the arrivals."""
        super().__init__(learned, scenario.engine_settings(), scenario, Truth(scenario, requests))
        self._arrivals_s = [request.arrived_at_s for request in requests]
        self.edge_free_at_s = 0.0

    def recent_rps(self, model: str, now_s: float) -> float:
        """Returns the rate with which the engine forecasts the true number of arrivals until the edge is free."""
        ahead_s = self.edge_free_at_s - now_s
        if not 0 < ahead_s <= LOOKAHEAD_S:
            return super().recent_rps(model, now_s)
        joining = bisect_right(self._arrivals_s, now_s + ahead_s) - bisect_right(self._arrivals_s, now_s)
        # The engine subtracts half a standard deviation from the expected number; this adds it.
        return ((0.5 + math.sqrt(0.25 + 4.0 * joining)) / 2.0) ** 2 / ahead_s


class ToldEngine:
    """Engine with `ToldForecast`, which is told when the edge will be free."""

    def __init__(self, scenario: Scenario, requests: Sequence[Request]) -> None:
        """Stores its parts."""
        settings = scenario.engine_settings()
        control = OracleControl(settings, scenario, Truth(scenario, requests), ())
        self._forecast = control.beliefs = ToldForecast(control.beliefs, scenario, requests)
        self._engine = Engine(settings, control)

    def handle(self, messages: Sequence[Message], now_s: float) -> list[Command]:
        """Takes the messages of one moment and returns the commands to perform."""
        commands = self._engine.handle(messages, now_s)
        for command in commands:
            if isinstance(command, SendBatch) and command.batch.backend is Backend.EDGE:
                self._forecast.edge_free_at_s = command.batch.predicted_finish_s
        return commands

    def next_wakeup_s(self) -> float | None:
        """Returns the time of the next call if no message arrives earlier; None for never."""
        return self._engine.next_wakeup_s()


@dataclass(frozen=True, slots=True)
class Placed:
    """Sent batch: its backend, its requests (counted from 0), the time of sending and the time of its answer."""

    backend: Backend
    requests: tuple[int, ...]
    left_at_s: float
    finished_at_s: float


def planned_anew(
    scenario: Scenario, arrivals_s: Sequence[float], *, lookahead_s: float = LOOKAHEAD_S
) -> Iterator[Placed]:
    """Yields the batches of "planned anew", with the arrivals of the next `lookahead_s` seconds known and no noise.

    Raises:
        BoundError: no schedule keeps every request within the SLO.
    """
    waiting: list[int] = []
    came, free_s = 0, -math.inf
    while waiting or came < len(arrivals_s):
        # Without a waiting request there is nothing to decide.
        now_s = max(free_s, arrivals_s[waiting[0] if waiting else came])
        until = bisect_right(arrivals_s, now_s + lookahead_s)
        waiting += range(came, until)
        came = until
        known_s = [arrivals_s[i] for i in waiting]
        stream_s = _even_stream(arrivals_s, came, now_s=now_s, known_until_s=now_s + lookahead_s)
        schedule = _schedule(scenario, [*known_s, *stream_s], len(stream_s) / EVEN_S, now_s=now_s)
        sent: set[int] = set()
        for batch in _until_the_edge_is_free(scenario, known_s, schedule, now_s=now_s):
            requests = tuple(waiting[i] for i in batch.requests)
            sent.update(requests)
            yield replace(batch, requests=requests)
            free_s = batch.finished_at_s if batch.backend is Backend.EDGE else free_s
        waiting = [i for i in waiting if i not in sent]


def _even_stream(arrivals_s: Sequence[float], came: int, *, now_s: float, known_until_s: float) -> list[float]:
    """Returns evenly spaced arrivals after the known ones, at the recent rate; none after the last arrival."""
    since_s = max(now_s - RATE_WINDOW_S, arrivals_s[0])
    seen = bisect_right(arrivals_s, now_s) - bisect_left(arrivals_s, since_s)
    rate_rps = seen / max(now_s - since_s, 0.5)
    even = int(EVEN_S * rate_rps) if came < len(arrivals_s) else 0
    return [known_until_s + (k + 0.5) / rate_rps for k in range(even)]


def _schedule(scenario: Scenario, arrivals_s: Sequence[float], rate_rps: float, *, now_s: float) -> list[PlacedBatch]:
    """Returns the cheapest schedule for these arrivals; an edge that is free earlier at the end counts as money."""
    slo_s = scenario.classes[0].service_class.slo_s
    [model] = scenario.served()
    problem = replace(bound_problem(model, arrivals_s), begins_s=now_s)
    return clairvoyant_schedule(problem, edge_per_s=_edge_cny_per_s(scenario, rate_rps, slo_s))


def _edge_cny_per_s(scenario: Scenario, rate_rps: float, slo_s: float) -> float:
    """Returns the money that a second of the edge saves in the long run; 0 below saturation."""
    if rate_rps <= 0:
        return 0.0
    sizes = range(1, scenario.edge_latency.max_batch + 1)
    fitting = [n for n in sizes if scenario.edge_latency.predict_s(n) + n / rate_rps <= slo_s]
    served_rps = max((n / scenario.edge_latency.predict_s(n) for n in fitting), default=0.0)
    return served_rps * cheapest_per_item(scenario.tiers, slo_s=slo_s) if rate_rps > served_rps else 0.0


def _until_the_edge_is_free(
    scenario: Scenario, known_s: Sequence[float], schedule: Sequence[PlacedBatch], *, now_s: float
) -> Iterator[Placed]:
    """Yields the batches sent before the edge is free again: its first batch, and function batches until then."""
    edge_latency, tier_latency = scenario.edge_latency, _tier_of(scenario).latency
    free_s, sent = math.inf, False
    for batch in schedule:
        members = tuple(range(batch.first, min(batch.first + batch.items, len(known_s))))
        # A batch with unknown requests is sent later, when they are known; only the first batch is sent at once.
        if not members or (sent and len(members) < batch.items):
            return
        sent_s = max(known_s[members[-1]], now_s)
        if sent_s >= free_s or (batch.backend is Backend.EDGE and free_s < math.inf):
            continue
        sent = True
        if batch.backend is Backend.EDGE:
            free_s = sent_s + edge_latency.predict_s(len(members))
            yield Placed(Backend.EDGE, members, sent_s, free_s)
        else:
            yield Placed(Backend.FUNCTION, members, sent_s, sent_s + tier_latency.predict_s(len(members)))


def _tier_of(scenario: Scenario) -> FunctionTier:
    """Returns the only tier of a scenario."""
    (tier,) = scenario.tiers
    return tier


def function_cny(scenario: Scenario, batches: Sequence[Placed]) -> float:
    """Returns the cost of the function batches in CNY."""
    tier = _tier_of(scenario)
    return math.fsum(
        tier.price.cost(tier.latency.predict_s(len(batch.requests)))
        for batch in batches
        if batch.backend is Backend.FUNCTION
    )


def compared(scenario: Scenario, arrivals: Workload) -> tuple[float, float, float, float]:
    """Returns the costs of bound, engine, "rule told" and "planned anew", as fractions of all by function."""
    [model] = scenario.served()
    slo_s = scenario.classes[0].service_class.slo_s
    requests = make_requests(scenario, arrivals)
    edge, functions = make_backends(scenario, scenario.engine_settings())
    told = Simulation(engine=ToldEngine(scenario, requests), requests=requests, edge=edge, functions=functions)
    costs_cny = (
        clairvoyant_bound(bound_problem(model, arrivals.times_s)),
        make_simulation(scenario, requests).run().cost(),
        told.run().cost(),
        function_cny(scenario, list(planned_anew(scenario, arrivals.times_s.tolist()))),
    )
    whole_cny = len(requests) * cheapest_per_item(scenario.tiers, slo_s=slo_s)
    bound, ours, rule, anew = (cost_cny / whole_cny for cost_cny in costs_cny)
    return bound, ours, rule, anew


def table(trace: Path | None, requests: int) -> Iterator[str]:
    """Yields the lines of a Markdown table for each SLO and load, on a trace or on this repository's bursty traffic."""
    yield "Cost as a fraction of serving everything by function, without noise:\n"
    yield "| SLO, s | rate x | bound | ours | rule told | planned anew |\n|---|---|---|---|---|---|"
    for slo_s in SLOS_S:
        for scale in SCALES:
            traffic = Bursty(scale, requests) if trace is None else Trace(trace, scale, requests)
            arrivals_s = traffic.workload(generators(0)[0])
            figures = " | ".join(f"{part:.4f}" for part in compared(with_slo(Scenario(), slo_s), arrivals_s))
            yield f"| {slo_s:g} | {scale:g} | {figures} |"
