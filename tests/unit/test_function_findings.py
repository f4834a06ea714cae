"""Findings about function tiers: too small ones are none, and metrics and the alarm say which tier is slower."""

import math

from scheduler.control import Control
from scheduler.daemon.telemetry import Telemetry
from scheduler.domain.plans import EngineSettings
from scheduler.domain.statistics import Changes
from scheduler.estimators import findings
from scheduler.estimators.changepoint import Change
from scheduler.estimators.start_changes import StartChanges
from scheduler.estimators.warm_instances import WarmInstances

PLAN = {"groups": [{"model": "m", "feasible": True, "outlooks": []}, {"model": "n", "feasible": True, "outlooks": []}]}


def change(before: float, after: float) -> Change:
    return Change(40, 7, math.log(before), math.log(after), 0.99)


def test_a_change_of_a_few_percent_is_no_finding() -> None:
    assert findings.of_function_service("m", "cpu", change(1.0, 1.1), 0.1) is None
    found = findings.of_function_service("m", "cpu", change(1.0, 1.5), 0.4)
    assert found is not None
    assert (found.cause, found.tier, found.slower) == ("function-service", ("m", "cpu"), True)
    assert found.detail == "m: tier cpu at 1.00 -> 1.50 times its profile, 7 batches ago"


def test_a_change_that_other_sizes_explain_is_no_finding() -> None:
    assert findings.of_function_service("m", "cpu", change(1.0, 3.0), 0.05) is None
    assert findings.of_function_service("m", "cpu", change(1.0, 3.0), -0.5) is None


def test_a_tier_is_slower_until_a_change_says_that_it_is_faster() -> None:
    control = Control(EngineSettings(models=()))
    for before, after, slower in ((1.0, 2.0, True), (2.0, 3.0, True), (3.0, 1.0, False)):
        found = findings.of_function_service("m", "cpu", change(before, after), math.log(after / before))
        assert found is not None
        control._found(found)
        assert control.changes().slower == ((("m", "cpu"),) if slower else ())
    control._found(findings.of_function_start("m", "cpu", change(1.0, 4.0)))
    assert control.changes() == Changes({"function-service": 3, "function-start": 1}, (("m", "cpu"),))


def test_the_metrics_count_changes_and_alarm_by_model() -> None:
    changes = {"found": {"function-service": 2}, "slower": [["m", "cpu"]]}
    status = {"engine": {"plan": PLAN, "changes": changes}}
    text = Telemetry(lambda: status, lambda: []).exposition().decode()
    assert 'edgeburst_changes_total{cause="function-service"} 2.0' in text
    assert 'edgeburst_alarm{alarm="function-slower",model="m"} 1.0' in text
    assert 'edgeburst_alarm{alarm="function-slower",model="n"} 0.0' in text


def test_starts_that_scatter_are_no_change_and_what_is_no_start_is_ignored() -> None:
    starts = StartChanges()
    scattered = [2.0, 2.4, 1.7, 2.1, 1.9, 2.3] * 10
    assert not any(starts.update(seconds) for seconds in (*scattered, 0.0, -1.0, math.inf, math.nan))
    assert any(starts.update(6.0) for _ in range(4))


def test_starts_of_another_regime_are_forgotten() -> None:
    warm = WarmInstances(prior_start_s=1.0)
    for _ in range(30):
        warm._note_start(1.0)
    for _ in range(3):
        warm._note_start(5.0)
    assert warm.start_s(0.5) < 1.5
    warm.keep_starts(3)
    assert warm.start_s(0.5) > 1.7
