"""Spans of OpenTelemetry, exported by OTLP over HTTP in a thread of the SDK; imported only where `[otel]` asks for it.

Each recorded request is one span in the trace that its client named, or in a new one. Its children are each wait in our
queue (`queue`) and each batch that it was sent in (`uplink`), with the time in which the backend worked as the latter's
child (`service`). The backend is told the span `uplink` of the batch's first recorded request, which links to the other
requests; their own spans `uplink` link to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from scheduler.daemon.calls import Answer, InferenceCall
from scheduler.daemon.logs import log
from scheduler.daemon.spans import ANSWERED, CANCELLED, BatchSpans, Member, PassedOn, RequestSpans
from scheduler.daemon.threads import DaemonThreads
from scheduler.domain.batches import Batch
from scheduler.wire.trace_context import TraceContext

EXPORT_LIMIT_S = 10.0
"""Longest time of one export; the thread that exports waits, and spans beyond the SDK's bounded queue are dropped."""

LAST_EXPORT_S = 2.0
"""Longest that the end of the daemon waits for the last export."""

_TRACES_PATH = "/v1/traces"


class OtelTracer:
    """Makes the spans of the SDK. It reads no clock but the one it is given."""

    def __init__(
        self,
        *,
        endpoint: str,
        service_name: str,
        sample_ratio: float,
        clock: Callable[[], float],
        wall_clock_ns: Callable[[], int],
        exporter: SpanExporter | None = None,
    ) -> None:
        """Starts the thread that exports.

        Args:
            endpoint: URL of the collector; without a path, that of OTLP for traces is added.
            service_name: the resource's `service.name`.
            sample_ratio: fraction of the traces that are recorded where the client's headers do not decide.
            clock: monotonic seconds.
            wall_clock_ns: nanoseconds since 1970.
            exporter: takes the spans, in a thread; None: OTLP over HTTP to the endpoint.
        """
        self._clock = clock
        self._wall_clock_ns = wall_clock_ns
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample_ratio)),
            resource=Resource.create({"service.name": service_name}),
            # At the interpreter's end it would wait for a collector that does not answer; see `close`.
            shutdown_on_exit=False,
        )
        if exporter is None:
            exporter = OTLPSpanExporter(traces_url(endpoint), timeout=EXPORT_LIMIT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("edgeburst")

    def begin(self, call: InferenceCall, request_id: int) -> RequestSpans | None:
        """Returns the spans of a request that has arrived; None: its trace is not sampled."""
        # The wall clock may step; within a request all times are as far apart as they were.
        ahead_ns = self._wall_clock_ns() - _ns(self._clock())
        attributes = {
            "edgeburst.request_id": request_id,
            "edgeburst.client_id": call.client_id,
            "edgeburst.model": call.model,
            "edgeburst.class": call.class_name,
            "edgeburst.tenant": call.tenant,
            "edgeburst.priority": call.priority,
            "edgeburst.items": call.items,
            "edgeburst.body_bytes": call.body_bytes,
        }
        span = self._tracer.start_span(
            f"infer {call.model}",
            context=None if call.trace is None else _remote(call.trace),
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=_ns(call.received_at_s) + ahead_ns,
        )
        return _Request(self._tracer, span, call.received_at_s, ahead_ns) if span.is_recording() else None

    def sent(self, batch: Batch, members: Sequence[Member], now_s: float) -> BatchSpans:
        """Returns the spans of a batch that is being sent."""
        recorded = [member.spans for member in members if isinstance(member.spans, _Request)]
        if not recorded:
            return PassedOn(next((member.call.trace for member in members if member.call.trace is not None), None))
        first, *others = recorded
        leading = first.sent(batch, now_s, links=[Link(other.span.get_span_context()) for other in others])
        link = Link(leading.get_span_context())
        following = [other.sent(batch, now_s, links=[link]) for other in others]
        return _Batch(recorded, [leading, *following], now_s)

    async def close(self) -> None:
        """Exports what is left, for at most LAST_EXPORT_S, and ends the thread."""
        thread = DaemonThreads(limit=1, name="otel")
        try:
            await asyncio.wait_for(thread.run(self._provider.shutdown), LAST_EXPORT_S)
        except asyncio.TimeoutError:
            message = "the collector of [otel] did not take the last spans in time; they are lost"
            log(logging.WARNING, "spans_lost", limit_s=LAST_EXPORT_S, message=message)
        finally:
            thread.close()


class _Request:
    """One span of a request, and where its present child begins."""

    def __init__(self, tracer: Any, span: Any, received_at_s: float, ahead_ns: int) -> None:
        self.span = span
        self._waits_since_s = received_at_s
        self._tracer = tracer
        self._ahead_ns = ahead_ns
        self._ended = False
        self._under_way = 0
        """Its batches that have not ended: two while it is hedged."""

    def at_ns(self, now_s: float) -> int:
        return _ns(now_s) + self._ahead_ns

    def child(self, name: str, of: Any, start_s: float, **options: Any) -> Any:
        context = trace.set_span_in_context(of)
        return self._tracer.start_span(name, context=context, start_time=self.at_ns(start_s), **options)

    def sent(self, batch: Batch, now_s: float, *, links: Sequence[Link]) -> Any:
        """Ends the wait in the queue, and returns the span of the batch; a second copy has not waited."""
        if self._under_way == 0:
            self.child("queue", self.span, self._waits_since_s).end(self.at_ns(now_s))
        self._under_way += 1
        attributes = {
            "edgeburst.backend": batch.backend.value,
            "edgeburst.tier": batch.tier,
            "edgeburst.place": str(batch.place),
            "edgeburst.batch_id": batch.batch_id,
            "edgeburst.batch_items": batch.items,
            "edgeburst.hedge": batch.hedge,
            "edgeburst.why_left": "" if batch.why_left is None else batch.why_left.value,
        }
        return self.child("uplink", self.span, now_s, kind=SpanKind.CLIENT, attributes=attributes, links=links)

    def came_back(self, now_s: float) -> None:
        """Notes that one of its batches has ended: if the request has not, it waits again."""
        self._under_way -= 1
        self._waits_since_s = now_s

    def ended(self, outcome: str, now_s: float, *, answer: Answer | None = None, message: str = "") -> None:
        if self._ended:
            return
        self._ended = True
        self.span.set_attribute("edgeburst.outcome", outcome)
        if answer is not None:
            self.span.set_attributes(
                {
                    "edgeburst.backend": answer.backend.value,
                    "edgeburst.tier": answer.tier,
                    "edgeburst.batch_id": answer.batch_id,
                    "edgeburst.batch_items": answer.batch_items,
                    "edgeburst.attempts": answer.attempts,
                    "edgeburst.cost": answer.cost,
                }
            )
        elif outcome not in (ANSWERED, CANCELLED):
            self.span.set_status(Status(StatusCode.ERROR, message))
        self.span.end(self.at_ns(now_s))


class _Batch:
    """The spans `uplink` of a batch's recorded requests; the first one is the backend's parent."""

    def __init__(self, requests: Sequence[_Request], uplinks: Sequence[Any], sent_at_s: float) -> None:
        self.context: TraceContext | None = _context(uplinks[0].get_span_context())
        self._pairs = tuple(zip(requests, uplinks, strict=True))
        self._sent_at_s = sent_at_s
        self._ended = False

    def ended(self, ended_at_s: float, *, service_s: float | None = None, error: str = "") -> None:
        if self._ended:
            return
        self._ended = True
        for request, uplink in self._pairs:
            if service_s is not None and not error:
                # When the backend worked is not known. The inputs are nearly all of the way, so: at its end.
                began_s = max(self._sent_at_s, ended_at_s - service_s)
                request.child("service", uplink, began_s).end(request.at_ns(ended_at_s))
            if error:
                uplink.set_status(Status(StatusCode.ERROR, error))
            request.came_back(ended_at_s)
            uplink.end(request.at_ns(ended_at_s))


def traces_url(endpoint: str) -> str:
    """Returns where spans are sent.

    >>> traces_url("http://collector:4318/"), traces_url("http://collector:4318/mine")
    ('http://collector:4318/v1/traces', 'http://collector:4318/mine')
    """
    return endpoint.rstrip("/") + _TRACES_PATH if urlsplit(endpoint).path in ("", "/") else endpoint


def _remote(context: TraceContext) -> Any:
    """Returns the SDK's context with the client's span as the parent."""
    parent = SpanContext(
        trace_id=int(context.trace_id, 16),
        span_id=int(context.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT),
        trace_state=TraceState.from_header([context.state]) if context.state else None,
    )
    return trace.set_span_in_context(NonRecordingSpan(parent))


def _context(span: SpanContext) -> TraceContext:
    sampled = bool(span.trace_flags & TraceFlags.SAMPLED)
    return TraceContext(f"{span.trace_id:032x}", f"{span.span_id:016x}", sampled, span.trace_state.to_header())


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
