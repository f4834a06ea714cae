"""Parts of ingress that no socket shows on demand: a client lost while it is answered, counts by the second."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from aiohttp import web
from aiohttp.http import StreamWriter
from aiohttp.test_utils import make_mocked_request
from support.fake_runner import FakeRunner

from scheduler.daemon.calls import Answer, InferenceCall
from scheduler.daemon.config.config import load_config
from scheduler.daemon.http.app import Ingress
from scheduler.daemon.http.classify import Question, classify_response
from scheduler.daemon.http.errors import errors_as_json
from scheduler.daemon.http.infer import infer_response
from scheduler.daemon.ingress.answers import answer_parameters
from scheduler.daemon.ingress.model_metadata import ModelCard, TensorSpec
from scheduler.daemon.telemetry import CANCELLED, SECONDS_KEPT, Telemetry
from scheduler.domain.errors import RefusalKind
from scheduler.domain.plans import ServiceClass
from scheduler.domain.requests import Backend
from scheduler.wire import InferRequest, OutputRequest, Tensor

EXAMPLE = Path(__file__).parents[2] / "scripts" / "edgeburst.example.toml"
REQUEST = {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["eA=="]}]}


def call(received_at_s: float) -> InferenceCall:
    tensor = Tensor.from_elements("image", [b"x"])
    return InferenceCall("digits", (tensor,), items=1, body_bytes=5, received_at_s=received_at_s)


def answer(backend: Backend) -> Answer:
    return Answer(
        request_id=1,
        outputs=(),
        backend=backend,
        tier="",
        batch_id=1,
        batch_items=4,
        wait_s=0.1,
        service_s=None,
        elapsed_s=0.2,
        cost=0.0,
        cold_start=None,
        attempts=1,
        read_at_s=0.0,
        in_s=0.0,
        out_s=0.0,
    )


def telemetry() -> Telemetry:
    return Telemetry(lambda: {}, lambda: ("edge", "function"))


@pytest.mark.parametrize(
    ("backend", "place", "edge"), [("edge", "edge:near", "near"), ("function", "function:1gb", "")]
)
def test_an_answer_names_the_edge_server_that_it_came_from(backend: str, place: str, edge: str) -> None:
    spec = TensorSpec("scores", "FP32", (3,))
    card = ModelCard("net", (spec,), (spec,), (), 8, 1, 1, {"default": ServiceClass()}, "default")
    scores = Tensor.from_numpy("scores", np.eye(1, 3, dtype=np.float32))
    found = replace(answer(Backend(backend)), place=place, outputs=(scores,))
    assert answer_parameters(found)["edge"] == edge
    shown = classify_response(card, Question("", None, 1, "default", ""), found, latency_s=0.1)
    assert json.loads(shown.body)["edge"] == edge


class TestLostClient:
    def test_an_answer_that_cannot_be_written_counts_as_cancelled_and_not_as_answered(self) -> None:
        runner = FakeRunner(clock=lambda: 1.0)
        ingress = Ingress(runner.parts(), load_config(EXAMPLE, {}), {})
        writer = mock.create_autospec(StreamWriter, instance=True)
        writer.write_headers.side_effect = ConnectionResetError
        body = json.dumps(REQUEST).encode()
        content = mock.Mock(readany=mock.AsyncMock(side_effect=[body, b""]))
        request = make_mocked_request(
            "POST",
            "/v2/models/digits/infer",
            headers={"Content-Length": str(len(body))},
            match_info={"model": "digits"},
            payload=content,
            writer=writer,
        )

        async def infer() -> None:
            with pytest.raises(ConnectionResetError):
                await ingress.infer(request)

        asyncio.run(infer())
        counts = ingress.service.telemetry.summary(1.0)
        assert (counts["arrived"], counts["answered"], counts["cancelled"]) == (1, 0, 1)
        assert runner.own_latency.summary()["count"] == 0

    def test_a_lost_connection_is_no_error_to_report(self) -> None:
        counted = telemetry()

        async def lost(_: web.Request) -> web.StreamResponse:
            raise ConnectionResetError

        async def ask() -> None:
            with pytest.raises(ConnectionResetError):
                await errors_as_json(counted)(make_mocked_request("GET", "/"), lost)

        asyncio.run(ask())
        assert "edgeburst_http_errors_total{" not in counted.exposition().decode()


class TestTelemetry:
    def test_seconds_without_requests_are_there_with_zeros(self) -> None:
        counted = telemetry()
        counted.arrived(call(10.2))
        counted.arrived(call(13.9))
        recent: Any = counted.summary(14.0)["recent"]
        assert [(row["at_s"], row["arrived"]) for row in recent] == [(10, 1), (11, 0), (12, 0), (13, 1), (14, 0)]

    def test_the_history_is_bounded_also_over_a_long_silence(self) -> None:
        counted = telemetry()
        counted.arrived(call(0.0))
        recent: Any = counted.summary(1e7)["recent"]
        assert [row["at_s"] for row in recent] == list(range(10**7 - SECONDS_KEPT + 1, 10**7 + 1))
        assert not any(row["arrived"] for row in recent)

    def test_only_refusals_that_are_ours_count_against_the_objective(self) -> None:
        counted = telemetry()
        counted.answered(call(0.0), answer(Backend.EDGE), latency_s=0.9, slo_s=1.0, own_latency_s=0.001)
        counted.answered(call(0.0), answer(Backend.FUNCTION), latency_s=1.1, slo_s=1.0, own_latency_s=0.001)
        counted.refused(call(0.0), RefusalKind.BAD_REQUEST.value, 1.0)
        counted.refused(call(0.0), CANCELLED, 1.0)
        assert counted.summary(2.0)["within_slo"] == pytest.approx(1 / 2)
        counted.refused(call(0.0), RefusalKind.DEADLINE.value, 1.0)
        assert counted.summary(2.0)["within_slo"] == pytest.approx(1 / 3)

    def test_a_call_that_its_client_gave_up_is_no_refusal(self) -> None:
        counted = telemetry()
        counted.refused(call(0.0), CANCELLED, 1.0)
        assert "edgeburst_refusals_total{" not in counted.exposition().decode()
        counted.refused(call(0.0), RefusalKind.DEADLINE.value, 1.0, reason="spend-cap")
        assert 'edgeburst_refusals_total{kind="deadline",reason="spend-cap"} 1.0' in counted.exposition().decode()

    def test_money_is_counted_by_purpose_and_a_counter_of_it_never_falls(self) -> None:
        row = {"what": "call", "tier": "1gb", "model": "m", "tenant": "other", "currency": "CNY", "amount": 0.5}
        rows = [row, {**row, "what": "start-estimate", "amount": 0.25}]
        counted = Telemetry(lambda: {"engine": {"spending": rows}}, lambda: ("edge",))
        text = counted.exposition().decode()
        labels = 'currency="CNY",model="m",tenant="other",tier="1gb"'
        assert f'edgeburst_spent_total{{{labels},what="call"}} 0.5' in text
        assert f'edgeburst_spent_total{{{labels},what="start-estimate"}} 0.25' in text
        rows[1] = {**row, "what": "start-estimate", "amount": 0.0}
        rows[0] = {**row, "amount": 0.75}
        text = counted.exposition().decode()
        assert f'edgeburst_spent_total{{{labels},what="call"}} 0.75' in text
        assert f'edgeburst_spent_total{{{labels},what="start-estimate"}} 0.25' in text

    def test_nothing_ended_is_no_share(self) -> None:
        assert telemetry().summary(0.0)["within_slo"] is None

    def test_the_engine_may_be_silent(self) -> None:
        text = telemetry().exposition().decode()
        assert 'edgeburst_backend_up{backend="edge"} 0.0' in text
        assert "edgeburst_spent_with_in_flight" not in text
        assert "edgeburst_spent_total{" not in text


class TestClassification:
    def ask(self, scores: np.ndarray, count: int) -> dict[str, Any]:
        spec = TensorSpec("scores", "FP32", scores.shape[1:])
        card = ModelCard("net", (spec,), (spec,), ("cat", "dog"), 8, 1, 1, {"default": ServiceClass()}, "default")
        asked = InferRequest("", (), (OutputRequest("scores", binary=False, class_count=count),))
        found = replace(answer(Backend.EDGE), outputs=(Tensor.from_numpy("scores", scores),))
        body = infer_response(card, asked, found).body
        assert isinstance(body, bytes)
        output: dict[str, Any] = json.loads(body)["outputs"][0]
        return output

    def test_values_are_written_as_triton_writes_them_and_labels_end_where_there_are_none(self) -> None:
        found = self.ask(np.array([[0.25, 0.5, 0.125], [3.0, 1.0, 2.0]], dtype=np.float32), 3)
        assert (found["datatype"], found["shape"]) == ("BYTES", [2, 3])
        assert found["data"] == [
            "0.500000:1:dog",
            "0.250000:0:cat",
            "0.125000:2",
            "3.000000:0:cat",
            "2.000000:2",
            "1.000000:1:dog",
        ]

    def test_whole_numbers_stay_whole_and_the_axes_of_an_item_are_one(self) -> None:
        found = self.ask(np.array([[[7, 200], [3, 9]]], dtype=np.uint8), 2)
        assert (found["shape"], found["data"]) == ([1, 2], ["200:1:dog", "9:3"])

    def test_a_single_number_is_its_own_best_class(self) -> None:
        found = self.ask(np.array([-4, 5], dtype=np.int64), 3)
        assert (found["shape"], found["data"]) == ([2, 1], ["-4:0:cat", "5:0:cat"])
