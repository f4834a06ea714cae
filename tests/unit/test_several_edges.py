"""Several edge servers: each has a circuit, probes, service tables, limits and a memory of its own."""

import json
from dataclasses import replace

import pytest
from support.engine_kit import ORIN, TIER, settings

from scheduler.beliefs import LearnedBeliefs, Outages
from scheduler.control import Control
from scheduler.dispatch.circuit_breaker import Circuits
from scheduler.dispatch.edge_occupancy import EdgeOccupancy
from scheduler.dispatch.uplink import UplinkOccupancy
from scheduler.domain.batches import Batch, BatchReport, Failure, FailureKind
from scheduler.domain.memory import Memory, Part
from scheduler.domain.messages import ProbeMeasured, SendProbe
from scheduler.domain.plans import EdgeSettings, EngineSettings, Limits, ModelSettings
from scheduler.domain.requests import FUNCTIONS, Place
from scheduler.domain.statistics import EdgeStatistics, ModelUp
from scheduler.estimates import Estimates
from scheduler.recollection import estimates_parts

SLOW = ORIN.slower(2.0)
NEAR, FAR = Place.edge("near"), Place.edge("far")


def two_edges() -> EngineSettings:
    """Model `m` is served by `near` and, half as fast, by `far`; model `n` by `far` only."""
    both = ModelSettings("m", edge_latency=ORIN, edge_latencies={"far": SLOW}, tiers=(TIER,))
    one = ModelSettings("n", edge_latency=ORIN, edge_latencies={"near": None})
    return EngineSettings(models=(both, one), edges=(EdgeSettings("near", 2), EdgeSettings("far")))


def slots() -> dict[str, list[EdgeOccupancy]]:
    return {"near": [EdgeOccupancy(), EdgeOccupancy()], "far": [EdgeOccupancy()]}


def circuits(of: dict[str, list[EdgeOccupancy]] | None = None) -> Circuits:
    return Circuits.closed(two_edges(), slots() if of is None else of, UplinkOccupancy())


def batch(place: Place, *, model: str = "m", number: int = 1, items: int = 4, sent_at_s: float = 0.0) -> Batch:
    return Batch(number, place, model, (1,), items, 0, sent_at_s, 1.0, 2.0, 0.1, 0.1)


GONE = Failure(FailureKind.UNREACHABLE, "gone")


def test_one_that_is_gone_is_probed_alone_and_the_others_go_on() -> None:
    it = circuits()
    assert it.failed(batch(FAR), GONE, now_s=0.0)
    assert (it.edges["near"].serves("m"), it.edges["far"].serves("m")) == (True, False)
    assert it.for_snapshot() == {"edge_up": True, "function_up": True, "edges_away": ("far",)}
    assert it.to_probe(it.next_s(0.0), idle_link=True) == [SendProbe(FAR, ("m", "n")), SendProbe(FUNCTIONS, ())]
    assert it.to_probe(5.0, idle_link=True) == []
    assert it.probed(ProbeMeasured(FAR, ok=True), now_s=1.1)
    assert not it.probed(ProbeMeasured(NEAR, ok=True), now_s=1.1)
    assert it.edges["far"].serves("m")


def test_each_says_which_models_it_answers() -> None:
    it = circuits()
    it.failed(batch(FAR), GONE, now_s=0.0)
    figures = it.figures(["m", "n"])
    assert figures["models_up"] == (
        ModelUp("m", edge_up=True, function_up=True, edges=(("near", True), ("far", False))),
        ModelUp("n", edge_up=False, function_up=None, edges=(("far", False),)),
    )
    assert figures["edge_up"]
    it.failed(batch(NEAR), GONE, now_s=0.0)
    assert not it.up()["edge_up"]


def test_the_batches_on_each_are_counted_by_slot() -> None:
    of = slots()
    it = circuits(of)
    of["near"][1].occupy(batch_id=7, now_s=0.0, finish_s=1.0)
    assert it.figures([])["edges"] == (
        EdgeStatistics("near", up=True, batches_in_flight=1, parallel=2),
        EdgeStatistics("far", up=True, batches_in_flight=0, parallel=1),
    )


def test_one_that_is_silent_is_asked_by_the_batch_that_it_has_had_longest() -> None:
    of = slots()
    it = circuits(of)
    of["near"][0].occupy(batch_id=8, now_s=2.0, finish_s=3.0)
    of["near"][1].occupy(batch_id=7, now_s=1.0, finish_s=2.0)
    due_s = it.next_s(2.0)
    assert 1.0 < due_s < 2.0 + 1e-9
    assert it.to_probe(due_s, idle_link=False) == [SendProbe(NEAR, ())]
    it.probed(ProbeMeasured(NEAR, ok=False), now_s=due_s + 1.0)
    assert not it.edges["near"].up
    assert it.edges["far"].up
    it.succeeded(batch(NEAR, number=8, sent_at_s=2.0))
    assert it.suspicion.edges["near"].mistaken == 0
    it.succeeded(batch(NEAR, number=7, sent_at_s=1.0))
    assert it.suspicion.edges["near"].mistaken == 1


def test_a_reload_keeps_the_circuits_of_those_that_stay() -> None:
    it, wanted = circuits(), two_edges()
    it.failed(batch(FAR), GONE, now_s=0.0)
    it.failed(batch(NEAR), GONE, now_s=0.0)
    it.to_probe(10.0, idle_link=False)
    it.configure(replace(wanted, edges=(EdgeSettings("new"), EdgeSettings("far"))))
    assert list(it.edges) == ["new", "far"]
    assert (it.edges["new"].up, it.edges["far"].up) == (True, False)
    assert list(it.probing) == [FAR]
    # What comes back late from the one that was removed changes nothing.
    it.probed(ProbeMeasured(NEAR, ok=False), now_s=11.0)
    it.succeeded(batch(NEAR))
    it.failed(batch(NEAR), GONE, now_s=12.0)
    assert it.edges["new"].up


def test_a_known_outage_of_one_closes_that_one() -> None:
    it = circuits()
    outages = Outages(edges_back_s={"far": 9.0})
    it.follow(outages.edge_back, functions_back_s=outages.functions_back_s)
    assert (it.edges["near"].up, it.edges["far"].up) == (True, False)
    assert outages.away(1.0) == {FAR}
    assert Outages(3.0, 5.0).away(1.0) == {Place.edge(), FUNCTIONS}
    assert Outages().away(1.0) == frozenset()


def learned() -> Estimates:
    """Returns what was learned where `far` is three times as slow as its profile, and `near` as its profile says."""
    it = Estimates(two_edges())
    for number in range(60):
        for place, law, slow in ((NEAR, ORIN, 1.0), (FAR, SLOW, 3.0)):
            report = BatchReport(elapsed_s=slow * law.predict_s(4))
            list(it.batch_finished(batch(place, number=number), report, open_since_s=float("inf")))
    return it


def seconds(it: Estimates, edge: str, model: str = "m") -> float:
    times = LearnedBeliefs(it).edge_times(model, 0.5, 0.0, edge)
    assert times is not None
    return times.median_s[4]


def test_each_has_tables_of_its_own() -> None:
    fresh, it = Estimates(two_edges()), learned()
    assert seconds(fresh, "far") == pytest.approx(2.0 * seconds(fresh, "near"), rel=0.05)
    assert seconds(it, "near") == pytest.approx(ORIN.predict_s(4), rel=0.1)
    assert seconds(it, "far") == pytest.approx(6.0 * ORIN.predict_s(4), rel=0.1)
    # What one model is like says nothing of another.
    assert seconds(it, "far", "n") == pytest.approx(seconds(fresh, "far", "n"))
    beliefs = LearnedBeliefs(it)
    assert beliefs.edge_times("n", 0.5, 0.0, "near") is None
    assert beliefs.edge_times("m", 0.5, 0.0, "elsewhere") is None


def test_a_change_is_found_on_the_one_that_changed_and_names_it() -> None:
    it, found = learned(), []
    for number in range(60):
        for place, law, slow in ((NEAR, ORIN, 1.0), (FAR, SLOW, 9.0)):
            report = BatchReport(elapsed_s=slow * law.predict_s(4))
            found += it.batch_finished(batch(place, number=number), report, open_since_s=float("inf"))
    assert [finding.cause for finding in found] == ["edge-service"]
    assert found[0].detail.startswith("m: edge far at ")


def test_plans_are_told_what_each_is_like() -> None:
    estimates = learned().models["m"].estimates()
    assert list(estimates.edges) == ["near", "far"]
    assert estimates.edge_latency == estimates.edges["near"].latency
    slower = estimates.edges["far"].latency.predict_s(4) / estimates.edges["near"].latency.predict_s(4)
    assert slower == pytest.approx(6.0, rel=0.1)


def test_a_reload_begins_afresh_with_the_one_that_is_another_and_keeps_the_rest() -> None:
    it = learned()
    it.models["m"].arrivals.update(5, 0.1)
    before, arrivals = seconds(it, "far"), it.models["m"].arrivals
    both, one = two_edges().models
    changed = replace(both, edge_latency=ORIN.slower(1.5), edge_latencies={"far": SLOW, "new": ORIN})
    edges = (EdgeSettings("far"), EdgeSettings("near"), EdgeSettings("new"))
    it.settings_changed(EngineSettings(models=(changed, one), edges=edges))
    assert it.models["m"].arrivals is arrivals
    assert seconds(it, "far") == before
    assert seconds(it, "near") == pytest.approx(1.5 * seconds(it, "new"), rel=0.05)
    it.settings_changed(EngineSettings(models=(changed, one), edges=edges[:1]))
    assert list(it.models["m"].edges) == ["far"]


def saved(it: Estimates, wanted: EngineSettings) -> dict[str, Part]:
    parts = (
        Part(each.name, each.version, each.fingerprint, json.loads(json.dumps(each.snapshot(0.0))))
        for each in estimates_parts(it, wanted)
    )
    return {part.name: part for part in parts}


def recalled(wanted: EngineSettings, parts: dict[str, Part]) -> tuple[Control, tuple[str, ...]]:
    control = Control(wanted, None, Memory(parts, 0.0))
    control.begin(0.0)
    return control, control.recalled


def test_each_is_remembered_by_its_name() -> None:
    wanted, it = two_edges(), learned()
    control, names = recalled(wanted, saved(it, wanted))
    assert {"edge:m:near", "edge:m:far", "edge:n:far"} <= set(names)
    for edge in ("near", "far"):
        times = control.beliefs.edge_times("m", 0.5, 0.0, edge)
        assert times is not None
        assert times.median_s[4] == pytest.approx(seconds(it, edge), rel=0.05)


@pytest.mark.parametrize(
    ("names", "taken"), [(("main",), True), (("box",), True), (("main", "box"), True), (("a", "b"), False)]
)
def test_what_was_saved_of_one_without_a_name_is_true_of_main_or_of_the_only_one(
    names: tuple[str, ...], *, taken: bool
) -> None:
    old = settings()
    parts = saved(Estimates(old), old)
    assert "edge:m" in parts
    wanted = replace(old, edges=tuple(map(EdgeSettings, names)))
    assert any(name.startswith("edge:m") for name in recalled(wanted, parts)[1]) is taken


def test_the_widest_of_their_limits_is_that_of_a_plan() -> None:
    control = Control(two_edges())
    limits = control.edge_takes("m", 4, "near")
    assert (limits.on_edge("near"), limits.on_edge("far")) == (4, None)
    snapshot = control.snapshot(0.0, edge_up=True, function_up=True, edges_away=("far",))
    assert snapshot.limits["m"] == Limits()
    assert (snapshot.edge_takes, snapshot.edges_away) == ({("m", "near"): 4}, ("far",))
    control.edge_takes("m", 8, "far")
    control.edge_takes("n", 2, "far")
    planned = control.snapshot(0.0, edge_up=True, function_up=True).limits
    assert (planned["m"], planned["n"]) == (Limits(edge_batch_cap=8), Limits(edge_batch_cap=2))
    control.limits_changed("m", Limits(edge_batch_cap=6))
    assert [control.limits("m").on_edge(edge) for edge in ("near", "far")] == [4, 6]
    limits = control.edge_takes("m", None, "near")
    assert (limits.on_edge("near"), limits.on_edge("far")) == (6, 6)
