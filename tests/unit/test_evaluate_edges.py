"""The suite `edges`: its sites, its table, and the figures that are asked of it."""

from functools import partial

import pytest

from scheduler.simulator.scenario import SEPARATE
from scripts.evaluation import edges
from scripts.evaluation.case import BOUND, Row
from scripts.evaluation.options import Options
from scripts.evaluation.reuse import kept
from scripts.evaluation.runs import run_case
from scripts.evaluation.suites import SUITES

TINY = Options(requests=150, scales=(3.0,), seeds=(0,), repeats=(0,), sources=("bursty",))


def row(policy: str, cost: float, within: float = 1.0, *, case: str = "t, 2 alike", scale: float = 4.8) -> Row:
    head = {
        "suite": "edges",
        "case": f"{case}, rate x {scale:g}",
        "policy": policy,
        "variant": "",
        "on_trace": True,
        "scale": scale,
    }
    return {**head, "cost_cny": cost, "all_function_cny": 1.0, "within_slo": within, "rate_rps": 224.0, "slo_s": 0.6}


def failing(cost: float, within: float) -> list[Row]:
    """Our run where a server fails, beside an oracle's of 0.24."""
    name = f"t, {edges.FAILING}"
    return [row("edgeburst", cost, within, case=name), row("separate-oracle", 0.24, case=name)]


def test_every_site_is_simulated_with_the_bound_and_each_policy() -> None:
    cases = list(edges.cases(TINY))
    sites = {case.name for case in cases}
    assert len(sites) == sum(len(site.scales) for site in edges.sites())
    for name in sites:
        policies = {case.scenario.policy for case in cases if case.name == name}
        assert policies >= {BOUND, "edgeburst", "separate", "slots"}
        assert ("separate-oracle" in policies) == (edges.FAILING in name)
    some = [case for case in cases if case.name == "bursty, x 1 and x 2, slow one away from 30 to 90 s, rate x 3.6"]
    results = [run_case(case).row for case in some]
    [table] = edges.edges_table(results)
    assert table.header == ("case", "requests/s", "bound", "edgeburst", "separate", "slots", "separate-oracle")
    assert len(table.lines) == 1
    assert all(" @ " in cell for cell in table.lines[0][3:])


def test_policies_for_several_edge_servers_are_not_asked_where_there_is_one() -> None:
    for name in ("load", "noise", "varied", "steps"):
        policies = {case.scenario.policy for case in SUITES[name](TINY)}
        assert "edgeburst" in policies
        assert not policies & {"slots", *SEPARATE}


@pytest.mark.parametrize(
    ("rows", "ok"),
    [
        ([row("edgeburst", 0.0645)], True),
        ([row("edgeburst", 0.0646)], False),
        ([row("edgeburst", 0.06, 0.9998)], False),
        ([row("edgeburst", 0.405, case="t, 4 alike", scale=16.0)], True),
        (failing(0.271, 0.99), False),
        (failing(0.2, 0.98), False),
        (failing(0.2699, 0.99), True),
    ],
)
def test_a_figure_is_reached_or_missed(rows: list[Row], ok: bool) -> None:
    [figure] = edges.edge_figures(rows)
    assert figure.ok is ok


def test_runs_of_engines_are_not_taken_from_an_earlier_evaluation() -> None:
    tasks = [partial(run_case, case) for case in edges.cases(TINY) if edges.FAILING in case.name]
    rows = [task().row for task in tasks]
    assert [rows[index]["policy"] for index in sorted(kept(tasks, rows))] == [BOUND, "slots"]


def test_other_rows_have_no_figure() -> None:
    ours = row("edgeburst", 0.06)
    others = [
        row("slots", 0.06),
        {**ours, "on_trace": False},
        {**ours, "case": "t from gap 20000, 2 alike, rate x 4.8"},
    ]
    assert not list(edges.edge_figures([*others, {**ours, "case": "t, 2 alike, noise, rate x 4.8"}]))
    assert not list(edges.edge_figures([row("edgeburst", 0.2, case=f"t, {edges.FAILING}")]))
