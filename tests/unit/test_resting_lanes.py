"""Lanes in which nothing falls due are passed over, and nothing is decided otherwise for that."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.queue import QueuedRequest
from scheduler.dispatch.resting import Resting
from scheduler.domain.messages import Command, RequestArrived
from scheduler.domain.requests import Request
from scheduler.engine import Engine
from scheduler.simulator.faults import Fault
from scheduler.simulator.network import Bandwidth
from scheduler.simulator.scenario import EdgeServer, Scenario
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import poisson
from scripts.command_hash import CLASSES, COLD, NOISY
from scripts.growth import of_models
from scripts.support.steady_queue import counted_calls

FAULTS = (Fault("slow", 1.0, 1.6, 4.0), Fault("down", 2.2, 2.7))
LARGEST_RATIO = 16.0
"""Of the calls a request with twenty models to those with one. At this load, that of the README's simulations, each of
the twenty sends its own batches, and all weigh anew when their own may leave whenever one has used the uplink."""


def noisy(models: int) -> Scenario:
    """Returns a world of so many models of several classes, of which each next one has half the traffic."""
    (one,) = NOISY.served()
    named = [replace(one, name=f"m{n}", share=0.5**n, classes=CLASSES) for n in range(models)]
    return replace(NOISY, models=tuple(named), rtt_s=0.02)


def worlds() -> Iterator[tuple[str, Scenario, float]]:
    edges = EdgeServer("edge-1"), EdgeServer("edge-2")
    yield "load", noisy(6), 120.0
    yield "overload", noisy(5), 260.0
    yield "equal models", of_models(8), 200.0
    yield "two edge servers", replace(noisy(4), edges=edges), 250.0
    yield "no functions", replace(noisy(4), models=tuple(replace(m, tiers=()) for m in noisy(4).models)), 120.0
    yield "slow link", replace(noisy(4), bandwidth=Bandwidth((0.0,), (1.2e6,))), 120.0
    yield "cold starts", replace(noisy(3), cold_starts=COLD), 120.0
    yield "faults", replace(noisy(4), edge_faults=FAULTS, function_faults=FAULTS), 120.0


def commands(scenario: Scenario, rate_rps: float) -> list[tuple[float, Command]]:
    arrivals = poisson(rate_rps, rng=generators(7)[0], requests=500)
    return list(make_simulation(scenario, make_requests(scenario, arrivals), keep_commands=True).run().commands)


def calls_a_request(models: int) -> float:
    scenario = of_models(models)
    requests = make_requests(scenario, poisson(120.0, rng=generators(0)[0], requests=300))
    simulation = make_simulation(scenario, requests)
    return counted_calls(simulation.run)[1] / len(requests)


@pytest.mark.parametrize(("scenario", "rate_rps"), [world[1:] for world in worlds()], ids=[w[0] for w in worlds()])
def test_to_look_at_every_lane_in_each_call_changes_no_command(
    scenario: Scenario, rate_rps: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    resting = commands(scenario, rate_rps)

    def every_lane(self: Resting, now_s: float, *, edges: bool) -> Iterator[tuple[ModelQueues, bool]]:
        assert now_s >= 0.0
        yield from [(queues, edges) for queues in self.lanes.all]

    monkeypatch.setattr(Resting, "awake", every_lane)
    monkeypatch.setattr(Resting, "settle", lambda *_, **__: None)
    assert commands(scenario, rate_rps) == resting


@pytest.mark.parametrize("world", ["load", "overload", "equal models", "two edge servers", "no functions"])
def test_the_next_batches_of_lanes_that_rest_are_in_time(world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario, rate_rps = next((scenario, rate_rps) for name, scenario, rate_rps in worlds() if name == world)
    awake, rested = Resting.awake, []

    def checked(self: Resting, now_s: float, *, edges: bool) -> Iterator[tuple[ModelQueues, bool]]:
        seen = []
        for queues, hurried in awake(self, now_s, edges=edges):
            seen.append(queues)
            yield queues, hurried
        for queues in self.lanes.all if edges else ():
            for slot in self.edges.slots if queues not in seen else ():
                batch, terms = queues.next_batches[slot.number], queues.edges[slot.edge]
                if batch.items and terms.times is not None:
                    deadline_s = batch.first.request.deadline_s
                    start_s = slot.start_s(queues, now_s=now_s, deadline_s=deadline_s)
                    rested.append(deadline_s - start_s - terms.times.safe_s[min(batch.items, terms.limit)])

    monkeypatch.setattr(Resting, "awake", checked)
    commands(scenario, rate_rps)
    assert len(rested) > 100
    assert min(rested) >= 0.0


def test_a_lane_wakes_when_more_urgent_ones_have_grown_by_what_it_had_to_spare() -> None:
    scenario = replace(of_models(2), models=tuple(replace(model, tiers=()) for model in of_models(2).models))
    engine = Engine(scenario.engine_settings())

    def arrive(number: int, model: int, slo_s: float) -> None:
        engine.handle([RequestArrived(Request(number, f"model-{model}", 0.0, slo_s))], 0.001 * number)

    arrive(1, 0, 5.0)
    arrive(2, 0, 0.40)
    arrive(3, 1, 0.41)
    urgent, other = engine._queues.all
    assert (urgent.next_batches[0].items, other.next_batches[0].items) == (1, 1)
    resting, slot = engine._dispatcher.resting, engine._dispatcher.edges.first
    late = 0
    for number in range(4, 40):
        urgent.next_batches[0].add(QueuedRequest(Request(number, "model-0", 0.0, 5.0)))
        start_s = slot.start_s(other, now_s=0.003, deadline_s=0.41)
        if start_s + other.edges[0].known_times.safe_s[1] > 0.41:
            assert other in [queues for queues, _ in resting.awake(0.003, edges=True)]
            late += 1
    assert 0 < late < 36


def test_twenty_models_cost_a_bounded_multiple_of_one() -> None:
    one, twenty = calls_a_request(1), calls_a_request(20)
    assert twenty <= LARGEST_RATIO * one, f"{twenty:.1f} calls a request, {one:.1f} with one model"
