"""What each configured tenant, and all others together, sent, got in time and cost: for Prometheus and /v1/status."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from scheduler.daemon.calls import InferenceCall
from scheduler.domain.tenants import tenant_label

_OF_TENANT = (
    ("edge_s", "edgeburst_tenant_edge_seconds", "Seconds of the edge that a tenant used."),
    ("spent", "edgeburst_tenant_spent", "Money that a tenant's part of the function batches cost."),
)


@dataclass(slots=True)
class _Count:
    """Requests of one tenant, model and class."""

    ended: int = 0
    """Answered or refused; not those that clients sent wrong or gave up."""
    within_slo: int = 0


class TenantMetrics(Collector):
    """Counts by tenant, model and class; nothing is counted while no tenant is configured."""

    def __init__(self, status: Callable[[], Mapping[str, object]]) -> None:
        """Stores what returns the daemon's state; it is called when the metrics are read."""
        self._status = status
        self._names: frozenset[str] = frozenset()
        self._counts: dict[tuple[str, str, str], _Count] = {}

    def configure(self, names: Collection[str]) -> None:
        """Takes over the names of the configured tenants; those that have left keep their counts."""
        self._names = frozenset(names)

    def ended(self, call: InferenceCall, *, within_slo: bool) -> None:
        """Counts a request that was answered or refused."""
        if self._names:
            key = tenant_label(call.tenant, self._names), call.model, call.class_name
            count = self._counts.setdefault(key, _Count())
            count.ended += 1
            count.within_slo += within_slo

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
        labels = ["tenant", "model", "class"]
        requests = CounterMetricFamily(
            "edgeburst_tenant_requests", "Requests answered or refused, by tenant.", labels=labels
        )
        within = CounterMetricFamily("edgeburst_tenant_within_slo", "Answers in time, by tenant.", labels=labels)
        for key, count in sorted(self._counts.items()):
            requests.add_metric(key, count.ended)
            within.add_metric(key, count.within_slo)
        cost = CounterMetricFamily(
            "edgeburst_tenant_cost", "Settled cost of function batches, by tenant, model and class.", labels=labels
        )
        engine: Any = self._status().get("engine")
        tenants: list[dict[str, Any]] = engine.get("tenants", []) if isinstance(engine, Mapping) else []
        gauges = [
            (figure, GaugeMetricFamily(name, help_text, labels=["tenant"])) for figure, name, help_text in _OF_TENANT
        ]
        for tenant in tenants:
            for figure, family in gauges:
                family.add_metric([tenant["name"]], tenant[figure])
            for model, class_name, money in tenant["costs"]:
                cost.add_metric([tenant["name"], model, class_name], money)
        if self._counts or tenants:
            yield from (requests, within, cost, *(family for _, family in gauges))
