"""The evaluation: recipes are seeded, rows have one schema, tables and verdicts follow from rows alone."""

import csv
import pickle
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.domain.errors import EdgeburstError
from scheduler.domain.plans import ServiceClass
from scheduler.simulator import report
from scheduler.simulator.network import MEBIBYTE, constant, steps
from scheduler.simulator.report import cheapest_per_item
from scheduler.simulator.scenario import FUNCTION_LATENCY, POLICIES, Scenario, SimulatedClass
from scheduler.workloads import markovian
from scripts.evaluation import against, command, detection, engine_cost, figures, measures, tables
from scripts.evaluation.case import BOUND, Case, Result, Row, Timeline
from scripts.evaluation.command import ALL, main, missing_traces, options_of, parse, tasks_of
from scripts.evaluation.links import drawn_link
from scripts.evaluation.options import NOISY, QUICK, Options, with_slo
from scripts.evaluation.plots import draw_all
from scripts.evaluation.runs import in_processes, run_all, run_case
from scripts.evaluation.suites import SUITES
from scripts.evaluation.traffic import BURSTY, Bursty, Phases, Trace

TINY = Options(policies=("edgeburst", "edge-only"), requests=200, scales=(3.0,), seeds=(0, 1))
MEASURED = {"wall_s", "cpu_us_per_request"}


def tiny_case(policy: str = "edgeburst", **changed: object) -> Case:
    case = Case("load", "tiny", Bursty(3.0, 300), replace(with_slo(NOISY, 1.0), policy=policy))
    return replace(case, **changed)  # type: ignore[arg-type]


def without_edge(scenario: Scenario) -> Scenario:
    """Our engine with functions only, so that each late request was late there."""
    return replace(scenario, models=(replace(scenario.served()[0], edge_latency=None),))


def traces_in(folder: Path) -> Path:
    gaps = folder / "arrivals" / "t.gaps"
    gaps.parent.mkdir(parents=True)
    gaps.write_text("\n".join(["0.02"] * 400))
    log = folder / "bandwidth" / "lte-car-0001.log"
    log.parent.mkdir()
    log.write_text("1 1 51.0 3.7 1000000 1000\n")
    return folder


def row_of(**figures: object) -> Row:
    """A run of ours on a real trace that served a hundred requests well for a tenth of the money."""
    good: Row = {
        **{"suite": "load", "case": "t", "policy": "edgeburst", "variant": "", "on_trace": True, "seed": 0},
        **{"slo_s": 1.0, "scale": 2.4, "rate_rps": 100.0, "requests": 100, "answered": 100, "within_slo": 1.0},
        **{"cost_cny": 0.1, "bound_cny": 0.1, "all_function_cny": 1.0, "plans": 1},
    }
    return {**good, **figures}


def request_row(arrived_at_s: float, latency_s: float = 0.5, **changed: object) -> report.Row:
    row = report.Row(
        1, "m", "c", arrived_at_s, arrived_at_s + 1, arrived_at_s + latency_s, latency_s, "answered", True, "edge"
    )
    return replace(row, **changed)  # type: ignore[arg-type]


def test_the_same_case_comes_to_the_same_row() -> None:
    first, second = (run_case(tiny_case()).row for _ in range(2))
    assert {k: v for k, v in first.items() if k not in MEASURED} == {
        k: v for k, v in second.items() if k not in MEASURED
    }
    other = run_case(tiny_case(scenario=replace(tiny_case().scenario, seed=9))).row
    assert other["rate_rps"] != first["rate_rps"]


@pytest.mark.parametrize("name", SUITES)
def test_each_suites_rows_have_the_columns_of_the_csv(name: str) -> None:
    case = next(case for case in SUITES[name](TINY) if case.scenario.policy == "edgeburst")
    short = replace(case, traffic=Phases(((2.0, 60.0),)), change_at_s=None if case.change_at_s is None else 1.0)
    result = run_case(short)
    assert set(result.row) <= set(tables.COLUMNS)
    assert result.row["lost"] == 0
    assert ("hit_requests" in result.row) == (case.change_at_s is not None)
    assert ("over_cap_batches" in result.row) == (name == "caps")
    assert bool(result.latencies_s) == case.keeps_curves


def test_every_case_travels_to_another_process_and_has_a_name_of_its_own(tmp_path: Path) -> None:
    options = replace(TINY, traces=traces_in(tmp_path))
    names = []
    for suite in SUITES.values():
        for case in suite(options):
            assert pickle.loads(pickle.dumps(case)) == case
            names.append((case.suite, case.name, case.scenario.policy, case.variant, case.scenario.seed))
    assert len(set(names)) == len(names)
    assert any(case.on_trace for case in SUITES["lte"](options))


def test_policies_that_are_told_the_truth_are_told_the_rates_of_the_steps() -> None:
    for case in SUITES["steps"](TINY):
        assert case.traffic == Phases(case.scenario.rate_steps)


def test_no_run_of_the_ablation_is_made_twice() -> None:
    runs = [(case.traffic, case.scenario) for case in SUITES["ablation"](TINY)]
    assert len(set(runs)) == len(runs)


def test_the_bound_is_computed_once_and_told_to_each_run_of_its_traffic() -> None:
    cases = [tiny_case(BOUND), tiny_case(), tiny_case(name="other")]
    done: list[int] = []
    tasks = [lambda case=case: run_case(case) for case in cases]  # type: ignore[misc]
    bound, ours, other = run_all(tasks, jobs=1, done=lambda: done.append(1))
    assert bound.row["cost_cny"] == bound.row["bound_cny"] == ours.row["bound_cny"]
    assert "bound_cny" not in other.row
    assert tables.number(ours.row, "bound_cny") < tables.number(ours.row, "cost_cny")
    assert tables.number(bound.row, "all_function_cny") == pytest.approx(tables.number(ours.row, "all_function_cny"))
    assert len(done) == 3


def test_our_own_traffic_has_the_rate_and_the_burstiness_that_are_claimed() -> None:
    whole = markovian(BURSTY, rng=np.random.default_rng(1), duration_s=6000.0)
    assert whole.mean_rate_rps == pytest.approx(46.6, rel=0.02)
    counts = np.bincount((whole.times_s / 30).astype(np.int64))[:-1]
    assert 3.0 < counts.var() / counts.mean() < 8.0
    scaled = Bursty(2.0, 500).workload(np.random.default_rng(1))
    assert scaled.times_s * 2 == pytest.approx(whole.times_s[:500])


def test_consecutive_gaps_of_a_trace_are_taken_from_where_they_were_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "t.gaps"
    path.write_text("\n".join(str(gap) for gap in range(8, 0, -1)))
    times_s = Trace(path, 2.0, requests=3, first=4).workload(np.random.default_rng(1)).times_s
    assert np.diff(times_s, prepend=0.0) * 2 == pytest.approx([4, 3, 2])


def test_the_drawn_link_is_seeded_moves_and_is_gone_at_times() -> None:
    first, second = (drawn_link(np.random.default_rng(15)) for _ in range(2))
    assert first == second
    rates = np.array(first.rates) / MEBIBYTE
    assert np.median(rates) == pytest.approx(3.5, rel=0.2)
    assert 2 <= (rates == 0).sum() <= 60
    assert drawn_link(np.random.default_rng(16)) != first


def test_what_a_change_hits_is_told_from_what_came_later() -> None:
    late = {"within_slo": False}
    refused = {"within_slo": False, "outcome": "no-capacity", "latency_s": 0.0, "backend": ""}
    rows = [
        request_row(9.9, **late),
        request_row(10.0, **late),
        request_row(12.0, **refused),
        request_row(16.0, **late),
        request_row(18.0, **{**refused, "latency_s": 0.3}),
        request_row(20.5, **refused),
        request_row(40.0, **late),
    ]
    found = measures.around_change(rows, tiny_case(change_at_s=10.0, settled_until_s=40.0))
    assert (found["hit_requests"], found["hit_outside"], found["hit_refused_at_once"]) == (4, 4, 1)
    assert (found["settled_requests"], found["settled_outside"], found["settled_refused_at_once"]) == (3, 3, 1)
    assert measures.around_change(rows, tiny_case()) == {}


def test_immediate_refusals_count_only_beyond_those_of_the_oracle() -> None:
    ours = [row_of(hit_outside=9, hit_refused_at_once=5), row_of(hit_outside=1, hit_refused_at_once=1)]
    assert tables.outside(ours, [], "hit") == 10
    assert tables.outside(ours, [row_of(hit_refused_at_once=4)], "hit") == 6
    assert tables.outside(ours, [row_of(hit_refused_at_once=40)], "hit") == 4


spendings = st.lists(st.tuples(st.floats(0, 20_000), st.floats(0, 1)), max_size=25)


@settings(max_examples=50, deadline=None)
@given(spendings)
def test_the_dearest_hour_is_found(spent: list[tuple[float, float]]) -> None:
    """The oracle looks at the hour that ends with each booking."""
    hours = [sum(cost for at_s, cost in spent if end_s - 3600 < at_s <= end_s) for end_s, _ in spent]
    assert measures.max_per_hour(spent) == pytest.approx(max(hours, default=0.0))


def test_what_was_spent_an_hour_ago_is_past() -> None:
    assert measures.max_per_hour([(0.0, 1.0), (3600.0, 2.0)]) == 2.0
    assert measures.max_per_hour([(0.0, 1.0), (3599.0, 2.0)]) == 3.0


@pytest.mark.parametrize(("left_mbytes_per_s", "excused"), [(0.01, True), (0.05, False)])
def test_lateness_is_the_links_where_the_way_was_longer_than_predicted(left_mbytes_per_s: float, excused: bool) -> None:
    """From 5 s on the link is slow; it excuses lateness only where it does not carry one request of 24 KB a second."""
    bandwidth = steps([(0.0, 4.0), (5.0, left_mbytes_per_s)])
    scenario = replace(with_slo(Scenario(), 1.0), classes=(SimulatedClass(ServiceClass(serve_late=True)),))
    scenario = without_edge(replace(scenario, bandwidth=bandwidth))
    row = run_case(tiny_case(traffic=Phases(((5.5, 40.0),)), scenario=scenario)).row
    assert tables.number(row, "late_by_link") > 0
    # Who came just before 5 s may be late by a link that was fine when they came.
    assert (tables.number(row, "late_by_link_unexcused") < tables.number(row, "late_by_link")) == excused


def test_without_a_link_or_without_lateness_nothing_is_its_fault() -> None:
    assert "late_by_link" not in run_case(tiny_case()).row
    calm = without_edge(replace(tiny_case().scenario, bandwidth=constant(1.0), function_noise=0.5))
    row = run_case(tiny_case(scenario=calm, traffic=Phases(((20.0, 20.0),)))).row
    late = tables.number(row, "function_late")
    assert late >= 5
    assert tables.number(row, "late_by_link") <= 0.2 * late


def test_what_arrives_soon_after_the_link_is_back_is_excused() -> None:
    bandwidth = steps([(0.0, 4.0), (5.0, 0.01), (20.0, 4.0)])
    gone = [at_s for at_s in (1.0, 4.9, 5.0, 12.0, 20.9, 21.1) if measures._link_was_gone(bandwidth, at_s, 24_000)]
    assert gone == [5.0, 12.0, 20.9]


def test_rows_keep_their_columns_in_the_csv_and_further_ones_come_last(tmp_path: Path) -> None:
    tables.write_csv([row_of(), row_of(parameters="batch 4", plans=3)], tmp_path / "e.csv")
    with (tmp_path / "e.csv").open() as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == [*tables.COLUMNS, "parameters"]
    assert [line["parameters"] for line in found] == ["", "batch 4"]
    assert found[1]["plans"] == "3"
    assert found[0]["late_by_link"] == ""


def verdicts(rows: Sequence[Row], judge: str) -> list[bool | None]:
    return [figure.ok for figure in getattr(figures, judge)(rows)]


def replace_row(row: Row, **changed: object) -> Row:
    return {**row, **changed}


def test_a_link_is_compared_with_an_ample_one_and_with_the_oracle() -> None:
    base = row_of(suite="lte", case="t, lte, 24 KB", mean_edge_batch=45.0, refused=3, late=0, late_by_link_unexcused=0)
    ample = replace_row(base, case="t, ample, 24 KB", mean_edge_batch=50.0)
    oracle = replace_row(base, policy="oracle-laws", refused=1)
    assert verdicts([base, ample, oracle], "on_the_link") == [True]
    assert verdicts([base, ample], "on_the_link") == [None]
    for worse in ({"refused": 4}, {"mean_edge_batch": 44.0}, {"late": 2}, {"late_by_link_unexcused": 1}):
        assert verdicts([replace_row(base, **worse), ample, oracle], "on_the_link") == [False]


def test_a_change_may_hit_two_percent_and_lose_nobody() -> None:
    base = row_of(suite="steps", hit_requests=100, hit_outside=2, settled_requests=1000, settled_outside=10, lost=0)
    assert verdicts([base], "around_changes") == [True]
    for worse in ({"hit_outside": 3}, {"settled_outside": 11}, {"lost": 1}):
        assert verdicts([replace_row(base, **worse)], "around_changes") == [False]
    oracle = replace_row(base, policy="oracle-laws", hit_refused_at_once=1)
    refused = replace_row(base, hit_outside=3, hit_refused_at_once=1)
    assert verdicts([refused, oracle], "around_changes") == [True]


def test_ablations_are_judged_by_plans_cost_and_attainment() -> None:
    ours = row_of(suite="ablation", variant="changepoints", plans=2)
    timer, never = (replace_row(ours, variant=v, plans=20) for v in ("5 s timer", "never re-planned"))
    dear = replace_row(never, cost_cny=0.2)
    assert verdicts([ours, timer, dear], "ablations") == [True, True, None]
    assert verdicts([ours, replace_row(timer, plans=19), never], "ablations") == [False, False, None]
    assert verdicts([ours, replace_row(timer, within_slo=1.1), never], "ablations")[0] is False
    told = replace_row(ours, variant="told", cost_cny=0.0995)
    assert verdicts([ours, timer, never, told], "ablations")[2] is True
    assert verdicts([ours, timer, never, replace_row(told, cost_cny=0.09)], "ablations")[2] is False


def test_detectors_are_run_and_told_in_a_table() -> None:
    tasks = list(detection.tasks(runs=2, hours=0.05, traces=()))
    rows = [result.row for result in in_processes([tasks[2], tasks[-1]], jobs=1, done=int)]
    assert [row["suite"] for row in rows] == ["changepoints"] * 2
    assert tables.number(rows[0], "found") == 1.0
    assert rows[1]["alarms_per_hour"] == 0.0
    assert len(detection.table(rows).lines) == 2


def test_detectors_caps_and_the_engine_have_their_figures() -> None:
    step = row_of(suite="changepoints", case="bandwidth / 2, noise 0.2", delay_median=12.0, found=0.98, on_trace=False)
    assert verdicts([step], "detectors") == [True]
    assert verdicts([replace_row(step, delay_median=12.5), replace_row(step, found=0.97)], "detectors") == [False] * 2
    calm = row_of(suite="changepoints", case="Poisson 46.15/s, 10 h", alarms_per_hour=1.1, on_trace=False)
    assert verdicts([calm, row_of(suite="changepoints", alarms=1.0)], "detectors") == [False, True]
    assert verdicts([row_of(suite="caps", over_cap_batches=1.2)], "under_caps") == [False]
    assert verdicts([row_of(suite="engine", engine_us_median=31.0)], "engine_cost") == [False]


def test_the_engine_is_timed_without_being_changed() -> None:
    (timed, *_) = engine_cost.tasks([tiny_case(traffic=Bursty(3.0, 1100))])
    row = timed().row
    assert 0 < tables.number(row, "engine_us_median") < 100_000


def test_pictures_are_drawn_from_results_alone(tmp_path: Path) -> None:
    line = Timeline((0.0, 0.5), (10.0, 20.0), (0.0, 5.0), (0.0, 0.0), ((0.4, "rate"),))
    results = [
        Result(row_of(), tuple(np.linspace(0.1, 1.0, 201).tolist())),
        Result(row_of(policy=BOUND)),
        Result(row_of(suite="steps", case="rate 40 to 120/s", change_at_s=0.3), (), line),
    ]
    results.append(Result({**results[-1].row, "seed": 1}, (), line))
    names = [path.name for path in draw_all(results, tmp_path)]
    assert names == ["cost-load-t.svg", "latency-load-t.svg", "step-rate-40-to-120-s.svg"]
    assert "re-plan: rate" in (tmp_path / "step-rate-40-to-120-s.svg").read_text()


def test_missing_traces_are_told_in_one_sentence(tmp_path: Path) -> None:
    assert "EDGEBURST_TRACES" in missing_traces(Options())
    assert str(tmp_path) in missing_traces(Options(traces=tmp_path))
    assert missing_traces(Options(traces=traces_in(tmp_path))) == ""


def test_figures_are_run_on_traces_where_they_were_asked_for_these(tmp_path: Path) -> None:
    options = replace(TINY, traces=traces_in(tmp_path))
    cases = [task.args[0] for task in tasks_of(("figures",), options, quick=True) if task.func is run_case]  # type: ignore[attr-defined]
    assert {case.suite for case in cases} == {*SUITES} - {"varied", "learning"}
    assert all(case.on_trace for case in cases if case.suite in ("load", "lte"))
    # Costs with noise are compared with those of tuned parameters on all traffic.
    drawn = {case.scenario.policy for case in cases if case.suite == "noise" and not case.on_trace}
    assert drawn == {"edgeburst"}
    without = list(tasks_of(("figures",), TINY, quick=True))
    suites = {task.args[0].suite for task in without if task.func is run_case}  # type: ignore[attr-defined]
    assert suites == {"noise", "steps", "caps", "sparse", "ablation"}


def test_a_quick_run_in_processes_writes_rows_tables_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGEBURST_TRACES", raising=False)
    words = ["--suite", "load", "--policy", "edge-only", "--quick", "--jobs", "2", "--out", str(tmp_path), "--markdown"]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert "rows on real traces are omitted" in shown.err
    assert shown.out == (tmp_path / "evaluation.md").read_text() + "\n"
    with (tmp_path / "evaluation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(QUICK.scales) * 2
    assert [row["policy"] for row in rows] == [BOUND, "edge-only"] * 4
    assert [float(row["slo_s"]) for row in rows] == [0.6, 0.6, 1.0, 1.0] * 2
    assert {row["on_trace"] for row in rows} == {"False"}
    assert float(rows[0]["all_function_cny"]) == pytest.approx(
        QUICK.requests * cheapest_per_item(Scenario().tiers, slo_s=0.6)
    )
    assert (tmp_path / "cost-load-bursty.svg").stat().st_size > 1000


def test_results_come_in_the_order_of_their_tasks_whoever_is_first() -> None:
    tasks = [lambda i=i: i for i in random.Random(1).sample(range(50), 50)]  # type: ignore[misc]
    assert in_processes(tasks, jobs=1, done=int) == [task() for task in tasks]


def test_a_case_that_cannot_be_run_is_named_and_ends_the_rest(tmp_path: Path) -> None:
    wrong = tiny_case(name="gone", traffic=Trace(tmp_path / "absent.gaps", 2.0, 100))
    done: list[int] = []
    tasks = [partial(run_case, case) for case in (wrong, *[tiny_case()] * 30)]
    with pytest.raises(EdgeburstError, match=r"load, gone, edgeburst: cannot read the trace .*absent\.gaps") as caught:
        in_processes(tasks, jobs=2, done=lambda: done.append(1))
    assert "\n" not in str(caught.value)
    assert len(done) < 30


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--suite", "loud"], "'loud' is none of"),
        (["--policy", "oracle"], "'oracle' is none of"),
        (["--jobs", "0"], "at least 1"),
        (["--scales", "2,none"], "numbers above 0"),
    ],
)
def test_wrong_words_are_refused_with_the_right_ones(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert told in capsys.readouterr().err


def test_what_is_asked_for_is_what_is_run(tmp_path: Path) -> None:
    words = ["--scales", "2.2,3", "--policy", "edge-only", "--traces", str(tmp_path)]
    assert options_of(parse(words)) == Options(policies=("edge-only",), scales=(2.2, 3.0), traces=tmp_path)
    assert options_of(parse([*words[2:], "--quick"])) == replace(QUICK, policies=("edge-only",), traces=tmp_path)


def test_every_suite_and_policy_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*ALL, *POLICIES))


def test_an_edge_batch_is_ended_by_the_deadline_only() -> None:
    scenario = with_slo(NOISY, 1.0)
    assert scenario.edge_latency.max_batch == scenario.max_items
    assert scenario.edge_latency.predict_s(scenario.max_items) > 1.0
    assert scenario.tiers[0].latency == FUNCTION_LATENCY


def a_checkout(folder: Path, **us_by_case: float) -> Path:
    """A folder whose evaluation writes figures without measuring anything."""
    (folder / "scripts").mkdir(parents=True)
    # A package proper, as in a checkout: else the installed one comes first.
    (folder / "scripts" / "__init__.py").touch()
    rows = "".join(f"{case},{us}\\n" for case, us in us_by_case.items())
    (folder / "scripts" / "evaluate.py").write_text(
        "import pathlib, sys\n"
        "words = sys.argv[1:]\n"
        "assert words[:2] == ['--suite', 'engine'] and words[-1] == '--quick', words\n"
        "out = pathlib.Path(words[words.index('--out') + 1])\n"
        f"out.joinpath('evaluation.csv').write_text('case,engine_us_median\\none update,\\n{rows}')\n"
    )
    return folder


def test_two_checkouts_are_measured_in_processes_of_their_own(tmp_path: Path) -> None:
    here = a_checkout(tmp_path / "here", steady=30.0, bursty=20.0, new=1.0)
    there = a_checkout(tmp_path / "there", steady=15.0, bursty=40.0, old=1.0)
    measure = partial(against.measure_engine, words=["--quick"])
    table = against.alternate(here, there, measure=measure, alternations=1)
    assert [line[0] for line in table.lines] == ["steady", "bursty", "all (geometric mean)"]
    assert [line[1:4] for line in table.lines[:2]] == [("30.00", "15.00", "2.000"), ("20.00", "40.00", "0.500")]
    assert table.lines[-1][3] == "1.000"


def test_the_first_of_two_checkouts_alternates_and_medians_are_compared(tmp_path: Path) -> None:
    here, there = a_checkout(tmp_path / "here"), a_checkout(tmp_path / "there")
    figures_us = {here: iter((10.0, 90.0, 12.0)), there: iter((20.0, 24.0, 1.0))}
    order: list[Path] = []

    def measure(checkout: Path) -> dict[str, float]:
        order.append(checkout)
        return {"steady": next(figures_us[checkout])}

    table = against.alternate(here, there, measure=measure, alternations=3)
    assert order == [here, there, there, here, here, there]
    assert table.lines[0] == ("steady", "12.00", "20.00", "0.600", "0.500 to 12.000")


def test_a_checkout_that_cannot_be_measured_is_named(tmp_path: Path) -> None:
    here, other = a_checkout(tmp_path / "here", steady=1.0), a_checkout(tmp_path / "other", bursty=1.0)
    with pytest.raises(EdgeburstError, match=r"absent is no checkout"):
        against.alternate(here, tmp_path / "absent", measure=lambda _: {"steady": 1.0})
    with pytest.raises(EdgeburstError, match=r"no case under the same name"):
        against.alternate(here, other, measure=partial(against.measure_engine, words=["--quick"]), alternations=1)
    with pytest.raises(EdgeburstError, match=r"other ended with status 1: AssertionError"):
        against.measure_engine(other)


def test_the_command_prints_the_ratio_of_this_checkout_to_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = a_checkout(tmp_path / "here", steady=10.0), a_checkout(tmp_path / "there", steady=40.0)
    monkeypatch.delenv("EDGEBURST_TRACES", raising=False)
    monkeypatch.setattr(command, "ROOT", here)
    assert main(["--suite", "engine", "--against", str(there), "--quick"]) == 0
    assert "| steady | 10.00 | 40.00 | 0.250 | 0.250 to 0.250 |" in capsys.readouterr().out


def test_another_checkout_is_compared_by_the_engine_suite_only(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--against", "."])
    assert "--suite engine" in capsys.readouterr().err
    assert parse(["--suite", "engine", "--against", "."]).against == Path(".")
