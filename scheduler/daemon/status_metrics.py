"""What /v1/status says of places, models and the state folder, as metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from scheduler.daemon.borrowing_metrics import money_metrics
from scheduler.daemon.counts import counter, gauge
from scheduler.domain.requests import Backend


def state_metrics(status: Mapping[str, Any]) -> Iterator[Metric]:
    """Yields what money and state folder are, as GET /v1/status shows them."""
    yield from money_metrics(status)
    state = status.get("state")
    if isinstance(state, Mapping) and state["folder"]:
        yield GaugeMetricFamily("edgeburst_state_up", "1 while the state folder can be used.", value=state["up"])
        failures = "Times that the state folder could not be used."
        yield CounterMetricFamily("edgeburst_state_failures", failures, value=state["failures"])
    recording = status.get("recording")
    if isinstance(recording, Mapping) and recording.get("folder"):
        text = "1 while arrivals can be recorded."
        yield GaugeMetricFamily("edgeburst_recording_up", text, value=not recording["failure"])
        text = "Arrivals and cancellations that were recorded."
        yield CounterMetricFamily("edgeburst_recording_written", text, value=recording["written"])
        text = "Arrivals and cancellations that could not be recorded."
        yield CounterMetricFamily("edgeburst_recording_lost", text, value=recording["lost"])


def circuits_opened(status: Mapping[str, Any]) -> Iterator[Metric]:
    """Yields how often circuits opened, and how many answers came too late to be used."""
    text = "Times that a place, or a model there (empty: the whole place), was seen to get no batches any more."
    rows = [((row["place"], row["model"]), row["times"]) for row in status.get("circuits_opened", ())]
    yield counter("edgeburst_circuit_openings", text, ("place", "model"), rows)
    if (late := status.get("late_answers")) is not None:
        text = "Answers of batches that had been given up: they are billed and used for nothing."
        yield CounterMetricFamily("edgeburst_late_answers", text, value=late)


def paces(rows: Iterable[Mapping[str, Any]]) -> Metric:
    """Returns how fast each place serves each model, beside the profile that it started from."""
    text = "Learned service time over that of the profile: 2 takes twice as long; absent: nothing was learned yet."
    learned = (((row["model"], row["place"]), row["times_profile"]) for row in rows if row["batches"])
    return gauge("edgeburst_service_to_profile_ratio", text, ("model", "place"), learned)


def models_up(rows: Iterable[Mapping[str, Any]]) -> Metric:
    """Returns where each model is believed to be answered; a backend that does not serve it has no value."""
    text = "1 while the backend gets batches of the model."
    family = GaugeMetricFamily("edgeburst_model_up", text, labels=["model", "backend"])
    for row in rows:
        for backend in Backend:
            if (up := row[f"{backend.value}_up"]) is not None:
                family.add_metric([row["model"], backend.value], float(up))
    return family
