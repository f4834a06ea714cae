"""Metrics of answered requests by model, class and place: latency with buckets around the SLOs, wait, items."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from scheduler.daemon.calls import Answer, InferenceCall
from scheduler.daemon.counts import Distribution, counter, histograms

BASE_BOUNDS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0)
AROUND_SLO = (0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0)
"""Multiples of an SLO that are bounds: where it is nearly missed and just missed, percentiles are read finely."""
MOST_FINE = 4
"""Different SLOs with all of these; where there are more, each is one bound. A bound of the number of series."""
LEAST_STEP = 1.04
"""Two bounds are this factor apart at least, but for the SLOs themselves."""


def bounds_around(slos_s: Iterable[float]) -> tuple[float, ...]:
    """Returns the bounds of latencies, seconds, ascending; each SLO is one of them.

    They are the same for all classes: only so can their histograms be added up.

    >>> [bound for bound in bounds_around([0.3]) if 0.1 < bound < 1.0]
    [0.15, 0.2, 0.225, 0.27, 0.3, 0.33, 0.375, 0.45, 0.5, 0.6]
    >>> len(bounds_around([0.01 * number for number in range(1, 33)])) <= len(BASE_BOUNDS_S) + 32
    True
    """
    exact = sorted({round(slo_s, 9) for slo_s in slos_s})
    around = [slo_s * factor for slo_s in exact for factor in AROUND_SLO] if len(exact) <= MOST_FINE else []
    bounds = list(exact)
    for candidate in (*BASE_BOUNDS_S, *around):
        if all(max(candidate / other, other / candidate) >= LEAST_STEP for other in bounds):
            bounds.append(float(f"{candidate:.6g}"))
    return tuple(sorted(bounds))


class _Of:
    """What is counted of one model, class and place."""

    __slots__ = ("items", "latency", "wait")

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self.latency, self.wait, self.items = Distribution(bounds_s), Distribution(bounds_s), 0


class AnswerMetrics(Collector):
    """Histograms of answers. Models and classes are those of the configuration, and so are places."""

    def __init__(self) -> None:
        """Starts without answers."""
        self.bounds_s = bounds_around(())
        self._of: dict[tuple[str, str, str], _Of] = {}

    def configure(self, slos_s: Iterable[float]) -> None:
        """Takes over the SLOs of the classes; where they are others than before, all histograms begin anew."""
        bounds_s = bounds_around(slos_s)
        if bounds_s != self.bounds_s:
            self.bounds_s = bounds_s
            self._of.clear()

    def answered(self, call: InferenceCall, answer: Answer, latency_s: float) -> None:
        """Counts an answer, `latency_s` after the last byte of its request."""
        key = call.model, call.class_name, answer.place or answer.backend.value
        known = self._of.get(key)
        if known is None:
            known = self._of[key] = _Of(self.bounds_s)
        # Written out without calls, as `observe` does it: for each request.
        bounds, latency, wait, wait_s = self.bounds_s, known.latency, known.wait, answer.wait_s
        latency.counts[bisect_left(bounds, latency_s)] += 1
        latency.total += latency_s
        wait.counts[bisect_left(bounds, wait_s)] += 1
        wait.total += wait_s
        known.items += call.items

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics."""
        labels = ("model", "class", "place")
        latency = "From a request's last byte to its answer."
        yield from histograms(
            "edgeburst_request_seconds", latency, labels, [(key, one.latency) for key, one in self._of.items()]
        )
        wait = "From a request's last byte until its batch is sent."
        yield from histograms(
            "edgeburst_wait_seconds", wait, labels, [(key, one.wait) for key, one in self._of.items()]
        )
        yield counter("edgeburst_items", "Items answered.", labels, [(key, one.items) for key, one in self._of.items()])
