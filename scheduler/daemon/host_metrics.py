"""Metrics of the daemon as a process: its release, whether it is ready, and the host's clocks; and its objectives."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from scheduler.daemon.clocks import ClockWatch, wall_s
from scheduler.daemon.counts import gauge
from scheduler.domain.plans import ServiceClass

BY_CLASS = ("model", "class")


class HostMetrics(Collector):
    """What is read when the metrics are."""

    def __init__(
        self,
        version: str,
        *,
        ready: Callable[[], bool] = bool,
        clocks: ClockWatch | None = None,
        wall: Callable[[], float] = wall_s,
    ) -> None:
        """Stores its parts.

        Args:
            version: the release.
            ready: returns whether requests are accepted.
            clocks: what notices steps; None: a new one, at which nothing looks.
            wall: seconds since 1970.
        """
        self._version, self._ready, self._wall = version, ready, wall
        self.clocks = ClockWatch() if clocks is None else clocks
        self._classes: tuple[tuple[str, ServiceClass], ...] = ()

    def configure(self, classes: Iterable[tuple[str, ServiceClass]]) -> None:
        """Takes over the classes, each with the name of its model."""
        self._classes = tuple(classes)

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics."""
        build = {(self._version, platform.python_version()): 1.0}
        text = "1; the labels say which release runs on which Python."
        yield gauge("edgeburst_build_info", text, ("version", "python"), build.items())
        text = "1 while requests are accepted, 0 while the daemon starts or stops."
        yield GaugeMetricFamily("edgeburst_ready", text, value=float(self._ready()))
        text = "The host's wall clock, seconds since 1970."
        yield GaugeMetricFamily("edgeburst_time_seconds", text, value=self._wall())
        text = "Times that the host's wall clock was set by more than a second."
        yield CounterMetricFamily("edgeburst_clock_steps", text, value=self.clocks.steps)
        text = "Seconds by which it was set, ahead or back."
        yield CounterMetricFamily("edgeburst_clock_stepped_seconds", text, value=self.clocks.stepped_in_all_s)
        text = "Times that the host slept."
        yield CounterMetricFamily("edgeburst_host_sleeps", text, value=self.clocks.sleeps)
        named = [((model, each.name), each) for model, each in self._classes]
        text = "Latency that the class promises."
        yield gauge("edgeburst_class_slo_seconds", text, BY_CLASS, ((key, each.slo_s) for key, each in named))
        text = "Fraction of the class's requests that must be answered within it."
        yield gauge("edgeburst_class_objective_ratio", text, BY_CLASS, ((key, each.percentile) for key, each in named))
