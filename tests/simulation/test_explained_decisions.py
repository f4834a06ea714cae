"""What is kept of every request of a run agrees with what happened to it, and there are words for all of it."""

from dataclasses import replace

import pytest

from scheduler.dispatch.decision_ring import ANSWERED
from scheduler.domain.plans import ServiceClass
from scheduler.domain.requests import Backend
from scheduler.engine import Engine
from scheduler.explain.text import CAUSES, OUTCOMES, PLACES, describe
from scheduler.simulator.faults import Fault
from scheduler.simulator.scenario import MODEL, Scenario, SimulatedClass, SpendCaps
from scheduler.simulator.shell import Simulation
from scheduler.simulator.world import generators, make_backends, make_requests
from scheduler.workloads import poisson

CLASSES = (
    SimulatedClass(ServiceClass("high"), priority=1),
    SimulatedClass(ServiceClass("low", serve_late=True), priority=3),
    SimulatedClass(ServiceClass("local", edge_only=True)),
    SimulatedClass(ServiceClass("patient", slo_s=5.0, deferrable=True)),
)
PLACES_OF = {Backend.EDGE: {"edge", "waiting", "late", "deferred"}, Backend.FUNCTION: {"function", "late"}}
ROUGH = Scenario(
    classes=CLASSES,
    edge_noise=0.2,
    function_noise=0.25,
    rtt_s=0.02,
    edge_faults=(Fault("slow", 2.0, 3.0, 30.0), Fault("down", 5.0, 6.0)),
    function_faults=(Fault("throttle", 6.5, 7.0), Fault("slow", 7.5, 8.5, 8.0)),
)


@pytest.mark.parametrize(
    "caps", [SpendCaps(), SpendCaps(2e-4, None, "refuse-low-priority")], ids=["uncapped", "capped"]
)
def test_every_request_is_explained_by_what_happened_to_it(caps: SpendCaps) -> None:
    scenario = replace(ROUGH, caps=caps)
    settings = scenario.engine_settings()
    engine = Engine(settings)
    edge, functions = make_backends(scenario, settings)
    requests = make_requests(scenario, poisson(70.0, rng=generators(1)[0], requests=800))
    journal = Simulation(engine=engine, requests=requests, edge=edge, functions=functions).run()
    causes = set()
    for request in requests:
        kept = engine.explanation(request.request_id)
        assert kept is not None
        refusal = journal.refusals.get(request.request_id)
        assert kept.outcome == (ANSWERED if refusal is None else refusal.kind.value)
        assert kept.ended_at_s == journal.ended_at_s[request.request_id]
        assert kept.decisions[0].cause == "arrival"
        assert kept.decisions[0].at_s == request.arrived_at_s
        if refusal is None:
            assert journal.answered_by[request.request_id] in [s.batch.batch_id for s in kept.sendings]
        for sending in kept.sendings:
            assert sending.batch == journal.batches[sending.batch.batch_id].batch
            [*before] = [d.place for d in kept.decisions if d.at_s <= sending.batch.sent_at_s]
            assert PLACES_OF[sending.batch.backend] & set(before)
        assert {d.place for d in kept.decisions} <= PLACES.keys()
        assert kept.outcome in {ANSWERED, *OUTCOMES}
        causes |= {d.cause for d in kept.decisions}
        assert str(MODEL) not in describe(kept)
    assert {"arrival", "failure"} <= causes <= CAUSES.keys()
