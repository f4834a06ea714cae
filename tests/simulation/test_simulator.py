"""The daemon's engine under virtual time: same seed same commands, every request ends once, figures are reached."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scheduler import cli
from scheduler.domain.batches import FailureKind
from scheduler.domain.errors import RefusalKind
from scheduler.domain.latency import FunctionTier, LatencyModel
from scheduler.domain.messages import BatchFailed
from scheduler.domain.plans import ServiceClass
from scheduler.domain.requests import Backend
from scheduler.simulator.backends import ColdStarts
from scheduler.simulator.faults import Fault
from scheduler.simulator.network import constant, steps
from scheduler.simulator.report import cheapest_per_item, rows, summarise
from scheduler.simulator.scenario import (
    FUNCTION_LATENCY,
    FUNCTION_PRICE,
    Scenario,
    ScenarioError,
    SimulatedClass,
)
from scheduler.simulator.scenario_file import read_scenario
from scheduler.simulator.shell import Journal
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import poisson

NOISY = Scenario(edge_noise=0.1, function_noise=0.25, seed=3)


def run(scenario: Scenario, *, rate_rps: float, requests: int, keep_commands: bool = False) -> Journal:
    workload = poisson(rate_rps, rng=generators(scenario.seed)[0], requests=requests)
    simulation = make_simulation(scenario, make_requests(scenario, workload), keep_commands=keep_commands)
    return simulation.run()


def with_only(place: Backend | None, scenario: Scenario) -> Scenario:
    """The engine where there is nothing but one of the two places; None leaves both."""
    [model] = scenario.served()
    if place is None:
        return scenario
    alone = replace(model, tiers=()) if place is Backend.EDGE else replace(model, edge_latency=None)
    return replace(scenario, models=(alone,))


def figures(scenario: Scenario, *, rate_rps: float, requests: int) -> dict[str, object]:
    return summarise(run(scenario, rate_rps=rate_rps, requests=requests), scenario, wall_s=0.0)


def test_same_seed_gives_the_same_commands_at_the_same_times() -> None:
    scenario = replace(NOISY, bandwidth=constant(2.0), edge_faults=(Fault("down", 2.0, 4.0),))
    first, second = (run(scenario, rate_rps=130, requests=1500, keep_commands=True) for _ in range(2))
    assert first.commands == second.commands
    other = run(replace(scenario, seed=4), rate_rps=130, requests=1500, keep_commands=True)
    assert other.commands != first.commands


faults = st.tuples(st.floats(0, 8), st.floats(0.1, 5)).map(lambda x: (x[0], x[0] + x[1]))


@settings(max_examples=15, deadline=None)
@given(
    place=st.sampled_from([None, Backend.EDGE, Backend.FUNCTION]),
    rate_rps=st.floats(2, 250),
    slo_s=st.floats(0.05, 3),
    late=st.booleans(),
    noise=st.floats(0, 0.5),
    down=st.lists(faults, max_size=2),
    throttled=st.lists(faults, max_size=2),
    bandwidth=st.lists(st.floats(0, 3), min_size=1, max_size=3),
    cold_s=st.floats(0, 3),
    concurrency=st.integers(1, 40),
    seed=st.integers(0, 10**6),
)
# A saturated edge whose deadline leaves room for one item a batch: its seconds are all that a request saves.
@example(
    place=None,
    rate_rps=146.3004208817848,
    slo_s=0.08342185739398783,
    late=True,
    noise=0.1875,
    down=[],
    throttled=[],
    bandwidth=[0.0],
    cold_s=0.0,
    concurrency=1,
    seed=2228,
)
@example(
    place=None,
    rate_rps=2.0,
    slo_s=1.0,
    late=False,
    noise=0.0,
    down=[(0.0, 2.0)],
    throttled=[],
    bandwidth=[0.0],
    cold_s=5e-324,
    concurrency=1,
    seed=0,
)
def test_every_request_ends_exactly_once_whatever_fails(
    place: Backend | None,
    rate_rps: float,
    slo_s: float,
    late: bool,
    noise: float,
    down: list[tuple[float, float]],
    throttled: list[tuple[float, float]],
    bandwidth: list[float],
    cold_s: float,
    concurrency: int,
    seed: int,
) -> None:
    scenario = Scenario(
        classes=(SimulatedClass(ServiceClass(slo_s=slo_s, serve_late=late)),),
        edge_noise=noise,
        function_noise=noise,
        edge_faults=tuple(Fault("down", *window) for window in down),
        function_faults=tuple(Fault("throttle", *window) for window in throttled),
        bandwidth=steps([(3.0 * i, rate) for i, rate in enumerate([*bandwidth, 1.0])]),
        cold_starts=ColdStarts(start_s=cold_s, idle_s=5.0),
        concurrency=concurrency,
        rtt_s=0.02,
        seed=seed,
    )
    journal = run(with_only(place, scenario), rate_rps=rate_rps, requests=400)
    ids = {request.request_id for request in journal.requests}
    assert set(journal.ended_at_s) == ids
    assert set(journal.answered_by) | set(journal.refusals) == ids
    assert not set(journal.answered_by) & set(journal.refusals)
    for row in rows(journal):
        assert row.ended_at_s >= row.arrived_at_s
        if row.outcome == "answered":
            assert row.wait_s >= -1e-9
            assert row.request_id in journal.batches[row.batch_id].batch.request_ids


def test_the_edge_serves_batches_one_after_the_other() -> None:
    journal = run(with_only(Backend.EDGE, NOISY), rate_rps=90, requests=2000)
    sent = sorted(journal.batches.values(), key=lambda s: s.batch.sent_at_s)
    assert {s.batch.backend for s in sent} == {Backend.EDGE}
    for before, after in zip(sent, sent[1:], strict=False):
        assert after.batch.sent_at_s >= before.outcome.at_s - 1e-9


def test_a_slow_host_serves_each_request_alone_at_once() -> None:
    """One request a minute: each finds the edge free, so its latency is that of one item."""
    scenario = with_only(Backend.EDGE, Scenario())
    journal = run(scenario, rate_rps=1 / 60, requests=15)
    for row in rows(journal):
        assert row.latency_s == pytest.approx(scenario.edge_latency.predict_s(1), abs=1e-9)


def test_constant_service_on_the_edge_waits_as_m_d_1() -> None:
    """Batches of one, no deadline pressure: the engine is then a plain queue, of known mean wait."""
    service_s, load = 0.05, 0.6
    scenario = Scenario(
        edge_latency=LatencyModel(service_s, 0.0, 1),
        classes=(SimulatedClass(ServiceClass(slo_s=60.0)),),
        max_items=1,
    )
    journal = run(with_only(Backend.EDGE, scenario), rate_rps=load / service_s, requests=3_000)
    waits_s = [row.wait_s for row in rows(journal)]
    assert np.mean(waits_s) == pytest.approx(load * service_s / (2 * (1 - load)), rel=0.25)


def test_cost_is_what_the_provider_bills_for_every_invocation() -> None:
    scenario = with_only(Backend.FUNCTION, replace(NOISY, rtt_s=0.02))
    journal = run(scenario, rate_rps=40, requests=1000)
    paid = {True: 0.0, False: 0.0}
    for sent in journal.batches.values():
        report = sent.outcome.message.report
        assert report.service_s is not None
        paid[sent.batch.warming] += math.ceil(report.service_s * 1000 - 1e-6) / 1000 * 1.27e-5 + 9e-7
    assert summarise(journal, scenario, wall_s=0.0)["cost_cny"] == pytest.approx(sum(paid.values()))
    assert sum(row.cost for row in rows(journal)) == pytest.approx(paid[False])


def test_without_load_on_the_edge_nothing_is_paid() -> None:
    found = figures(Scenario(), rate_rps=40, requests=3000)
    assert (found["cost_cny"], found["within_slo"], found["function"]) == (0.0, 1.0, 0)


def test_overload_is_answered_in_time_for_less_than_half_of_the_money() -> None:
    """At 140 a second and 0.6 s, admitting to the next batch only costs 26 % of serving all by function."""
    scenario = Scenario(classes=(SimulatedClass(ServiceClass(slo_s=0.6)),))
    found = figures(scenario, rate_rps=140, requests=6000)
    assert found["within_slo"] == pytest.approx(1.0, abs=0.001)
    assert found["cost_cny"] < 0.35 * found["all_function_cny"]  # type: ignore[operator]


@pytest.mark.parametrize(("slo_s", "rate_rps"), [(0.6, 140.0), (1.0, 187.0)])
@pytest.mark.parametrize("noisy", [False, True])
def test_what_a_plan_expects_is_what_happens(noisy: bool, slo_s: float, rate_rps: float) -> None:
    """The tolerance is what the fluid limit and Poisson gathering leave out; the order of magnitude must be right."""
    scenario = replace(
        NOISY if noisy else Scenario(seed=3), classes=(SimulatedClass(ServiceClass(slo_s=slo_s)),), rtt_s=0.02
    )
    journal = run(scenario, rate_rps=rate_rps, requests=5000)
    found = summarise(journal, scenario, wall_s=0.0)
    end_s = journal.requests[-1].arrived_at_s
    expected = [plan for plan in journal.plans if plan.made_at_s < 0.9 * end_s][-1].groups[0]
    assert expected.expected_spill_fraction == pytest.approx(found["function"] / 5000, abs=0.05)  # type: ignore[operator]
    assert expected.expected_cost_per_s == pytest.approx(found["cost_cny"] / end_s, rel=0.5)  # type: ignore[operator]
    assert expected.expected_within_slo == pytest.approx(found["within_slo"], abs=0.01)


def test_an_edge_outage_loses_no_request() -> None:
    scenario = replace(NOISY, edge_faults=(Fault("down", 10.0, 30.0),), rtt_s=0.02)
    journal = run(scenario, rate_rps=40, requests=2400)
    found = summarise(journal, scenario, wall_s=0.0)
    # Those that the edge had in hand when it went down, and that came back from a function too late.
    assert {refusal.kind for refusal in journal.refusals.values()} == {RefusalKind.NO_ANSWER}
    assert found["answered"] == 2400 - len(journal.refusals) >= 2370
    assert found["within_slo"] >= 0.98  # type: ignore[operator]
    during = [row for row in rows(journal) if 12.0 < row.arrived_at_s < 29.0]
    assert {row.backend for row in during} == {"function"}
    after = [row for row in rows(journal) if row.arrived_at_s > 45.0]
    assert {row.backend for row in after} == {"edge"}


def test_a_dead_uplink_leaves_the_edge_undisturbed() -> None:
    scenario = replace(NOISY, bandwidth=constant(0.0), rtt_s=0.02)
    found = figures(scenario, rate_rps=60, requests=3000)
    assert found["within_slo"] >= 0.99  # type: ignore[operator]
    assert found["function"] == 0


def test_throttled_calls_cost_nothing_and_are_not_lost() -> None:
    scenario = with_only(Backend.FUNCTION, replace(NOISY, function_faults=(Fault("throttle", 5.0, 8.0),)))
    journal = run(scenario, rate_rps=20, requests=400)
    throttled = [
        s.outcome
        for s in journal.batches.values()
        if isinstance(s.outcome.message, BatchFailed) and s.outcome.message.failure.kind is FailureKind.THROTTLED
    ]
    assert throttled
    assert all(outcome.cost == 0 for outcome in throttled)


def test_reference_money_is_the_cheapest_batch_in_time() -> None:
    tiers = (FunctionTier("function", "f", FUNCTION_LATENCY, FUNCTION_PRICE),)
    assert cheapest_per_item(tiers, slo_s=1.0) == pytest.approx((0.921 * 1.27e-5 + 9e-7) / 5)
    # A batch of two takes 0.498 s, one of three 0.639 s.
    assert cheapest_per_item(tiers, slo_s=0.6) == pytest.approx((0.498 * 1.27e-5 + 9e-7) / 2)
    assert cheapest_per_item(tiers, slo_s=0.1) == pytest.approx(0.357 * 1.27e-5 + 9e-7)
    assert cheapest_per_item((), slo_s=1.0) == 0.0


SCENARIO = """
rate_steps = [[5, 20], [5, 60]]
bandwidth_steps = [[0, 4.0], [5, 0.5]]
max_items = 32
function_concurrency = 9
changepoints = false
[[class]]
name = "fast"
slo_s = 0.6
priority = 1
share = 3
[[class]]
name = "slow"
slo_s = 5
late = "serve"
[[tier]]
name = "big"
law = [0.1, 0.05]
max_batch = 8
price = [2e-5, 1e-6]
"""


@pytest.mark.parametrize(
    ("value", "found", "package"), [("true", True, False), ('"off"', False, False), ('"package"', True, True)]
)
def test_a_scenario_chooses_the_detector_by_the_words_of_the_daemon(
    tmp_path: Path, value: str, found: bool, package: bool
) -> None:
    path = tmp_path / "s.toml"
    path.write_text(f"changepoints = {value}\n")
    made = read_scenario(path, Scenario()).engine_settings()
    assert (made.changepoints, made.changepoint_package) == (found, package)


def test_another_word_for_the_detector_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text('changepoints = "yes"\n')
    with pytest.raises(ScenarioError, match="changepoints must be 'native' or 'package' or 'off', not 'yes'"):
        read_scenario(path, Scenario())


def test_a_scenario_file_says_what_flags_cannot(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(SCENARIO)
    scenario = read_scenario(path, Scenario())
    assert scenario.rate_steps == ((5.0, 20.0), (5.0, 60.0))
    assert [c.service_class.name for c in scenario.classes] == ["fast", "slow"]
    assert scenario.classes[1].service_class.serve_late
    assert (scenario.tiers[0].latency.beta_s, scenario.concurrency, scenario.changepoints) == (0.05, 9, False)
    requests = make_requests(scenario, poisson(50.0, rng=np.random.default_rng(1), requests=4000))
    fast = [r for r in requests if r.class_name == "fast"]
    assert len(fast) / len(requests) == pytest.approx(0.75, abs=0.03)
    assert all(r.deadline_s - r.arrived_at_s == pytest.approx(0.6) and r.priority == 1 for r in fast)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rate_stepz = 1", "unknown key 'rate_stepz'"),
        ("rate_steps = [[1]]", "pair of numbers"),
        ("max_items = 0", "max_items must be a whole number"),
        ("[[class]]\nlate = 'maybe'", "'refuse' or 'serve'"),
        ("[[class]]\npercentile = 99", "percentile must be below 1"),
        ("[[class]]\nslo_s = -1", "slo_s must be a number above 0"),
        ("[[tier]]\nlaw = [0, 0]\nprice = [1, 1]", "latency model"),
        ("bandwidth_steps = [[1, 1]]", "begin at 0 s"),
        ("=", "cannot read the scenario"),
    ],
)
def test_a_wrong_scenario_is_refused_in_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises((ScenarioError, cli.EdgeburstError), match=words) as caught:
        read_scenario(path, Scenario())
    assert "\n" not in str(caught.value)


def test_the_command_prints_the_fixed_object_and_writes_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows_file = tmp_path / "rows.csv"
    workload = ["--poisson", "150", "--requests", "600", "--slo-s", "0.8", "--seed", "5"]
    assert cli.main(["simulate", "--policy", "edgeburst", *workload, "--json", "--rows", str(rows_file)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {
        *("policy", "requests", "answered", "refused", "late", "within_slo", "edge", "function", "edge_batches"),
        "edge_busy",
        *("function_batches", "cost_cny", "all_function_cny", "latency_s", "plans", "replan_causes", "wall_s", "seed"),
    }
    assert (found["policy"], found["requests"], found["seed"]) == ("edgeburst", 600, 5)
    assert set(found["latency_s"]) == {"p50", "p95", "p99"}
    table = list(csv.DictReader(rows_file.open()))
    assert len(table) == 600
    assert sum(row["within_slo"] == "True" for row in table) / 600 == pytest.approx(found["within_slo"])
    assert sum(float(row["cost"]) for row in table) == pytest.approx(found["cost_cny"])


def test_the_command_takes_every_workload(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gaps, rates, process, steps_file = (tmp_path / name for name in ("a.gaps", "a.csv", "m.json", "s.toml"))
    gaps.write_text("\n".join(["0.02"] * 200))
    rates.write_text("20,0,20")
    process.write_text('{"D0": [[-11, 1], [1, -91]], "D1": [[10, 0], [0, 90]]}')
    steps_file.write_text(SCENARIO)
    for flags, requests in (
        (["--arrivals", str(gaps), "--rate-scale", "2"], 200),
        (["--rates", str(rates), "--unit-s", "2"], 40),
        (["--map", str(process), "--requests", "150"], 150),
        (["--scenario", str(steps_file), "--duration-s", "4"], None),
    ):
        assert cli.main(["simulate", "--json", *flags]) == 0
        found = json.loads(capsys.readouterr().out)
        assert requests is None or found["requests"] == requests


WRONG_NUMBERS = [
    *(
        [flag, value]
        for flag in ("--slo-s", "--rate-scale", "--duration-s", "--unit-s")
        for value in ("nan", "inf", "0")
    ),
    *([flag, value] for flag in ("--edge-noise", "--function-noise") for value in ("nan", "inf", "-1", "1e9")),
    *([flag, value] for flag in ("--rtt-s", "--bandwidth-mbytes-per-s") for value in ("nan", "inf", "-1")),
    *([flag, f"{value},1"] for flag in ("--edge", "--function-law", "--function-price") for value in ("nan", "inf")),
    *(["--cold-start-s", value] for value in ("nan,0", "0,nan", "inf,0")),
    *([flag, "-1"] for flag in ("--seed", "--request-bytes")),
    *(["--edge-parallel", value] for value in ("0", "-1", "65")),
]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "no workload"),
        (["--poisson", "0"], "--poisson must be a finite number above 0, not 0"),
        (["--poisson", "inf"], "--poisson must be a finite number above 0, not inf"),
        *((["--poisson", "10", *wrong], f"{wrong[0]} must be") for wrong in WRONG_NUMBERS),
        (["--poisson", "10", "--edge-fault", "melt:1,2"], "a fault is written slow:START,END,FACTOR or down:START,END"),
        (["--poisson", "10", "--edge=-1,0"], "--edge must be a finite number of at least 0"),
        (["--poisson", "10", "--edge=0,0"], "latency model"),
        (["--poisson", "10", "--edge", "1,1", "--edge", "b:1,1"], "several --edge need a name each"),
        (["--poisson", "10", "--edge", "b:1,1", "--edge", "b:1,1"], "several --edge need a name each"),
        (["--poisson", "10", "--edge", "down:1,1"], "'down' cannot be a name"),
        (["--poisson", "10", "--edge", "b:1,1", "--edge-fault", "c:down:1,2"], "a fault is written"),
        (["--poisson", "10", "--bandwidth-log", "absent.log"], "cannot read the bandwidth log"),
        (["--arrivals", "absent.gaps"], "cannot read the trace"),
    ],
)
def test_wrong_flags_are_refused_in_one_sentence(
    flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["simulate", *flags]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1
