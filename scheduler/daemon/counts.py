"""Counts as plain numbers, which become Prometheus' metrics when they are read.

A request changes a dozen of them. With the counters of prometheus_client each takes a look-up by labels and a lock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

Labels = tuple[str, ...]
"""Values of the labels, in the order of their names."""


class Counts(Collector):
    """Counters of one name, by labels.

    >>> counts = Counts("letters_read", "Letters.", ("letter",))
    >>> for letter in "aba":
    ...     counts.add((letter,))
    >>> [(sample.labels, sample.value) for metric in counts.collect() for sample in metric.samples[::2]]
    [({'letter': 'a'}, 2), ({'letter': 'b'}, 1)]
    """

    def __init__(
        self, name: str, text: str, labels: Sequence[str], *, registry: CollectorRegistry | None = None
    ) -> None:
        """Starts without counts; a registry reads it from then on."""
        self._named = name, text, tuple(labels)
        self._values: dict[Labels, int] = {}
        self._created_s: dict[Labels, float] = {}
        if registry is not None:
            registry.register(self)

    def add(self, labels: Labels, count: int = 1) -> None:
        """Counts."""
        try:
            self._values[labels] += count
        except KeyError:
            self._values[labels], self._created_s[labels] = count, _now_s()

    def collect(self) -> Iterator[Metric]:
        """Yields the metric."""
        name, text, labels = self._named
        family = CounterMetricFamily(name, text, labels=labels)
        for values, count in list(self._values.items()):
            family.add_metric(values, count, created=self._created_s[values])
        yield family

    def describe(self) -> Iterator[Metric]:
        """Yields the metric without counts: what a registry checks names with."""
        name, text, labels = self._named
        yield CounterMetricFamily(name, text, labels=labels)


class Distribution:
    """One histogram."""

    __slots__ = ("bounds", "counts", "created_s", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Starts without values; `bounds` ascend, and each belongs to the bucket below it."""
        self.bounds, self.counts, self.total = bounds, [0] * (len(bounds) + 1), 0.0
        self.created_s = _now_s()

    def observe(self, value: float) -> None:
        """Counts a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Distributions(Collector):
    """Histograms of one name, by labels; without labels there is one from the start.

    >>> seconds = Distributions("seconds_taken", "Seconds.", (), bounds=(0.1, 1.0))
    >>> for value_s in (0.1, 0.5, 7.0):
    ...     seconds.of(()).observe(value_s)
    >>> [(sample.name, sample.labels, sample.value) for metric in seconds.collect() for sample in metric.samples[:5]]
    ... # doctest: +NORMALIZE_WHITESPACE
    [('seconds_taken_bucket', {'le': '0.1'}, 1), ('seconds_taken_bucket', {'le': '1.0'}, 2),
     ('seconds_taken_bucket', {'le': '+Inf'}, 3), ('seconds_taken_count', {}, 3),
     ('seconds_taken_sum', {}, 7.6)]
    """

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        *,
        bounds: Sequence[float],
        registry: CollectorRegistry | None = None,
    ) -> None:
        """Starts without values; a registry reads it from then on."""
        self._named, self._bounds = (name, text, tuple(labels)), tuple(float(bound) for bound in bounds)
        self._of: dict[Labels, Distribution] = {}
        if not labels:
            self.of(())
        if registry is not None:
            registry.register(self)

    def of(self, labels: Labels) -> Distribution:
        """Returns the histogram with these labels."""
        known = self._of.get(labels)
        if known is None:
            known = self._of[labels] = Distribution(self._bounds)
        return known

    def collect(self) -> Iterator[Metric]:
        """Yields the metric."""
        name, text, labels = self._named
        family = HistogramMetricFamily(name, text, labels=labels)
        bounds = [*map(str, self._bounds), "+Inf"]
        for values, one in list(self._of.items()):
            family.add_metric(values, list(zip(bounds, accumulate(one.counts), strict=True)), one.total)
            family.add_sample(f"{name}_created", dict(zip(labels, values, strict=True)), one.created_s)
        yield family

    def describe(self) -> Iterator[Metric]:
        """Yields the metric without values: what a registry checks names with."""
        name, text, labels = self._named
        yield HistogramMetricFamily(name, text, labels=labels)


def _now_s() -> float:
    """Returns the time of day, which Prometheus is told of when a metric began."""
    return datetime.now(timezone.utc).timestamp()
