"""What each configured tenant, and all others together, sent, got in time and cost: for Prometheus and /v1/status."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from scheduler.daemon.calls import InferenceCall
from scheduler.daemon.counts import Distribution, counter, gauge, histograms
from scheduler.domain.tenants import tenant_label

_OF_TENANT = (
    (
        "spent",
        "edgeburst_tenant_spent",
        "Money that a tenant's part of the function batches cost, those in flight too.",
    ),
    ("open_requests", "edgeburst_tenant_open_requests", "Requests of a tenant that wait or are in flight."),
    ("share", "edgeburst_tenant_share_ratio", "Part of the whole that a tenant's share is."),
)
_WINDOWS = (("hour", "spent_hour"), ("day", "spent_day"))
_LABELS = ("tenant", "model", "class")


@dataclass(slots=True)
class _Count:
    """Requests of one tenant, model and class."""

    latency: Distribution
    ended: int = 0
    """Answered or refused; not those that clients sent wrong or gave up."""
    within_slo: int = 0


class TenantMetrics(Collector):
    """Counts by tenant, model and class; nothing is counted while no tenant is configured."""

    def __init__(self, status: Callable[[], Mapping[str, object]]) -> None:
        """Stores what returns the daemon's state; it is called when the metrics are read."""
        self._status = status
        self._names: frozenset[str] = frozenset()
        self.any = False
        """Whether a tenant is configured."""
        self._bounds_s: tuple[float, ...] = ()
        self._counts: dict[tuple[str, str, str], _Count] = {}
        self._costs: dict[tuple[str, str, str], float] = {}
        """The highest so far: a counter must not fall where a bill is corrected downwards."""

    def configure(self, names: Collection[str], bounds_s: tuple[float, ...] = ()) -> None:
        """Takes over the names of the configured tenants; those that have left keep their counts.

        Args:
            names: of the tenants.
            bounds_s: of the histograms of latency, seconds; where they are others, these begin anew.
        """
        self._names = frozenset(names)
        self.any = bool(self._names)
        if bounds_s != self._bounds_s:
            self._bounds_s = bounds_s
            for count in self._counts.values():
                count.latency = Distribution(bounds_s)

    def answered(self, call: InferenceCall, *, within_slo: bool, latency_s: float) -> None:
        """Counts an answer."""
        if self._names:
            count = self._count(call)
            count.ended += 1
            count.within_slo += within_slo
            count.latency.observe(latency_s)

    def refused(self, call: InferenceCall) -> None:
        """Counts a refusal that counts against the objective."""
        if self._names:
            self._count(call).ended += 1

    def _count(self, call: InferenceCall) -> _Count:
        key = tenant_label(call.tenant, self._names), call.model, call.class_name
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = _Count(Distribution(self._bounds_s))
        return count

    def rows(self) -> list[dict[str, object]]:
        """Returns the counts as GET /v1/status shows them."""
        return [
            {
                "tenant": tenant,
                "model": model,
                "class": class_name,
                "requests": count.ended,
                "within_slo": count.within_slo / count.ended,
            }
            for (tenant, model, class_name), count in sorted(self._counts.items())
        ]

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics; none without tenants."""
        engine: Any = self._status().get("engine")
        tenants: list[dict[str, Any]] = engine.get("tenants", []) if isinstance(engine, Mapping) else []
        counts = dict(sorted(self._counts.items()))
        if not counts and not tenants:
            return
        text = "Answers in time, by tenant."
        within = [(key, one.within_slo) for key, one in counts.items()]
        yield counter("edgeburst_tenant_within_slo", text, _LABELS, within)
        text = "Requests answered or refused, by tenant."
        yield counter("edgeburst_tenant_requests", text, _LABELS, [(key, one.ended) for key, one in counts.items()])
        text = "From a request's last byte to its answer, by tenant."
        latency = [(key, one.latency) for key, one in counts.items()]
        yield from histograms("edgeburst_tenant_request_seconds", text, _LABELS, latency)
        for tenant in tenants:
            for model, class_name, money in tenant["costs"]:
                key = tenant["name"], model, class_name
                self._costs[key] = max(money, self._costs.get(key, 0.0))
        text = "Settled cost of function batches, by tenant, model and class."
        yield counter("edgeburst_tenant_cost", text, _LABELS, self._costs.items())
        text = "Seconds of the edge that a tenant used."
        edge_s = [((tenant["name"],), tenant["edge_s"]) for tenant in tenants]
        yield counter("edgeburst_tenant_edge_seconds", text, ("tenant",), edge_s)
        for figure, name, text in _OF_TENANT:
            yield gauge(name, text, ("tenant",), (((tenant["name"],), tenant[figure]) for tenant in tenants))
        text = "Money that a tenant's part cost in the present window, at most."
        used = (((tenant["name"], window), tenant[figure]) for tenant in tenants for window, figure in _WINDOWS)
        yield gauge("edgeburst_tenant_spend_used", text, ("tenant", "window"), used)
