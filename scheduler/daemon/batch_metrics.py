"""Metrics of batches by model and place: how large, why they left, how they ended, and predicted against actual.

A batch costs a few additions, told by the ring that records it; families are made when the metrics are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from scheduler.daemon.counts import Distribution, counter, histogram
from scheduler.domain.batches import Batch

if TYPE_CHECKING:
    from scheduler.daemon.records import BatchRecord

ITEM_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
SERVICE_BOUNDS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 5.0, 10.0, 60.0)
RATIO_BOUNDS = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
ERROR_BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
START_BOUNDS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0)

_BY_PLACE = ("model", "place")
_BY_TIER = ("model", "tier")


@dataclass(slots=True)
class _Counted:
    """What is counted of one model at one place."""

    left: Counter[str] = field(default_factory=Counter)
    """By why they left."""
    failed: Counter[str] = field(default_factory=Counter)
    """By kind of failure."""
    items: Distribution = field(default_factory=lambda: Distribution(ITEM_BOUNDS))
    service: Distribution = field(default_factory=lambda: Distribution(SERVICE_BOUNDS_S))
    predicted_service_s: float = 0.0
    """Of the batches whose service is in `service`."""
    ratio: Distribution = field(default_factory=lambda: Distribution(RATIO_BOUNDS))
    error: Distribution = field(default_factory=lambda: Distribution(ERROR_BOUNDS_S))
    starts: Distribution = field(default_factory=lambda: Distribution(START_BOUNDS_S))
    hedged: int = 0
    calls: int = 0
    warming: int = 0
    cold: int = 0
    tier: str = ""


class BatchMetrics(Collector):
    """Counts by model and place, which are those of the configuration."""

    def __init__(self) -> None:
        """Starts without counts."""
        self.disbelieved: Counter[tuple[str, str]] = Counter()
        """Reports with a field that contradicts what was measured, by tier, or place on an edge, and field."""
        self._placements: Counter[tuple[str, str, str, str]] = Counter()
        """Requests by model, class, place and reason."""
        self._of: dict[tuple[str, str], _Counted] = {}

    def sent(self, batch: Batch, classes: Sequence[str] = ()) -> None:
        """Counts a batch that leaves, and its requests.

        Args:
            batch: the batch.
            classes: the class of each request, in the order of `request_ids`; empty: not known.
        """
        place, model = str(batch.place), batch.model
        counted = self._counted(model, place, batch.tier)
        if batch.why_left is not None:
            counted.left[batch.why_left._value_] += 1
        if batch.tier:
            counted.calls += 1
        if not batch.request_ids:
            counted.warming += 1
            return
        counted.items.observe(batch.items)
        if batch.hedge:
            counted.hedged += len(batch.request_ids)
        names, placements = classes or [""] * len(batch.reasons), self._placements
        for name, reason in zip(names, batch.reasons, strict=False):
            # The property `value` of an Enum takes two calls, and one of these is counted for each request.
            placements[model, name, place, reason._value_] += 1

    def ended(self, record: BatchRecord, *, late: bool = False) -> None:
        """Counts a batch that ended.

        Args:
            record: what is recorded of it.
            late: whether it was recorded before, when it was given up.
        """
        batch, report = record.batch, record.report
        counted = self._counted(batch.model, str(batch.place), batch.tier)
        if report.disbelieved:
            where = batch.tier or str(batch.place)
            self.disbelieved.update([(where, name) for name in report.disbelieved])
        if report.cold_start and batch.tier:
            counted.cold += 1
            if report.init_s is not None:
                counted.starts.observe(report.init_s)
        if record.error:
            if not late:
                counted.failed[record.error.partition(":")[0]] += 1
            return
        if batch.warming:
            return
        if report.service_s is not None:
            counted.service.observe(report.service_s)
            counted.predicted_service_s += batch.predicted_service_s
        predicted_s = batch.predicted_finish_s - batch.sent_at_s
        if predicted_s > 0:
            counted.ratio.observe(report.elapsed_s / predicted_s)
            counted.error.observe(abs(report.elapsed_s - predicted_s))

    def placements(self) -> list[dict[str, object]]:
        """Returns how many requests were sent to each place for each reason, hedged ones once for each copy."""
        found: Counter[tuple[str, str]] = Counter()
        for (_, _, place, reason), requests in self._placements.items():
            found[(place, reason)] += requests
        return [
            {"place": place, "reason": reason, "requests": requests}
            for (place, reason), requests in sorted(found.items())
        ]

    def left(self) -> list[dict[str, object]]:
        """Returns how many batches left for each place, by why they left when they did."""
        found: Counter[tuple[str, str]] = Counter()
        for (_, place), counted in self._of.items():
            for why, batches in counted.left.items():
                found[(place, why)] += batches
        return [{"place": place, "why": why, "batches": batches} for (place, why), batches in sorted(found.items())]

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics."""
        yield counter(
            "edgeburst_placements",
            "Requests sent to a place, by the reason that decided it; a hedged request counts for each copy.",
            ("model", "class", "place", "reason"),
            self._placements.items(),
        )
        rows, tiers = self._of, {(model, one.tier): one for (model, _), one in self._of.items() if one.tier}
        yield counter(
            "edgeburst_batches_left",
            "Batches sent to a place, by why they left when they did.",
            (*_BY_PLACE, "why"),
            [((*key, why), count) for key, one in rows.items() for why, count in one.left.items()],
        )
        yield counter(
            "edgeburst_batch_failures",
            "Batches that failed, by kind; throttled: refused for lack of capacity.",
            (*_BY_PLACE, "kind"),
            [((*key, kind), count) for key, one in rows.items() for kind, count in one.failed.items()],
        )
        text = "Second copies of requests whose batch on the other side was overdue, by where the copy went."
        yield counter("edgeburst_hedged_requests", text, _BY_PLACE, [(key, one.hedged) for key, one in rows.items()])
        text = "Calls of functions, warming calls included."
        yield counter("edgeburst_function_calls", text, _BY_TIER, [(key, one.calls) for key, one in tiers.items()])
        text = "Calls that met a cold start, as the functions report."
        yield counter("edgeburst_cold_starts", text, _BY_TIER, [(key, one.cold) for key, one in tiers.items()])
        text = "Calls without requests that keep function instances warm."
        yield counter("edgeburst_warming_calls", text, _BY_TIER, [(key, one.warming) for key, one in tiers.items()])
        yield histogram(
            "edgeburst_cold_start_init_seconds",
            "Initializer of an instance that began, as it reports.",
            _BY_TIER,
            [(key, one.starts) for key, one in tiers.items()],
        )
        yield from self._distributions()
        text = "Reports of functions and the edge with a field that contradicts what was measured."
        yield counter("edgeburst_disbelieved_reports", text, ("tier", "field"), self.disbelieved.items())

    def _distributions(self) -> Iterator[Metric]:
        rows = self._of
        text = "Items of a batch that was sent."
        yield histogram("edgeburst_batch_items", text, _BY_PLACE, [(key, one.items) for key, one in rows.items()])
        text = "Service of an answered batch, as its place reports it."
        yield histogram("edgeburst_service_seconds", text, _BY_PLACE, [(key, one.service) for key, one in rows.items()])
        yield counter(
            "edgeburst_predicted_service_seconds",
            "Predicted service of the batches that edgeburst_service_seconds counts.",
            _BY_PLACE,
            [(key, one.predicted_service_s) for key, one in rows.items()],
        )
        yield histogram(
            "edgeburst_finish_to_prediction_ratio",
            "From the send of a batch to its answer, over what was predicted then: 2 took twice as long.",
            _BY_PLACE,
            [(key, one.ratio) for key, one in rows.items()],
        )
        yield histogram(
            "edgeburst_finish_prediction_error_seconds",
            "Difference between predicted and actual answer of a batch, without its sign.",
            _BY_PLACE,
            [(key, one.error) for key, one in rows.items()],
        )

    def _counted(self, model: str, place: str, tier: str) -> _Counted:
        counted = self._of.get((model, place))
        if counted is None:
            counted = self._of[(model, place)] = _Counted(tier=tier)
        return counted
