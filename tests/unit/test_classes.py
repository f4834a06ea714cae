"""Classes and priorities: who never leaves the site, who waits for an idle edge, who gives way when not all fit."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.engine_kit import ORIN, TIER, fail, finish, sent

from scheduler.domain.batches import FailureKind
from scheduler.domain.latency import LatencyModel
from scheduler.domain.messages import Command, LimitsChanged, RequestArrived
from scheduler.domain.plans import EngineSettings, Limits, ModelSettings, ServiceClass
from scheduler.domain.requests import Backend, Request
from scheduler.engine import Engine
from scheduler.simulator.report import Row, rows
from scheduler.simulator.scenario import Scenario, SimulatedClass
from scheduler.simulator.shell import Journal
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import poisson

PATIENT = ServiceClass("patient", slo_s=10.0, deferrable=True)
URGENT = ServiceClass("urgent", slo_s=1.0)
LOCAL = ServiceClass("local", slo_s=1.0, edge_only=True)
COMPOSED_BY_DEADLINE = "an edge batch is composed by deadline alone, whoever could be served elsewhere"


def engine(*, function: bool = True, **changes: object) -> Engine:
    model = ModelSettings("m", 64, (URGENT, PATIENT, LOCAL), ORIN, (TIER,) if function else ())
    return Engine(EngineSettings((model,), **changes))  # type: ignore[arg-type]


def arrive(
    shell: Engine, at_s: float, kind: ServiceClass, *ids: int, model: str = "m", items: int = 1, priority: int = 1
) -> list[Command]:
    """Lets requests of a class arrive together."""
    each = {"items": items, "body_bytes": 1000, "class_name": kind.name, "priority": priority}
    requests = [Request(i, model, at_s, at_s + kind.slo_s, **each) for i in ids]  # type: ignore[arg-type]
    return shell.handle([RequestArrived(request) for request in requests], at_s)


def simulate(classes: tuple[SimulatedClass, ...], rate_rps: float, requests: int, **changes: object) -> Journal:
    scenario = replace(Scenario(classes=classes, edge_noise=0.1, function_noise=0.25, seed=3), **changes)  # type: ignore[arg-type]
    workload = poisson(rate_rps, rng=generators(scenario.seed)[0], requests=requests)
    return make_simulation(scenario, make_requests(scenario, workload)).run()


def test_a_deferrable_request_is_served_as_soon_as_the_edge_idles() -> None:
    shell = engine()
    [batch] = sent(arrive(shell, 0.0, PATIENT, 1))
    assert batch.backend is Backend.EDGE


def test_a_deferrable_request_gives_way_to_all_that_are_there_or_come_before_the_edge_is_free() -> None:
    shell = engine()
    [first] = sent(arrive(shell, 0.0, URGENT, 1))
    assert sent(arrive(shell, 0.01, PATIENT, 2)) == []
    assert sent(arrive(shell, 0.02, URGENT, 3)) == []
    [second] = sent(finish(shell, first, 0.06))
    assert second.request_ids == (3,)
    [third] = sent(finish(shell, second, 0.12))
    assert third.request_ids == (2,)


def test_a_batch_of_the_deferrable_takes_a_quarter_of_the_tightest_objective_at_most_whatever_model_has_it() -> None:
    tight = ModelSettings("tight", 64, (ServiceClass("tight", slo_s=0.4),), ORIN, ())
    loose = ModelSettings("m", 64, (URGENT, PATIENT), ORIN, ())
    for models, most_s in (((loose,), 0.25), ((loose, tight), 0.1)):
        shell = Engine(EngineSettings(models))
        [blocking] = sent(arrive(shell, 0.0, URGENT, 1))
        arrive(shell, 0.01, PATIENT, *range(2, 60))
        [batch] = sent(finish(shell, blocking, 0.06))
        assert 0.6 * most_s < batch.predicted_service_s <= most_s


@given(st.lists(st.tuples(st.floats(0.001, 0.3), st.booleans(), st.integers(1, 20)), min_size=1, max_size=30))
def test_a_request_that_is_not_deferrable_waits_at_most_for_one_such_batch(plan: list[tuple[float, bool, int]]) -> None:
    """Against a world in which the deferrable never came: nobody else is sent later than by a quarter second."""
    urgent: dict[bool, dict[int, float]] = {}
    for with_patient in (True, False):
        shell, now_s, flying, sent_at_s = engine(function=False), 0.0, [], {}
        for number, (gap_s, patient, count) in enumerate(plan):
            new: list[Command] = []
            while flying and flying[0].predicted_finish_s <= now_s + gap_s:
                batch = flying.pop(0)
                answer = finish(shell, batch, max(now_s, batch.predicted_finish_s))
                flying += sent(answer)
                new += answer
            now_s += gap_s
            if with_patient or not patient:
                kind = PATIENT if patient else URGENT
                came = arrive(shell, now_s, kind, *range(100 * number, 100 * number + (count if patient else 1)))
                flying += sent(came)
                new += came
            sent_at_s.update({i: b.sent_at_s for b in sent(new) for i in b.request_ids})
        urgent[with_patient] = {
            100 * n: sent_at_s[100 * n] for n, p in enumerate(plan) if not p[1] and 100 * n in sent_at_s
        }
    for request_id in urgent[True].keys() & urgent[False].keys():
        assert urgent[True][request_id] <= urgent[False][request_id] + 0.25 + 1e-9


def test_the_deferrable_are_in_time_and_cost_nothing_where_the_edge_idles_now_and_then() -> None:
    classes = (SimulatedClass(URGENT, share=3.0), SimulatedClass(replace(PATIENT, slo_s=30.0)))
    journal = simulate(classes, 40.0, 2400)
    patient = [row for row in rows(journal) if row.class_name == "patient"]
    assert all(row.within_slo for row in patient)
    assert all(row.backend == "edge" for row in patient)
    others = [row for row in rows(journal) if row.class_name == "urgent"]
    assert sum(row.within_slo for row in others) >= 0.99 * len(others)


def test_a_deferrable_request_that_the_edge_failed_goes_to_a_function_and_not_to_the_edge_again() -> None:
    shell = engine()
    [batch] = sent(arrive(shell, 0.0, PATIENT, 1))
    commands = fail(shell, batch, 0.05, FailureKind.BROKEN)
    while not sent(commands):
        commands = shell.handle([], shell.next_wakeup_s() or 0.0)
    assert [b.backend for b in sent(commands)] == [Backend.FUNCTION]


def test_of_many_deferrable_that_are_due_together_nobody_is_forgotten() -> None:
    shell = engine(function=False)
    assert sent(arrive(shell, 0.0, URGENT, 1))
    arrive(shell, 0.01, PATIENT, *range(2, 300), items=3)
    while (now_s := shell.next_wakeup_s()) is not None and now_s <= 10.01:
        shell.handle([], now_s)
    # The edge never comes back: everybody is told by the deadline, also the one that is in flight.
    assert not shell._table.open


@pytest.mark.parametrize("cap", [0, 2])
def test_an_operators_cap_holds_for_the_deferrable(cap: int) -> None:
    shell = engine()
    shell.handle([LimitsChanged("m", Limits(edge_batch_cap=cap))], 0.0)
    commands = arrive(shell, 0.1, PATIENT, 1, items=3)
    while (now_s := shell.next_wakeup_s()) is not None and now_s < 10.0 and not sent(commands):
        commands = shell.handle([], now_s)
    assert [b.backend for b in sent(commands)] == [Backend.FUNCTION]


def local_and_others() -> list[Row]:
    """Half of 180 requests a second are edge-only; the edge serves 112 a second."""
    return list(rows(simulate((SimulatedClass(LOCAL), SimulatedClass(URGENT)), 180.0, 2500)))


def test_in_deep_overload_no_edge_only_request_leaves_and_the_others_do() -> None:
    places = Counter((row.class_name, row.backend) for row in local_and_others())
    assert places["local", "function"] == 0
    assert places["urgent", "function"] > 300


def test_in_overload_the_edge_is_for_those_whom_nobody_else_may_serve() -> None:
    local = [row for row in local_and_others() if row.class_name == "local"]
    assert sum(row.within_slo for row in local) >= 0.96 * len(local), "more than the first seconds of learning cost"


@pytest.mark.parametrize("seed", range(2))
def test_without_functions_what_is_refused_in_overload_is_of_low_priority(seed: int) -> None:
    """High priority alone would fit: the edge serves 100 a second, 50 of high and 100 of low priority come."""
    classes = (SimulatedClass(replace(URGENT, name="high"), priority=1), SimulatedClass(URGENT, priority=3, share=2.0))
    journal = simulate(classes, 150.0, 3000, tiers=(), seed=seed)
    of = {name: [row for row in rows(journal) if row.class_name == name] for name in ("high", "urgent")}
    lost = {name: 1 - sum(row.within_slo for row in of[name]) / len(of[name]) for name in of}
    assert lost["urgent"] > 0.2
    assert lost["high"] < 0.02


def test_a_request_of_high_priority_takes_a_place_in_a_full_next_batch() -> None:
    law = LatencyModel(0.1, 0.1, 4)
    shell = Engine(EngineSettings((ModelSettings("m", 4, (URGENT,), law, ()),)))
    [first] = sent(arrive(shell, 0.0, URGENT, 1, priority=2))
    arrive(shell, 0.01, URGENT, 2, 3, 4, 5, priority=2)
    arrive(shell, 0.02, URGENT, 6, priority=1)
    [second] = sent(finish(shell, first, 0.2))
    assert 6 in second.request_ids
