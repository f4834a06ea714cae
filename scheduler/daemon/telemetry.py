"""Counts of requests by how they ended, for Prometheus, the dashboard and /v1/status.

Labels are bounded: models, classes, backends and places are those of the configuration, kinds and reasons those of
fixed lists.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from scheduler.daemon.answer_metrics import AnswerMetrics
from scheduler.daemon.batch_metrics import BatchMetrics
from scheduler.daemon.calls import Answer, InferenceCall
from scheduler.daemon.counts import Counts, Distributions, counter, exposition_pieces, gauge
from scheduler.daemon.edge_limits import edge_limit_metric
from scheduler.daemon.edge_metrics import edge_metrics
from scheduler.daemon.history.counting import Counting
from scheduler.daemon.host_metrics import HostMetrics
from scheduler.daemon.model_statistics import InferenceCounters
from scheduler.daemon.plan_metrics import plan_metrics
from scheduler.daemon.quotas import quota_metric
from scheduler.daemon.served_models import model_metrics
from scheduler.daemon.shadow.metrics import shadow_metrics
from scheduler.daemon.slo_budgets import budget_metrics
from scheduler.daemon.spend_metrics import SpendMetrics
from scheduler.daemon.status_metrics import circuits_opened, models_up, paces, state_metrics
from scheduler.daemon.tenant_metrics import TenantMetrics
from scheduler.domain.errors import RefusalKind
from scheduler.domain.plans import ServiceClass
from scheduler.domain.requests import Backend

ANSWERED = "answered"
CANCELLED = "cancelled"
FAULT = "fault"
"""A fault of the program ended the request, with a traceback in the log."""
_COLUMN_OF = {
    CANCELLED: "cancelled",
    RefusalKind.BAD_REQUEST.value: "rejected",
    RefusalKind.TOO_LARGE.value: "rejected",
}
"""The count of each end without an answer; all other kinds count as `refused`."""

SECONDS_KEPT = 300
"""Length of the history on the dashboard, seconds."""

_OWN_BUCKETS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)

_GAUGES = (
    ("queued_requests", "edgeburst_queue_requests", "Requests that wait for a batch."),
    ("unanswered_bytes", "edgeburst_unanswered_bytes", "Bytes of the request bodies in memory."),
    ("requests_in_flight", "edgeburst_in_flight_requests", "Requests that were sent to a backend."),
    ("uplink_bytes_per_s", "edgeburst_uplink_bytes_per_second", "Estimated bandwidth to the functions."),
    ("uplink_rtt_s", "edgeburst_uplink_round_trip_seconds", "Estimated round-trip time to the functions."),
    ("expected_drain_s", "edgeburst_expected_drain_seconds", "Expected time until the queue is empty."),
    ("leased", "edgeburst_leased", "Money leased and not spent, in the price sheet's currency."),
    ("spent", "edgeburst_spent_with_in_flight", "Money spent since the start, batches in flight as expected."),
)


@dataclass(slots=True)
class Second:
    """Counts of what happened within one second."""

    at_s: int
    arrived: int = 0
    edge: int = 0
    """Requests answered by the edge."""
    function: int = 0
    refused: int = 0
    rejected: int = 0
    """Refused because of what the client sent; does not count against the SLO."""
    cancelled: int = 0
    within_slo: int = 0

    def row(self) -> dict[str, int]:
        """Returns the counts as JSON shows them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Telemetry:
    """Counts of requests. It reads no clock: the caller gives the time."""

    def __init__(
        self,
        status: Callable[[], Mapping[str, object]],
        backends: Callable[[], Sequence[str]],
        counters: InferenceCounters | None = None,
        counting: Counting | None = None,
        batches: BatchMetrics | None = None,
        host: HostMetrics | None = None,
    ) -> None:
        """Makes the metrics.

        Args:
            status: returns the daemon's state; called when the metrics are read.
            backends: returns the names of the configured backends; called then too.
            counters: is told how each request ended; None: new ones.
            counting: counts for the history; None: a new one.
            batches: counts batches; None: none are counted.
            host: says what runs and on which clocks; None: it is left out.
        """
        self._counters = InferenceCounters() if counters is None else counters
        self._counting = Counting() if counting is None else counting
        self.registry = CollectorRegistry()
        self._seconds: deque[Second] = deque(maxlen=SECONDS_KEPT)
        self._totals = Second(at_s=0)
        self._now = Second(at_s=-1)
        """The one that was counted in last: the next is mostly of the same."""
        self._by_kind: dict[str, int] = {}
        by_class = ("model", "class")
        self._arrivals = Counts(
            "edgeburst_arrivals",
            "Requests that were read and are valid: each then ends once, in edgeburst_requests_total.",
            by_class,
            registry=self.registry,
        )
        # The metrics are read in turns with requests: what is part of another is read first.
        self._within = Counts("edgeburst_within_slo", "Answers in time.", by_class, registry=self.registry)
        self._requests = Counts(
            "edgeburst_requests", "Requests by how they ended.", (*by_class, "kind"), registry=self.registry
        )
        self.registry.register(_SloRequests(self._requests))
        self._refusals = Counts(
            "edgeburst_refusals",
            "Refusals by kind, and by what decided where offers were compared.",
            ("kind", "reason"),
            registry=self.registry,
        )
        self._answers = AnswerMetrics()
        self._host = host
        for collector in (self._answers, batches, host):
            if collector is not None:
                self.registry.register(collector)
        self._http_errors = Counts(
            "edgeburst_http_errors", "Error responses by HTTP status.", ("code",), registry=self.registry
        )
        of_grpc = "gRPC calls that ended with an error, by status code."
        self._grpc_errors = Counts("edgeburst_grpc_errors", of_grpc, ("code",), registry=self.registry)
        self._own_latency = Distributions(
            "edgeburst_own_latency_seconds",
            "Latency that the daemon itself adds to a request.",
            (),
            bounds=_OWN_BUCKETS_S,
            registry=self.registry,
        )
        self._own_latency_s = self._own_latency.of(())
        self.tenants = TenantMetrics(status)
        self.registry.register(self.tenants)
        self.registry.register(_StatusCollector(status, backends))
        ProcessCollector(registry=self.registry)

    def configure(self, classes: Mapping[str, Iterable[ServiceClass]], tenants: Collection[str]) -> None:
        """Takes over the classes of each model, and the names of the tenants."""
        named = [(model, each) for model, of_model in classes.items() for each in of_model]
        for key in ((model, each.name) for model, each in named):
            self._arrivals.begin(key)
            self._within.begin(key)
            for kind in (ANSWERED, FAULT):
                self._requests.begin((*key, kind))
        self._answers.configure(each.slo_s for _, each in named)
        self.tenants.configure(tenants, self._answers.bounds_s)
        if self._host is not None:
            self._host.configure(named)

    def arrived(self, call: InferenceCall) -> None:
        """Counts a request that was read and is valid."""
        second = self._now
        if second.at_s != int(call.received_at_s):
            second = self._now = self._second(call.received_at_s)
        second.arrived += 1
        self._totals.arrived += 1
        self._arrivals.add((call.model, call.class_name))
        self._counting.arrived(call.model, call.class_name, call.tenant)

    def answered(
        self, call: InferenceCall, answer: Answer, *, latency_s: float, slo_s: float, own_latency_s: float
    ) -> None:
        """Counts an answer.

        Args:
            call: the call.
            answer: its answer.
            latency_s: from the request's last byte to the answer.
            slo_s: the latency that the call allows.
            own_latency_s: the part of it that the daemon itself adds.
        """
        at_s, within = call.received_at_s + latency_s, latency_s <= slo_s
        second = self._now
        if second.at_s != int(at_s):
            second = self._now = self._second(at_s)
        self._counters.answered(
            call.model,
            items=call.items,
            latency_s=latency_s,
            wait_s=answer.wait_s,
            elapsed_s=answer.elapsed_s,
            service_s=answer.service_s,
            now_s=at_s,
        )
        for counts in (second, self._totals):
            if answer.backend is Backend.EDGE:
                counts.edge += 1
            else:
                counts.function += 1
            counts.within_slo += within
        self._requests.add((call.model, call.class_name, ANSWERED))
        if self.tenants.any:
            self.tenants.answered(call, within_slo=within, latency_s=latency_s)
        if within:
            self._within.add((call.model, call.class_name))
        self._counting.answered(
            self._counting.key(call.model, call.class_name, call.tenant, answer.place or answer.backend.value),
            request_id=answer.request_id,
            at_s=at_s,
            latency_s=latency_s,
            slo_s=slo_s,
            items=call.items,
        )
        self._answers.answered(call, answer, latency_s)
        self._own_latency_s.observe(own_latency_s)

    def refused(
        self, call: InferenceCall, kind: str, now_s: float, *, reason: str = "", request_id: int | None = None
    ) -> None:
        """Counts a call that ended without an answer.

        Args:
            call: the call.
            kind: a RefusalKind's value, CANCELLED or FAULT.
            now_s: the present.
            reason: value of the Reason that decided; empty where no offers were compared.
            request_id: the daemon's number of the call; None where it has none.
        """
        column = _COLUMN_OF.get(kind, "refused")
        self._counters.failed(call.model, latency_s=now_s - call.received_at_s, now_s=now_s)
        for counts in (self._second(now_s), self._totals):
            setattr(counts, column, getattr(counts, column) + 1)
        self._counting.ended(
            column,
            self._counting.key(call.model, call.class_name, call.tenant),
            kind=kind,
            request_id=request_id,
            at_s=now_s,
            latency_s=now_s - call.received_at_s,
            reason=reason,
        )
        self._by_kind[kind] = self._by_kind.get(kind, 0) + 1
        self._requests.add((call.model, call.class_name, kind))
        if column == "refused":
            self.tenants.refused(call)
        if kind != CANCELLED:
            self._refusals.add((kind, reason))

    def http_error(self, status: int) -> None:
        """Counts an error response."""
        self._http_errors.add((str(status),))

    def grpc_error(self, code: str) -> None:
        """Counts a gRPC call, or a request of a stream, that got an error."""
        self._grpc_errors.add((code,))

    def summary(self, now_s: float) -> dict[str, object]:
        """Returns the totals since the start, and the counts of each of the last seconds."""
        self._second(now_s)
        totals = self._totals
        answered = totals.edge + totals.function
        ended = answered + totals.refused
        return {
            "arrived": totals.arrived,
            "answered": answered,
            "edge": totals.edge,
            "function": totals.function,
            "refused": totals.refused,
            "rejected": totals.rejected,
            "cancelled": totals.cancelled,
            "refused_by_kind": dict(self._by_kind),
            "within_slo": totals.within_slo / ended if ended else None,
            "recent": [second.row() for second in self._seconds],
        }

    def exposition(self) -> bytes:
        """Returns the metrics in Prometheus' text format."""
        return b"".join(self.exposition_pieces())

    def exposition_pieces(self) -> Iterator[bytes]:
        """Yields the same, some lines at a time."""
        return exposition_pieces(self.registry.collect())

    def _second(self, now_s: float) -> Second:
        """Returns the current second's counts; adds the seconds without events before it, up to the length kept."""
        at_s, seconds = int(now_s), self._seconds
        if not seconds or at_s > seconds[-1].at_s:
            first_s = seconds[-1].at_s + 1 if seconds else at_s
            for missing_s in range(max(first_s, at_s - SECONDS_KEPT + 1), at_s + 1):
                seconds.append(Second(missing_s))
        return seconds[-1]


class _SloRequests(Collector):
    """The requests that count for the objective of their class, added up when the metrics are read."""

    def __init__(self, requests: Counts) -> None:
        self._requests = requests

    def collect(self) -> Iterator[Metric]:
        found: dict[tuple[str, ...], int] = {}
        for (model, name, kind), count in self._requests.items():
            if kind not in _COLUMN_OF:
                found[(model, name)] = found.get((model, name), 0) + count
        text = "Requests that count for the objective: answered, or refused for no fault of their clients."
        yield counter("edgeburst_slo_requests", text, ("model", "class"), found.items())


class _StatusCollector(Collector):
    """The engine's state and the placements of requests, read when the metrics are read."""

    def __init__(self, status: Callable[[], Mapping[str, object]], backends: Callable[[], Sequence[str]]) -> None:
        self._status = status
        self._backends = backends
        self._spend = SpendMetrics()

    def collect(self) -> Iterator[Metric]:
        status = self._status()
        engine = status.get("engine")
        values: Mapping[str, Any] = engine if isinstance(engine, Mapping) else {}
        for key, name, help_text in _GAUGES:
            if values.get(key) is not None:
                yield GaugeMetricFamily(name, help_text, value=values[key])
        in_flight = GaugeMetricFamily("edgeburst_in_flight_batches", "Batches in flight.", labels=["backend"])
        up = GaugeMetricFamily("edgeburst_backend_up", "1 while the backend is used.", labels=["backend"])
        for backend in self._backends():
            in_flight.add_metric([backend], values.get(f"{backend}_batches_in_flight", 0))
            up.add_metric([backend], float(values.get(f"{backend}_up", False)))
        yield in_flight
        yield up
        yield models_up(values.get("models_up") or ())
        if "edge" in self._backends():
            yield from edge_metrics(values)
        rates = (((model,), rate) for model, rate in (values.get("rates_rps") or {}).items())
        yield gauge("edgeburst_arrival_items_per_second", "Estimated arrival rate.", ("model",), rates)
        yield paces(values.get("paces") or ())
        yield from plan_metrics(status)
        yield from budget_metrics(values.get("budgets") or ())
        yield quota_metric(values.get("quotas") or ())
        yield edge_limit_metric(values.get("edge_limits") or ())
        yield from state_metrics(status)
        yield from circuits_opened(status)
        yield from model_metrics(status)
        yield from shadow_metrics(status)
        yield from self._spend.metrics(values)
