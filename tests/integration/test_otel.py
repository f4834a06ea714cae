"""Spans of a real daemon reach a real collector: whose children they are, when they were, and what they say."""

from __future__ import annotations

import base64
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from support.daemon_process import Running, daemon_process, until
from support.otlp_receiver import OtlpReceiver, values
from support.stub_oip_server import StubOipServer

from scripts.support.stub_edge import Behaviour

pytestmark = pytest.mark.xdist_group("serve")

CONFIG = """
[daemon]
port = 0
[otel]
endpoint = "{collector}"
service_name = "the-shop"
[edge]
url = "{edge}"
[[model]]
name = "digits"
edge_profile = "orin-resnet50"
[[model.class]]
slo_s = 20.0
late = "serve"
"""
TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SERVICE_S = 0.3


@contextmanager
def serving(folder: Path, edge: StubOipServer, collector: str) -> Iterator[Running]:
    config = folder / "edgeburst.toml"
    config.write_text(CONFIG.format(edge=edge.url, collector=collector))
    with daemon_process(config) as daemon:
        yield daemon


def ask(daemon: Running, *, timeout_us: int = 0, **headers: str) -> requests.Response:
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(b"x").decode()]}
    body = {"id": "mine", "parameters": {"timeout": timeout_us}, "inputs": [image]}
    return requests.post(f"{daemon.url}/v2/models/digits/infer", json=body, headers=headers, timeout=60)


def ask_at_once(daemon: Running, count: int) -> None:
    threads = [threading.Thread(target=ask, args=(daemon,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def waiting(daemon: Running) -> int:
    status: dict[str, Any] = requests.get(f"{daemon.url}/v1/status", timeout=60).json()
    return int(status["waiting_requests"])


def children(spans: list[Span], of: Span) -> dict[str, Span]:
    return {span.name: span for span in spans if span.parent_span_id == of.span_id}


def stopped(daemon: Running) -> None:
    daemon.signal(signal.SIGTERM)
    assert daemon.exit_status() == 0


def test_a_request_is_part_of_its_clients_trace_with_queue_uplink_and_service(tmp_path: Path) -> None:
    with (
        OtlpReceiver() as collector,
        StubOipServer(Behaviour(alpha_s=SERVICE_S)) as edge,
        serving(tmp_path, edge, collector.url) as daemon,
    ):
        before_ns = time.time_ns()
        assert ask(daemon, traceparent=f"00-{TRACE_ID}-{PARENT_ID}-01", tracestate="a=1").status_code == 200
        after_ns = time.time_ns()
        stopped(daemon)
    assert set(collector.paths) == {"/v1/traces"}
    assert {resource["service.name"] for resource in collector.resources} == {"the-shop"}
    [request] = collector.named("infer digits")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    assert (request.kind, request.trace_state) == (Span.SPAN_KIND_SERVER, "a=1")
    queue, uplink = (children(collector.spans, request)[name] for name in ("queue", "uplink"))
    service = children(collector.spans, uplink)["service"]
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE_ID}
    assert len(collector.spans) == 4

    assert before_ns <= request.start_time_unix_nano < request.end_time_unix_nano <= after_ns
    assert request.start_time_unix_nano == queue.start_time_unix_nano
    assert queue.end_time_unix_nano == uplink.start_time_unix_nano
    assert uplink.start_time_unix_nano <= service.start_time_unix_nano
    assert service.end_time_unix_nano == uplink.end_time_unix_nano <= request.end_time_unix_nano
    assert service.end_time_unix_nano - service.start_time_unix_nano == pytest.approx(SERVICE_S * 1e9, abs=1000)

    told = values(request.attributes)
    expected = {"edgeburst.model": "digits", "edgeburst.class": "default", "edgeburst.client_id": "mine"}
    assert told.items() >= {**expected, "edgeburst.outcome": "answered", "edgeburst.backend": "edge"}.items()
    assert values(uplink.attributes).items() >= {"edgeburst.batch_items": 1, "edgeburst.hedge": False}.items()
    assert request.status.code == Status.STATUS_CODE_UNSET

    [heard] = filter(None, edge.stub.traces)  # the model's trial at the start has no trace
    assert heard == {"traceparent": f"00-{TRACE_ID}-{uplink.span_id.hex()}-01", "tracestate": "a=1"}


def test_the_requests_of_a_batch_are_linked_and_the_backend_hears_of_the_first(tmp_path: Path) -> None:
    with (
        OtlpReceiver() as collector,
        StubOipServer(Behaviour(alpha_s=SERVICE_S)) as edge,
        serving(tmp_path, edge, collector.url) as daemon,
    ):
        first = threading.Thread(target=ask, args=(daemon,))
        first.start()
        until(lambda: waiting(daemon) == 1, "the first request is held")
        ask_at_once(daemon, 3)
        first.join()
        stopped(daemon)
    uplinks = [span for span in collector.named("uplink") if values(span.attributes)["edgeburst.batch_items"] == 3]
    assert len(uplinks) == 3
    roots = {span.span_id: span for span in collector.named("infer digits")}
    heard = edge.stub.traces[-1]["traceparent"]
    [leading] = [span for span in uplinks if f"{span.trace_id.hex()}-{span.span_id.hex()}" in heard]
    following = [span for span in uplinks if span is not leading]
    assert {(link.trace_id, link.span_id) for link in leading.links} == {
        (span.trace_id, span.parent_span_id) for span in following
    }
    assert all(span.parent_span_id in roots for span in uplinks)
    for span in following:
        assert [(link.trace_id, link.span_id) for link in span.links] == [(leading.trace_id, leading.span_id)]
    assert len({span.trace_id for span in uplinks}) == 3


def test_a_trace_that_its_client_does_not_record_is_passed_on_and_not_exported(tmp_path: Path) -> None:
    with (
        OtlpReceiver() as collector,
        StubOipServer(Behaviour()) as edge,
        serving(tmp_path, edge, collector.url) as daemon,
    ):
        assert ask(daemon, traceparent=f"00-{TRACE_ID}-{PARENT_ID}-00").status_code == 200
        stopped(daemon)
    assert collector.spans == []
    assert [*filter(None, edge.stub.traces)] == [{"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-00"}]


def test_failed_batches_and_refusals_are_errors_with_their_sentence(tmp_path: Path) -> None:
    with (
        OtlpReceiver() as collector,
        StubOipServer(Behaviour(mode="status", status=400, error="no cat")) as edge,
        serving(tmp_path, edge, collector.url) as daemon,
    ):
        refusal = ask(daemon)
        assert refusal.status_code == 400
        stopped(daemon)
    [request] = collector.named("infer digits")
    [uplink] = collector.named("uplink")
    assert request.status.code == uplink.status.code == Status.STATUS_CODE_ERROR
    assert request.status.message == refusal.json()["error"]
    assert "no cat" in uplink.status.message
    assert values(request.attributes)["edgeburst.outcome"] == "bad_request"
    assert collector.named("service") == []


@pytest.mark.parametrize("answers", [True, False])
def test_a_collector_that_fails_or_is_away_delays_no_answer_and_no_stop(tmp_path: Path, answers: bool) -> None:
    with (
        OtlpReceiver(500) as collector,
        StubOipServer(Behaviour()) as edge,
        serving(tmp_path, edge, collector.url if answers else "http://127.0.0.1:9") as daemon,
    ):
        for _ in range(20):
            assert ask(daemon).status_code == 200
        stopped(daemon)
        assert "Traceback" not in daemon.log
    assert bool(collector.paths) is answers
