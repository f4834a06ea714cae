"""Spans of requests that are sent twice, cancelled or not sampled; and that nothing is imported without `[otel]`."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from support.explained import a_batch

from scheduler.daemon.bodies import PendingCall
from scheduler.daemon.calls import InferenceCall
from scheduler.daemon.otel import OtelTracer
from scheduler.daemon.spans import CANCELLED
from scheduler.wire import Tensor
from scheduler.wire.trace_context import TraceContext

AHEAD_S = 1_000_000.0


class Rig:
    """A tracer on a clock that is set by hand."""

    def __init__(self, sample_ratio: float = 1.0) -> None:
        self.now_s = 100.0
        self.exporter = InMemorySpanExporter()
        self.tracer = OtelTracer(
            endpoint="",
            service_name="test",
            sample_ratio=sample_ratio,
            clock=lambda: self.now_s,
            wall_clock_ns=lambda: round((self.now_s + AHEAD_S) * 1e9),
            exporter=self.exporter,
        )

    def arrived(self, request_id: int = 1, **changes: Any) -> PendingCall:
        tensor = Tensor.from_elements("image", [b"x"])
        call = InferenceCall("digits", (tensor,), items=1, body_bytes=5, received_at_s=self.now_s, **changes)
        # No loop runs, and no part under test looks at the future.
        pending = PendingCall(request_id, call, future=None)  # type: ignore[arg-type]
        pending.spans = self.tracer.begin(call, request_id)
        return pending

    def spans(self) -> dict[str, list[ReadableSpan]]:
        """All spans by name, in the order of their starts."""
        asyncio.run(self.tracer.close())
        found = sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
        return {name: [span for span in found if span.name == name] for name in {span.name for span in found}}


def seconds(span: ReadableSpan) -> tuple[float, float]:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.start_time / 1e9 - AHEAD_S, span.end_time / 1e9 - AHEAD_S)


def test_a_request_that_is_sent_again_waits_again() -> None:
    rig = Rig()
    pending = rig.arrived()
    first = rig.tracer.sent(a_batch(1, (1,)), [pending], 101.0)
    first.ended(103.0, error="timeout: no answer")
    first.ended(104.0, service_s=1.0)
    second = rig.tracer.sent(a_batch(2, (1,)), [pending], 105.0)
    second.ended(107.0, service_s=1.5)
    rig.now_s = 108.0
    pending.ended("answered", 108.0)
    pending.ended("deadline", 109.0, message="too late")
    spans = rig.spans()
    assert [seconds(span) for span in spans["queue"]] == [(100.0, 101.0), (103.0, 105.0)]
    assert [seconds(span) for span in spans["uplink"]] == [(101.0, 103.0), (105.0, 107.0)]
    assert [span.status.status_code for span in spans["uplink"]] == [StatusCode.ERROR, StatusCode.UNSET]
    assert [seconds(span) for span in spans["service"]] == [(105.5, 107.0)]
    assert [seconds(span) for span in spans["infer digits"]] == [(100.0, 108.0)]


def test_a_second_copy_has_not_waited() -> None:
    rig = Rig()
    pending = rig.arrived()
    first = rig.tracer.sent(a_batch(1, (1,)), [pending], 101.0)
    second = rig.tracer.sent(replace(a_batch(2, (1,)), hedge=True), [pending], 102.0)
    second.ended(103.0, service_s=9.0)
    pending.ended("answered", 103.0)
    first.ended(104.0, error="cancelled")
    spans = rig.spans()
    assert [seconds(span) for span in spans["queue"]] == [(100.0, 101.0)]
    assert [seconds(span) for span in spans["uplink"]] == [(101.0, 104.0), (102.0, 103.0)]
    # A service that is longer than its call began with it.
    assert [seconds(span) for span in spans["service"]] == [(102.0, 103.0)]


def test_a_cancelled_request_is_no_error() -> None:
    rig = Rig()
    rig.arrived().ended(CANCELLED, 101.0)
    [span] = rig.spans()["infer digits"]
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes is not None
    assert span.attributes["edgeburst.outcome"] == "cancelled"


@pytest.mark.parametrize(
    ("sample_ratio", "trace", "recorded"),
    [
        (1.0, None, True),
        (0.0, None, False),
        (0.0, TraceContext("ab" * 16, "cd" * 8, sampled=True), True),
        (1.0, TraceContext("ab" * 16, "cd" * 8, sampled=False), False),
    ],
)
def test_the_client_decides_what_is_recorded_and_the_ratio_only_for_others(
    sample_ratio: float, trace: TraceContext | None, recorded: bool
) -> None:
    rig = Rig(sample_ratio)
    pending = rig.arrived(trace=trace)
    batch = rig.tracer.sent(a_batch(1, (1,)), [pending], 101.0)
    assert (pending.spans is not None) is recorded
    if not recorded:
        assert batch.context == trace
    batch.ended(102.0, service_s=0.5)
    pending.ended("answered", 102.0)
    assert bool(rig.spans()) is recorded


def test_a_batch_is_told_of_its_first_recorded_request_and_links_to_the_others() -> None:
    rig = Rig()
    members = [
        rig.arrived(1, trace=TraceContext("ab" * 16, "cd" * 8, sampled=False)),
        rig.arrived(2, trace=TraceContext("ef" * 16, "01" * 8, sampled=True)),
        rig.arrived(3),
    ]
    batch = rig.tracer.sent(a_batch(1, (1,)), members, 101.0)
    assert batch.context is not None
    assert batch.context.trace_id == "ef" * 16
    batch.ended(102.0)
    for member in members:
        member.ended("answered", 102.0)
    spans = rig.spans()
    first, second = spans["uplink"]
    if f"{first.context.span_id:016x}" != batch.context.span_id:
        first, second = second, first
    assert f"{first.context.span_id:016x}" == batch.context.span_id
    assert second.parent is not None
    assert [link.context.span_id for link in first.links] == [second.parent.span_id]
    assert [link.context.span_id for link in second.links] == [first.context.span_id]


def test_without_the_table_nothing_of_opentelemetry_is_imported() -> None:
    look = "import scheduler.daemon.serve, sys; print([name for name in sys.modules if 'opentelemetry' in name])"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
