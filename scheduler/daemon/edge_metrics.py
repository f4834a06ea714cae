"""Metrics of the edge servers by name, as the configuration has them."""

from collections.abc import Iterator, Mapping
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


def edge_metrics(engine: Mapping[str, Any]) -> Iterator[Metric]:
    """Yields the metrics of each edge server, and of each model on it, as GET /v1/status shows the engine."""
    rows = engine.get("edges") or ()
    for key, name, text in _GAUGES:
        family = GaugeMetricFamily(name, text, labels=["edge"])
        for row in rows:
            family.add_metric([row["name"]], float(row[key]))
        yield family
    text = "1 while the edge server gets batches of the model; absent: it does not serve it."
    of_models = GaugeMetricFamily("edgeburst_edge_model_up", text, labels=["edge", "model"])
    for model in engine.get("models_up") or ():
        for edge, up in model.get("edges") or ():
            of_models.add_metric([edge, model["model"]], float(up))
    yield of_models
