"""Findings about function tiers: too small ones are none, and metrics and the alarm say which tier is slower."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.control import Control
from scheduler.daemon.telemetry import Telemetry
from scheduler.domain.plans import EngineSettings
from scheduler.estimators import findings
from scheduler.estimators.changepoint import Change
from scheduler.estimators.service_changes import ServiceChanges
from scheduler.estimators.start_changes import StartChanges
from scheduler.estimators.warm_instances import WarmInstances

GROUP = {"feasible": True, "outlooks": [], "expected_spill_fraction": 0.0, "expected_cost_per_s": 0.0}
PLAN = {"made_at_s": 0.0, "cause": "rate", "groups": [{"model": "m", **GROUP}, {"model": "n", **GROUP}]}


def change(before: float, after: float) -> Change:
    return Change(40, 7, math.log(before), math.log(after), 0.99)


def shown(levels_before: list[float], levels_after: list[float], *, item_bytes: float = 1e4) -> list[Change]:
    """Returns what is shown of a change that the detector suspects after four of the later levels."""
    changes = ServiceChanges()
    for number, level in enumerate(levels_before):
        changes.note(1e4, level, sent_at_s=number, elapsed_s=1.0)
    found = []
    for number, level in enumerate(levels_after):
        changes.note(item_bytes, level, sent_at_s=len(levels_before) + number, elapsed_s=1.0)
        suspected = Change(99, 4, 0.0, level, 0.99) if number == 3 else None
        seen = changes.shown(suspected, open_since_s=math.inf)
        found += [seen] if seen else []
    return found


def normal(mean: float, count: int, *, seed: int = 0) -> list[float]:
    return [float(level) for level in np.random.default_rng(seed).normal(mean, 0.25, count)]


def test_a_change_is_shown_once_and_named() -> None:
    [seen] = shown(normal(0.0, 60), normal(math.log(1.5), 60, seed=1))
    found = findings.of_function_service("m", "cpu", seen)
    assert (found.cause, found.tier, found.slower) == ("function-service", ("m", "cpu"), True)
    assert abs(seen.after_mean - seen.before_mean - math.log(1.5)) < 0.25
    assert f"times its profile, {seen.run_length} batches ago" in found.detail


@pytest.mark.parametrize("step", [0.0, 0.1])
def test_chance_and_a_few_percent_are_no_change(step: float) -> None:
    assert shown([0.0, 0.02] * 30, [step, step + 0.02] * 70) == []


def test_other_sizes_of_items_are_no_change() -> None:
    assert shown(normal(0.0, 60), normal(1.0, 60, seed=1), item_bytes=3e5) == []


@given(st.integers(0, 10_000), st.floats(0.05, 0.5))
@settings(max_examples=30, deadline=None)
def test_the_fastest_first_are_no_change(seed: int, sigma: float) -> None:
    """Batches are sent ten together and come back in the order of their services; each time the detector suspects."""
    rng, changes, found = np.random.default_rng(seed), ServiceChanges(), []
    for burst in range(30):
        levels = sorted(float(level) for level in rng.normal(0.0, sigma, 10))
        for place, level in enumerate(levels):
            changes.note(1e4, level, sent_at_s=burst, elapsed_s=1.0)
            slow = Change(0, 5, -sigma, sigma, 0.99) if burst > 2 and place == 9 else None
            fast = Change(0, 5, sigma, -sigma, 0.99) if burst > 2 and place == 4 else None
            found.append(changes.shown(slow or fast, open_since_s=math.inf if place == 9 else burst))
    assert not any(found)


def test_a_tier_is_slower_until_a_change_says_that_it_is_faster() -> None:
    control = Control(EngineSettings(models=()))
    for before, after, slower in ((1.0, 2.0, True), (2.0, 3.0, True), (3.0, 1.0, False)):
        found = findings.of_function_service("m", "cpu", change(before, after))
        control._found(found)
        assert control.figures(0.0)["changes"].slower == ((("m", "cpu"),) if slower else ())
    control._found(findings.of_function_start("m", "cpu", change(1.0, 4.0)))
    changes = control.figures(0.0)["changes"]
    assert (changes.found, changes.slower) == ({"function-service": 3, "function-start": 1}, (("m", "cpu"),))
    assert [each.cause for each in changes.latest] == ["function-service"] * 3 + ["function-start"]


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
