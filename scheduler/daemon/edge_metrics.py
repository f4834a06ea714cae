"""Metrics of the edge servers by name, as the configuration has them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

_GAUGES = (
    ("up", "edgeburst_edge_up", "1 while the edge server is used."),
    ("batches_in_flight", "edgeburst_edge_in_flight_batches", "Batches that the edge server has."),
    ("parallel", "edgeburst_edge_parallel", "Batches that the edge server is given at once."),
    (
        "ahead_s",
        "edgeburst_edge_ahead_seconds",
        "Seconds before a batch is expected back at which the next one is sent to it; 0: not before it is back.",
    ),
)


_SHARED = (
    (
        "trusted",
        "edgeburst_edge_shared",
        "1 while forecasts count with the wait for other daemons that the edge server reports, 0 while they do not yet "
        "or not any more; absent: no batch waits for others.",
    ),
    (
        "learned_s",
        "edgeburst_edge_others_wait_seconds",
        "Wait of a batch behind those of other daemons that forecasts count with.",
    ),
    (
        "observed_s",
        "edgeburst_edge_others_wait_observed_seconds",
        "Mean wait of the latest batches behind those of other daemons, as the edge server reports it.",
    ),
)


def edge_metrics(engine: Mapping[str, Any]) -> Iterator[Metric]:
    """Yields the metrics of each edge server, and of each model on it, as GET /v1/status shows the engine."""
    rows = engine.get("edges") or ()
    for key, name, text in _GAUGES:
        family = GaugeMetricFamily(name, text, labels=["edge"])
        for row in rows:
            family.add_metric([row["name"]], float(row[key]))
        yield family
    yield from _shared(engine.get("shared_edges") or ())
    text = "1 while the edge server gets batches of the model; absent: it does not serve it."
    of_models = GaugeMetricFamily("edgeburst_edge_model_up", text, labels=["edge", "model"])
    for model in engine.get("models_up") or ():
        for edge, up in model.get("edges") or ():
            of_models.add_metric([edge, model["model"]], float(up))
    yield of_models


def _shared(rows: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    """Yields what is known of other daemons at each edge server, by model."""
    for key, name, text in _SHARED:
        family = GaugeMetricFamily(name, text, labels=["edge", "model"])
        for row in rows:
            family.add_metric([row["edge"], row["model"]], float(row[key]))
        yield family
