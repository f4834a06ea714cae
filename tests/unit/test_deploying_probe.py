"""The probe: this project's container answers it, and no other answer passes for one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from scheduler import wire
from scheduler.daemon.config.model_sections import ModelSection, TensorSection
from scheduler.deploying.errors import DeployError
from scheduler.deploying.probe import check_answer, probe_frame, probe_request
from scheduler.fc_client import Invoked
from serverless_fn.inference import Inference
from serverless_fn.local_models import LocalModels
from serverless_fn.settings import read_settings

DIGITS = ModelSection(name="digits")


def answer(*outputs: wire.Tensor, **header: object) -> bytes:
    response = wire.encode_response(wire.InferResponse("digits", outputs), binary_by_default=True)
    return wire.pack_frame({"status": 200, "batch_id": "p-1", **header}, response)


BROKEN_ITEM = wire.Tensor.from_elements("item_error", [b"no picture"])
ROW = wire.Tensor.from_numpy("probabilities", np.zeros((1, 10), np.float32))


def test_the_real_container_answers_the_probe_of_every_catalogued_kind() -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: digits runs in it")
    frame = probe_frame(probe_request(DIGITS), model="digits", batch_id="p-1")
    served = Inference(LocalModels(read_settings({"MODEL": "digits"}))).answer(frame)
    check_answer(Invoked(served.frame, ""), batch_id="p-1")
    other = Inference(LocalModels(read_settings({"MODEL": "resnet50"}))).answer(frame)
    with pytest.raises(DeployError, match="this function serves 'resnet50', not 'digits'"):
        check_answer(Invoked(other.frame, ""), batch_id="p-1")


def test_a_model_with_tensors_of_its_own_gets_one_item_of_each() -> None:
    inputs = (
        TensorSection(name="pixels", datatype="FP32", shape=(3, 2)),
        TensorSection(name="words", datatype="BYTES", shape=(2,)),
        TensorSection(name="photo", datatype="BYTES", picture=True),
    )
    model = ModelSection(name="own", inputs=inputs, outputs=(TensorSection(name="y", datatype="FP32"),))
    payload = wire.unpack_frame(probe_frame(probe_request(model), model="own", batch_id="b"))[1]
    pixels, words, photo = wire.parse_request(payload.body, payload.json_length).inputs
    assert (pixels.shape, words.shape, photo.shape) == ((1, 3, 2), (1, 2), (1,))
    assert not pixels.to_numpy().any()
    assert words.elements() == [b"", b""]
    assert photo.elements()[0].startswith(b"\x89PNG")


def test_a_good_answer_passes() -> None:
    check_answer(Invoked(answer(ROW, wire.Tensor.from_elements("item_error", [b""])), ""), batch_id="p-1")


@pytest.mark.parametrize(
    ("body", "error_type", "words"),
    [
        (answer(), "", "has another number of items"),
        (answer(wire.Tensor.from_numpy("p", np.zeros((2, 1), np.float32))), "", "has another number of items"),
        (answer(ROW, BROKEN_ITEM), "", "refuses the probe's item: no picture"),
        (answer(ROW, batch_id="p-2"), "", "answered to another batch"),
        (answer(status=500, error="out of memory"), "", "answered 500: out of memory"),
        (answer(ROW), "HandledInvocationError", "answered 200: HandledInvocationError"),
        (b"hello", "", "cannot be read"),
        (json.dumps({"errorMessage": "exited"}).encode(), "UnhandledInvocationError", "Invocation.*: exited"),
        (b"\xff", "UnhandledInvocationError", "the function failed"),
    ],
)  # fmt: skip
def test_every_other_answer_fails_with_its_reason(body: bytes, error_type: str, words: str) -> None:
    with pytest.raises(DeployError, match=words):
        check_answer(Invoked(body, error_type), batch_id="p-1")


def test_the_endpoint_of_the_tests_writes_frames_as_the_wire_does() -> None:
    from support.one_row_function import one_row

    frame = probe_frame(probe_request(DIGITS), model="digits", batch_id="p-1")
    check_answer(Invoked(one_row(frame), ""), batch_id="p-1")
