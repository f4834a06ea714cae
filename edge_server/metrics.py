"""The metrics of /metrics, in their own registry: in base units, with labels from closed sets only."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric

from edge_server.environment import version_of
from models.runtime import RuntimeReport

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0, 5.0)
_ITEMS = (1, 2, 4, 8, 12, 16, 20, 24, 32, 48, 64, 96, 128)


class _OfModel(NamedTuple):
    """The metrics of one model: finding them by their labels takes longer than counting."""

    batch_items: Histogram
    service_s: Histogram
    queue_s: Histogram
    ok: Counter
    broken: Counter


class Metrics:
    """Metrics of the server.

    Args:
        in_hand: returns the number of batches that are served or wait.
        ready: returns whether the server accepts batches.
    """

    def __init__(self, *, in_hand: Callable[[], int], ready: Callable[[], bool]) -> None:
        """Registers every metric."""
        self._registry = registry = CollectorRegistry()
        self._of_models: dict[str, _OfModel] = {}
        self._service_s = Histogram(
            "edgeburst_edge_service_seconds",
            "Service time of a batch: decoding and device.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._queue_s = Histogram(
            "edgeburst_edge_queue_seconds",
            "Waiting time of a batch in the server.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._batch_items = Histogram(
            "edgeburst_edge_batch_items", "Items in a batch.", ["model"], buckets=_ITEMS, registry=registry
        )
        self._items = Counter(
            "edgeburst_edge_items_total",
            "Items answered, by outcome: ok, or broken (a picture that could not be decoded).",
            ["model", "outcome"],
            registry=registry,
        )
        self._responses = Counter(
            "edgeburst_edge_responses_total", "HTTP responses, by status.", ["code"], registry=registry
        )
        self._model_info = Gauge(
            "edgeburst_edge_model_info",
            "1 for each model that is served; the labels say which files they are and what computes it.",
            ["model", "runtime", "device", "precision", "identity"],
            registry=registry,
        )
        Gauge(
            "edgeburst_edge_build_info",
            "1; the labels say which release runs on which Python.",
            ["version", "python"],
            registry=registry,
        ).labels(version_of("edgeburst") or "", platform.python_version()).set(1)
        Gauge("edgeburst_edge_batches_in_hand", "Batches that are served or wait.", registry=registry).set_function(
            in_hand
        )
        Gauge("edgeburst_edge_ready", "1 while the server accepts batches, else 0.", registry=registry).set_function(
            ready
        )

    def serves(self, model: str, runtime: RuntimeReport, identity: str | None) -> None:
        """Notes what computes a model, and the identity of its card and files (empty: unknown)."""
        self._model_info.labels(model, runtime.name, runtime.device, runtime.precision, identity or "").set(1)

    def served(self, *, model: str, items: int, broken: int, service_s: float, queue_s: float) -> None:
        """Counts one answered batch of `items`, of which `broken` were broken pictures."""
        of_model = self._of_models.get(model)
        if of_model is None:
            of_model = self._of_models[model] = _OfModel(
                self._batch_items.labels(model),
                self._service_s.labels(model),
                self._queue_s.labels(model),
                self._items.labels(model, "ok"),
                self._items.labels(model, "broken"),
            )
        of_model.batch_items.observe(items)
        of_model.service_s.observe(service_s)
        of_model.queue_s.observe(queue_s)
        of_model.ok.inc(items - broken)
        of_model.broken.inc(broken)

    def responded(self, status: int) -> None:
        """Counts one HTTP response."""
        self._responses.labels(str(status)).inc()

    def exposition(self) -> bytes:
        """Returns all metrics in the text format of Prometheus."""
        return generate_latest(_WithoutCreated(self._registry))


class _WithoutCreated(CollectorRegistry):
    """A registry without the series that say when each of its others began: nothing uses them, and they are as many.

    The switch of prometheus_client is one for the whole process, which Ray may share.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._all = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._all.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
