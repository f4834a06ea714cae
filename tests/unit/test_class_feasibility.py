"""Feasibility class by class: a class that cannot be served is named, however easy the others are."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import cli
from scheduler.daemon.plan_alarms import PlanAlarms
from scheduler.daemon.status import jsonable
from scheduler.daemon.telemetry import Telemetry
from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.plans import EngineSettings, ModelEstimates, ModelSettings, Plan, ServiceClass, Snapshot
from scheduler.planner.site.plan import best_plan

EDGE = LatencyModel(0.04, 0.01, 64)
TIER = FunctionTier("1gb", "digits", LatencyModel(0.2, 0.1, 8), Price(per_s=1e-5, per_call=1e-6))
EASY = ServiceClass("easy", slo_s=2.0)
HOPELESS = ServiceClass("hopeless", slo_s=0.03)
"""An item alone takes 0.05 s on the edge."""
QUICK = ServiceClass("quick", slo_s=0.2)
"""In time on the edge only."""


def plan(
    *classes: ServiceClass,
    rate_rps: float = 20.0,
    shares: dict[str, float] | None = None,
    edge: LatencyModel | None = EDGE,
    tiers: tuple[FunctionTier, ...] = (TIER,),
    function_up: bool = True,
) -> Plan:
    model = ModelSettings("digits", classes=classes, edge_latency=edge, tiers=tiers)
    estimates = ModelEstimates(
        rate_rps=rate_rps,
        dispersion=1.0,
        item_bytes=0.0,
        edge_latency=edge,
        edge_quantile_factor={},
        function_latencies={},
        function_quantile_factor={},
        class_shares=shares or {},
    )
    taken = Snapshot(
        taken_at_s=0.0,
        settings=EngineSettings(models=(model,)),
        models={"digits": estimates},
        uplink_bytes_per_s=None,
        uplink_rtt_s=0.02,
        function_up=function_up,
    )
    return best_plan(taken, plan_id=1, cause="rate", detail="")


def test_an_impossible_class_makes_the_plan_infeasible_beside_an_easy_one() -> None:
    [group] = plan(HOPELESS, EASY, shares={"hopeless": 0.25, "easy": 0.75}).groups
    hopeless, easy = group.outlooks
    assert (hopeless.feasible, easy.feasible, group.feasible) == (False, True, False)
    assert hopeless.expected_within_slo == 0.0
    assert easy.expected_within_slo > 0.99
    assert group.expected_within_slo == pytest.approx(0.75 * easy.expected_within_slo)
    assert "class 'hopeless' of model 'digits'" in group.reason
    assert "the edge needs 0.050 s even for a single item and a function needs 0.320 s" in group.reason
    assert easy.reason == ""


def test_the_order_and_the_shares_of_the_classes_do_not_hide_it() -> None:
    [group] = plan(EASY, HOPELESS, shares={"easy": 1.0}).groups
    assert not group.feasible
    assert "'hopeless'" in group.reason


def test_the_edge_is_kept_for_classes_that_only_it_can_answer() -> None:
    # The edge keeps under 90 items a second of 120; half of them need it, and the rest can go to functions.
    [group] = plan(QUICK, EASY, rate_rps=120.0).groups
    assert group.expected_spill_fraction > 0.1
    assert group.feasible
    # With no function at all, both classes are short of the edge: the one that has no choice comes first.
    [alone] = plan(QUICK, EASY, rate_rps=120.0, tiers=()).groups
    assert not alone.feasible


def test_a_class_that_may_not_leave_the_site_is_judged_by_the_edge_alone() -> None:
    kept = ServiceClass("kept", slo_s=0.03, edge_only=True)
    [group] = plan(kept, EASY).groups
    assert "its data may not leave the site" in group.reason
    [overloaded] = plan(replace(kept, slo_s=2.0), EASY, rate_rps=300.0, shares={"kept": 0.9, "easy": 0.1}).groups
    kept_outlook, easy = overloaded.outlooks
    # The edge keeps at most 100 items a second; 270 may go nowhere else.
    assert kept_outlook.expected_within_slo < 100 / 270
    assert easy.feasible


def test_functions_that_are_down_fail_only_the_classes_that_need_them() -> None:
    slow_edge = LatencyModel(0.5, 0.01, 64)
    quick, slow = ServiceClass("quick", slo_s=0.4), ServiceClass("slow", slo_s=5.0)
    up, down = (plan(quick, slow, edge=slow_edge, rate_rps=5.0, function_up=each).groups[0] for each in (True, False))
    assert up.feasible
    assert [each.feasible for each in down.outlooks] == [False, True]
    assert "not answering: function" in down.reason


@settings(max_examples=100, deadline=None)
@given(rate_rps=st.floats(0, 400), slo_s=st.floats(0.03, 3), other_s=st.floats(0.03, 3), up=st.booleans())
def test_the_whole_is_the_sum_of_its_classes(rate_rps: float, slo_s: float, other_s: float, up: bool) -> None:
    shares = {"one": 0.3, "two": 0.7}
    one, two = ServiceClass("one", slo_s=slo_s), ServiceClass("two", slo_s=other_s)
    [group] = plan(one, two, rate_rps=rate_rps, shares=shares, function_up=up).groups
    assert [each.name for each in group.outlooks] == ["one", "two"]
    assert group.feasible == all(each.feasible for each in group.outlooks)
    assert all(each.feasible == (each.reason == "") for each in group.outlooks)
    assert all(0 <= each.expected_within_slo <= 1 for each in group.outlooks)
    total = sum(shares[each.name] * each.expected_within_slo for each in group.outlooks)
    assert group.expected_within_slo == pytest.approx(min(1.0, total), abs=1e-9)


def test_the_metrics_name_the_class_and_raise_an_alarm() -> None:
    status = {"engine": jsonable({"plan": plan(HOPELESS, EASY)})}
    text = Telemetry(lambda: status, lambda: ()).exposition().decode()
    assert 'edgeburst_plan_feasible{class="hopeless",model="digits"} 0.0' in text
    assert 'edgeburst_plan_feasible{class="easy",model="digits"} 1.0' in text
    assert 'edgeburst_plan_expected_within_slo{class="hopeless",model="digits"} 0.0' in text
    assert 'edgeburst_alarm{alarm="plan-infeasible",model="digits"} 1.0' in text
    calm = {"engine": jsonable({"plan": plan(EASY)})}
    text = Telemetry(lambda: calm, lambda: ()).exposition().decode()
    assert 'edgeburst_alarm{alarm="plan-infeasible",model="digits"} 0.0' in text


def test_the_log_says_it_once_and_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="edgeburst")
    alarms = PlanAlarms()
    for each in (plan(EASY, HOPELESS), plan(EASY, HOPELESS), plan(EASY)):
        alarms.adopted(each)
    assert [record.getMessage() for record in caplog.records] == ["plan_infeasible", "plan_feasible_again"]
    assert caplog.records[0].levelno == logging.WARNING
    assert caplog.records[0].__dict__["fields"]["slo_class"] == "hopeless"


def test_the_command_shows_every_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "edgeburst.toml"
    path.write_text(
        '[edge]\n[[model]]\nname = "digits"\nedge_profile = "orin-resnet50"\n'
        '[[model.class]]\nname = "easy"\nslo_s = 2.0\n[[model.class]]\nname = "hopeless"\nslo_s = 0.03\n'
    )
    assert cli.main(["plan", "--config", str(path), "--rps", "20"]) == 1
    text = capsys.readouterr().out
    assert "hopeless 0.00%" in text
    assert "not feasible    100% of 10 items a second of class 'hopeless'" in text
    assert cli.main(["check-config", "--config", str(path)]) == 0
    assert "class hopeless of model digits has an SLO of 0.03 s" in capsys.readouterr().out
