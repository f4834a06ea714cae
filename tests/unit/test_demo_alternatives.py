"""What the demo saves: the same arrivals under other policies, and a page that is opened only where it can be."""

from __future__ import annotations

import io
import json
import webbrowser
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from scripts.demo import alternatives, report
from scripts.demo.alternatives import Alternative, Simulated
from scripts.demo.configuration import Places
from scripts.demo.instances import WarmInstances
from scripts.demo.page import open_page
from scripts.demo.settings import Settings, draw_schedule
from scripts.demo.simulating import tell_alternatives
from scripts.demo.summary import Money, Outcome, Run, summarise

SETTINGS = Settings(out=Path("out"), time_scale=0.1, provisioned=22)
PLACES = Places("", "", "orin-resnet50", "fc-resnet50-1gb")
MEASURED = Alternative("edgeburst, measured", 0.99, 0.01, 8, 0.03)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Simulated]:
    """What the process of its own says."""
    folder = tmp_path_factory.mktemp("alternatives")
    schedule = draw_schedule(SETTINGS, pictures=7)
    np.savez(folder / "schedule.npz", times_s=schedule.times_s)
    described = alternatives.describe(
        SETTINGS, PLACES, WarmInstances(22, 48), schedule=folder / "schedule.npz", request_bytes=12_000
    )
    (folder / "settings.json").write_text(described)
    with pytest.MonkeyPatch.context() as patched:
        printed: list[str] = []
        patched.setattr(alternatives, "_let_others_first", lambda: None)  # it is this process here
        patched.setattr("builtins.print", lambda line, **_: printed.append(line))
        assert alternatives.main([str(folder / "settings.json")]) == 0
    said = json.loads(printed[0])
    assert said["event"] == "simulated"
    return [Simulated(**values) for values in said["found"]]


def test_what_is_simulated_is_bracketed_by_the_bound_and_by_the_edge_alone(found: list[Simulated]) -> None:
    ours, edge, functions, static, bound = found
    assert [one.policy for one in found] == ["edgeburst", "edge-only", "function-only", "static", "bound"]
    assert [one.instances for one in found] == [22, 0, 48, 22, 0]
    assert (edge.calls_cny, edge.busy_s) == (0.0, 0.0)
    costs = [one.calls_cny for one in (bound, ours, functions)]
    assert all(cost is not None and cost > 0 for cost in costs)
    assert costs == sorted(costs, key=lambda cost: cost or 0.0)
    # 150 requests a second are more than the edge can serve, and than 8 Mbit/s can carry.
    assert edge.within_slo is not None
    assert edge.within_slo < 0.9
    assert functions.within_slo is not None
    assert functions.within_slo < 0.9
    assert ours.within_slo is not None
    assert ours.within_slo > 0.9
    assert static.within_slo is not None
    assert static.within_slo >= 0.99
    assert "uplink" in bound.note


def test_idle_instances_cost_the_time_that_they_do_not_work() -> None:
    one = Simulated("static", 0.99, 0.01, 30.0, 2)
    [row] = alternatives.alternatives([one], kept_s=100.0)
    [busier] = alternatives.alternatives([replace(one, busy_s=200.0)], kept_s=100.0)
    [bound] = alternatives.alternatives([Simulated("bound", None, None, None, 0, "no schedule")], kept_s=100.0)
    per_s = alternatives.load_sheet(alternatives.PRICE_SHEET).idle_per_s(memory_gb=1.0)
    assert row.idle_cny == pytest.approx((2 * 100 - 30) * per_s)
    assert busier.idle_cny == 0.0
    assert (bound.idle_cny, bound.bill_cny) == (None, None)


def test_bills_are_compared_with_the_measured_one() -> None:
    rows = alternatives.table_rows(
        [MEASURED, Alternative("functions alone", 0.2, 0.1, 20, 0.1), Alternative("bound", None, None, 0, None)]
    )
    assert rows == [
        ("edgeburst, measured", "99.00%", "0.01000", "0.03000 (8)", "0.04000"),
        ("functions alone", "20.00%", "0.10000", "0.10000 (20)", "0.20000 (500%)"),
        ("bound", "-", "-", "-", "none keeps the SLO"),
    ]


def test_the_last_screen_and_the_report_show_the_same_table() -> None:
    good = Outcome(0.0, 0.5, answered=True, wrong=False, correct=True, backend="edge", batch_id=1)
    run = Run(
        outcomes=[good],
        slo_s=1.0,
        steps_s=(),
        plans=[],
        money=Money(0.004, 0.0039, 0.02, 40, 0.05, 0.01, 0.003, 0.02),
        price_sheets={},
        cold_start=None,
        wall_s=6.5,
        emulated=[],
        seed=1,
        provisioned=16,
        alternatives=[Alternative("the edge <alone>", 0.2, 0.0, 0, 0.0)],
        alternatives_notes=["What is to be known."],
    )
    summary = json.loads(json.dumps(summarise(run)))
    page = report.page(summary, failures=[], plans=[], timeline_png=b"")
    screen = Console(file=io.StringIO(), width=79)
    tell_alternatives(screen, summary)
    assert isinstance(screen.file, io.StringIO)
    shown = screen.file.getvalue()
    assert "<td>edgeburst, measured</td><td>100.00%</td><td>0.00400</td><td>0.01000 (16)</td><td>0.01400</td>" in page
    assert "<td>the edge &lt;alone&gt;</td><td>20.00%</td>" in page
    for words in ("edgeburst, measured", "0.01000 (16)", "the edge <alone>", "What is to be known."):
        assert words in shown


@pytest.mark.parametrize(
    ("environ", "platform", "opens"),
    [({}, "linux", False), ({"DISPLAY": ":0"}, "linux", True), ({"BROWSER": "x"}, "linux", True), ({}, "darwin", True)],
)
def test_the_page_is_opened_only_where_there_is_a_screen(environ: dict[str, str], platform: str, opens: bool) -> None:
    opened: list[str] = []

    def browser(url: str) -> bool:
        opened.append(url)
        return True

    said = open_page("http://127.0.0.1:8600", environ, open_with=browser, platform=platform)
    assert opened == (["http://127.0.0.1:8600"] if opens else [])
    assert ("is opened" in said) is opens


def test_a_browser_that_does_not_start_is_a_sentence() -> None:
    def broken(_: str) -> bool:
        raise webbrowser.Error("could not locate runnable browser")

    for browser in (broken, lambda _: False):
        assert "by hand" in open_page("http://x", {"DISPLAY": ":0"}, open_with=browser, platform="linux")
