"""Metrics of the plan in force: how old it is, why it was made, what it promises, and the changes that were found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from scheduler.daemon.counts import counter, gauge
from scheduler.estimators.found_changes import CHANGES

_BY_CLASS = ("model", "class")
CAUSES = sorted(CHANGES)
"""Of changes that can be found."""


def plan_metrics(status: Mapping[str, Any]) -> Iterator[Metric]:
    """Yields what a plan promises each class, the changes found, and the alarms, as GET /v1/status shows them."""
    adopted = [((cause,), plans) for cause, plans in (status.get("plans_adopted") or {}).items()]
    yield counter("edgeburst_plans", "Plans that were adopted, by cause.", ("cause",), adopted)
    engine = status.get("engine")
    plan = engine.get("plan") if isinstance(engine, Mapping) else None
    if not isinstance(engine, Mapping) or not plan:
        return
    if "now_s" in status:
        text = "Since the plan in force was made."
        yield GaugeMetricFamily("edgeburst_plan_age_seconds", text, value=status["now_s"] - plan["made_at_s"])
    text = "1; the label says why the plan in force was made."
    yield gauge("edgeburst_plan_info", text, ("cause",), (((plan["cause"],), 1.0),))
    yield from _promises(plan["groups"], engine.get("changes") or {})


def _promises(groups: list[dict[str, Any]], changes: Mapping[str, Any]) -> Iterator[Metric]:
    classes = [((group["model"], each["name"]), each) for group in groups for each in group["outlooks"]]
    text = "1 while the present plan keeps the class's percentile."
    yield gauge("edgeburst_plan_feasible", text, _BY_CLASS, ((key, float(each["feasible"])) for key, each in classes))
    text = "Fraction of the class's items that the present plan expects in time."
    expected = ((key, each["expected_within_slo"]) for key, each in classes)
    yield gauge("edgeburst_plan_expected_within_slo", text, _BY_CLASS, expected)
    text = "Fraction of the model's items that the present plan expects at functions."
    spilled = (((group["model"],), group["expected_spill_fraction"]) for group in groups)
    yield gauge("edgeburst_plan_expected_spill_ratio", text, ("model",), spilled)
    text = "Money that the present plan expects the model's functions to cost in a second."
    cost = (((group["model"],), group["expected_cost_per_s"]) for group in groups)
    yield gauge("edgeburst_plan_expected_cost_per_second", text, ("model",), cost)
    slower = {model for model, _ in changes.get("slower", ())}
    alarms = [(("plan-infeasible", group["model"]), float(not group["feasible"])) for group in groups]
    alarms += [(("function-slower", group["model"]), float(group["model"] in slower)) for group in groups]
    text = "1 while the condition that `alarm` names needs attention."
    yield gauge("edgeburst_alarm", text, ("alarm", "model"), alarms)
    found = [((cause,), count) for cause, count in {**dict.fromkeys(CAUSES, 0), **changes.get("found", {})}.items()]
    yield counter("edgeburst_changes", "Changes that were found, by what changed.", ("cause",), found)
