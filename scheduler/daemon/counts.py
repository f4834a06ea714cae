"""Counts as plain numbers, which become Prometheus' metrics when they are read.

A request changes a dozen of them. With the counters of prometheus_client each takes a look-up by labels and a lock.
There are no series `_created`: they would double the number, and `process_start_time_seconds` says when it all began.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

Labels = tuple[str, ...]
"""Values of the labels, in the order of their names."""
LINES = 128
"""Lines of text that are made at once: about a millisecond's work."""


class Counts(Collector):
    """Counters of one name, by labels.

    >>> counts = Counts("letters_read", "Letters.", ("letter",))
    >>> for letter in "aba":
    ...     counts.add((letter,))
    >>> [(sample.labels, sample.value) for metric in counts.collect() for sample in metric.samples]
    [({'letter': 'a'}, 2), ({'letter': 'b'}, 1)]
    """

    def __init__(
        self, name: str, text: str, labels: Sequence[str], *, registry: CollectorRegistry | None = None
    ) -> None:
        """Starts without counts; a registry reads it from then on."""
        self._named = name, text, tuple(labels)
        self._values: dict[Labels, int] = {}
        if registry is not None:
            registry.register(self)

    def add(self, labels: Labels, count: int = 1) -> None:
        """Counts."""
        try:
            self._values[labels] += count
        except KeyError:
            self._values[labels] = count

    def begin(self, labels: Labels) -> None:
        """Shows a counter before it counts: Prometheus sees no growth in one that appears with its first count."""
        self._values.setdefault(labels, 0)

    def items(self) -> Iterable[tuple[Labels, int]]:
        """Returns the counts by labels."""
        return self._values.items()

    def collect(self) -> Iterator[Metric]:
        """Yields the metric."""
        yield counter(*self._named, self._values.items())

    def describe(self) -> Iterator[Metric]:
        """Yields the metric without counts: what a registry checks names with."""
        name, text, labels = self._named
        yield CounterMetricFamily(name, text, labels=labels)


class Distribution:
    """One histogram."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Starts without values; `bounds` ascend, and each belongs to the bucket below it."""
        self.bounds, self.counts, self.total = bounds, [0] * (len(bounds) + 1), 0.0

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
        yield histogram(*self._named, self._of.items())

    def describe(self) -> Iterator[Metric]:
        """Yields the metric without values: what a registry checks names with."""
        name, text, labels = self._named
        yield HistogramMetricFamily(name, text, labels=labels)


def counter(name: str, text: str, labels: Sequence[str], rows: Iterable[tuple[Labels, float]]) -> Metric:
    """Returns counters of one name, by labels."""
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in rows:
        family.add_metric(key, value)
    return family


def gauge(name: str, text: str, labels: Sequence[str], rows: Iterable[tuple[Labels, float]]) -> Metric:
    """Returns gauges of one name, by labels."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in rows:
        family.add_metric(key, value)
    return family


def histograms(
    name: str, text: str, labels: Sequence[str], rows: Iterable[tuple[Labels, Distribution]]
) -> Iterator[Metric]:
    """Yields histograms of one name one by one, for a reader that takes them in turns with other work."""
    yield histogram(name, text, labels, ())
    for row in list(rows):
        yield histogram(name, text, labels, (row,))


def exposition_pieces(metrics: Iterable[Metric]) -> Iterator[bytes]:
    """Yields the lines of metrics in Prometheus' text format, a bounded number at a time.

    Metrics of one name that follow each other are one with one heading.

    >>> rows = [(("a",), 1.0), (("b",), 2.0)]
    >>> text = b"".join(exposition_pieces([gauge("level", "A level.", ("of",), [row]) for row in rows]))
    >>> print(text.decode(), end="")
    # HELP level A level.
    # TYPE level gauge
    level{of="a"} 1.0
    level{of="b"} 2.0
    """
    before = ""
    for metric in metrics:
        samples = metric.samples
        for start in range(0, max(1, len(samples)), LINES):
            metric.samples = samples[start : start + LINES]
            lines = generate_latest(_Alone(metric))
            yield lines.split(b"\n", 2)[2] if metric.name == before else lines
            before = metric.name


class _Alone(Collector):
    """One metric that is collected already."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        yield self._metric


def histogram(name: str, text: str, labels: Sequence[str], rows: Iterable[tuple[Labels, Distribution]]) -> Metric:
    """Returns histograms of one name, by labels."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, one in rows:
        bounds = [*map(str, one.bounds), "+Inf"]
        family.add_metric(key, list(zip(bounds, accumulate(one.counts), strict=True)), one.total)
    return family
