"""What /v1/status says of places, batches, models and the state folder, as metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from scheduler.daemon.borrowing_metrics import money_metrics
from scheduler.domain.requests import Backend


def state_metrics(status: Mapping[str, Any]) -> Iterator[Metric]:
    """Yields what money and state folder are, as GET /v1/status shows them."""
    yield from money_metrics(status)
    state = status.get("state")
    if isinstance(state, Mapping) and state["folder"]:
        yield GaugeMetricFamily("edgeburst_state_up", "1 while the state folder can be used.", value=state["up"])
        failures = "Times that the state folder could not be used."
        yield CounterMetricFamily("edgeburst_state_failures", failures, value=state["failures"])


def batches_left(status: Mapping[str, Any]) -> Metric:
    """Returns why batches left."""
    left = "Batches sent to a place, by why they left when they did."
    family = CounterMetricFamily("edgeburst_batches_left", left, labels=["place", "why"])
    for row in status.get("batches_left", ()):
        family.add_metric([row["place"], row["why"]], row["batches"])
    return family


def placements(status: Mapping[str, Any]) -> Metric:
    """Returns where requests were sent, and why."""
    sent = "Requests sent to a place, by the reason that decided it; a hedged request counts for each copy."
    family = CounterMetricFamily("edgeburst_placements", sent, labels=["place", "reason"])
    for row in status.get("placements", ()):
        family.add_metric([row["place"], row["reason"]], row["requests"])
    return family


def disbelieved(status: Mapping[str, Any]) -> Metric:
    """Returns which reports are not believed."""
    text = "Reports of functions and the edge with a field that contradicts what was measured."
    family = CounterMetricFamily("edgeburst_disbelieved_reports", text, labels=["tier", "field"])
    for row in status.get("disbelieved", ()):
        family.add_metric([row["tier"], row["field"]], row["reports"])
    return family


def models_up(rows: Iterable[Mapping[str, Any]]) -> Metric:
    """Returns where each model is believed to be answered; a backend that does not serve it has no value."""
    text = "1 while the backend gets batches of the model."
    family = GaugeMetricFamily("edgeburst_model_up", text, labels=["model", "backend"])
    for row in rows:
        for backend in Backend:
            if (up := row[f"{backend.value}_up"]) is not None:
                family.add_metric([row["model"], backend.value], float(up))
    return family
