"""A batch's way through the server: who fails alone, what is timed, what is done ahead."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.edge_fakes import FakeClock, FakeModel, make_service, picture
from support.own_models import FunctionRuntime, adding_model, own_card

from edge_server.errors import Failed, Unavailable
from edge_server.service import Service
from models.card import TensorSpec
from models.emulation import Emulation, emulation_for
from models.errors import ModelError
from models.profile import load_profile
from models.serving import ElementDecoder, ServedModel
from scheduler.wire import InferRequest, InferResponse, Tensor, WireError, item_crc32

BROKEN = picture(3)[:-20]


def infer(service: Service, *pictures: bytes) -> InferResponse:
    return service.infer("digits", InferRequest(id="", inputs=(Tensor.from_elements("image", pictures),)))


def infer_later(service: Service, *pictures: bytes) -> Future[InferResponse]:
    caller = ThreadPoolExecutor(1)
    future = caller.submit(infer, service, *pictures)
    caller.shutdown(wait=False)
    return future


def outputs(response: InferResponse) -> tuple[np.ndarray, list[bytes]]:
    probabilities, errors = response.outputs
    assert (probabilities.name, errors.name) == ("probabilities", "item_error")
    return probabilities.to_numpy(), errors.elements()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 9), st.none()), min_size=1, max_size=8))
def test_a_broken_picture_fails_alone_wherever_it_stands(digits: list[int | None]) -> None:
    model = FakeModel()
    whole = sum(digit is not None for digit in digits)

    probabilities, errors = outputs(
        infer(make_service(model), *(BROKEN if digit is None else picture(digit) for digit in digits))
    )

    for row, error, digit in zip(probabilities, errors, digits, strict=True):
        assert (error == b"") == (digit is not None)
        assert row.tolist() == ([0.0] * 10 if digit is None else np.eye(10)[digit].tolist())
    assert model.batches == ([whole] if whole else [])


def test_an_item_error_is_a_sentence_for_people() -> None:
    _, errors = outputs(infer(make_service(FakeModel()), b""))

    assert errors == [b"the image is empty: send the bytes of a PNG or JPEG file"]


@pytest.mark.parametrize("items", [1, 5, 20])
@pytest.mark.parametrize("own_s", [0.0, 0.03, 2.0])
def test_an_emulated_batch_takes_the_laws_time_or_its_own_if_that_is_longer(items: int, own_s: float) -> None:
    clock, model, emulation = FakeClock(), FakeModel(), emulation_for("orin-resnet50")
    model.while_predicting = lambda: clock.sleep(own_s)
    service = make_service(model, max_batch=64, emulation=emulation, clock=clock)

    response = infer(service, *[picture(1)] * items)

    law_s = 0.04234 + 0.008165 * items
    assert response.parameters["service_s"] == pytest.approx(max(law_s, own_s))
    assert response.parameters["queue_s"] == 0


def test_the_next_batch_is_decoded_while_the_device_works() -> None:
    model = FakeModel()
    service = make_service(model)
    model.may_predict.clear()
    first = infer_later(service, picture(1))
    assert model.predicting.acquire(timeout=30)
    second = infer_later(service, picture(2), picture(3))

    assert all(model.preprocessed.acquire(timeout=30) for _ in range(3))
    assert model.batches == [1]
    model.may_predict.set()
    assert outputs(first.result(30))[0].argmax(axis=1).tolist() == [1]
    assert outputs(second.result(30))[0].argmax(axis=1).tolist() == [2, 3]


def test_an_emulated_device_does_one_batch_at_a_time_and_decodes_nothing_ahead() -> None:
    model = FakeModel()
    service = make_service(model, emulation=emulation_for("orin-resnet50"), decode_threads=1)
    pool = service.models["digits"].pool
    model.may_predict.clear()
    first = infer_later(service, picture(1))
    assert model.predicting.acquire(timeout=30)
    assert model.preprocessed.acquire(timeout=30)
    second = infer_later(service, picture(2))
    while service.device.in_hand < 2:
        pass
    pool.submit(lambda: None).result(30)

    assert not model.preprocessed.acquire(blocking=False)
    model.may_predict.set()
    assert outputs(first.result(30))[0].argmax() == 1
    assert outputs(second.result(30))[0].argmax() == 2


def test_an_emulated_device_with_time_for_decoding_decodes_beside_it() -> None:
    clock, model = FakeClock(), FakeModel()
    emulation = Emulation(replace(load_profile("orin-resnet50"), decode_s=0.03))
    service = make_service(model, max_batch=64, emulation=emulation, clock=clock)
    model.may_predict.clear()
    first = infer_later(service, picture(1))
    assert model.predicting.acquire(timeout=30)
    second = infer_later(service, picture(2))
    assert all(model.preprocessed.acquire(timeout=30) for _ in range(2)), "while the device serves the first"
    while clock.now_s < 0.06:
        pass
    model.may_predict.set()
    assert outputs(first.result(30))[0].argmax() == 1
    assert outputs(second.result(30))[0].argmax() == 2
    one_s = 0.04234 + 0.008165
    # The second one's 30 ms of decoding passed while the first was on the device.
    assert clock.now_s == pytest.approx(0.03 + 2 * one_s)
    assert first.result(30).parameters["service_s"] == pytest.approx(0.03 + one_s)
    assert second.result(30).parameters["service_s"] == pytest.approx(0.03 + one_s)
    assert second.result(30).parameters["queue_s"] == pytest.approx(one_s - 0.03)
    assert [each.result(30).parameters["decode_s"] for each in (first, second)] == pytest.approx([0.03, 0.03])


def test_a_broken_request_leaves_its_place_on_an_emulated_device_that_decodes() -> None:
    model = FakeModel()
    emulation = Emulation(replace(load_profile("orin-resnet50"), alpha_s=0.0, beta_s=0.0, decode_s=1e-4))
    service = make_service(model, emulation=emulation)
    _, errors = outputs(infer(service, BROKEN, picture(4)))
    assert errors[0]
    assert not errors[1]
    assert service.device.in_hand == 0


def test_waiting_for_the_device_is_queueing_and_not_service() -> None:
    clock, model = FakeClock(), FakeModel()
    service = make_service(model, clock=clock, decode_threads=1)
    pool = service.models["digits"].pool
    model.may_predict.clear()
    first = infer_later(service, picture(1))
    assert model.predicting.acquire(timeout=30)
    second = infer_later(service, picture(2))
    assert all(model.preprocessed.acquire(timeout=30) for _ in range(2))
    pool.submit(lambda: None).result(30)
    clock.now_s = 10.0
    model.while_predicting = lambda: clock.sleep(0.5)
    model.may_predict.set()

    identity = "sha256:" + "0" * 64
    sums = [item_crc32([Tensor.from_elements("image", [picture(number)])]) for number in (1, 2)]
    assert first.result(30).parameters == {
        "service_s": 10.5,
        "queue_s": 0.0,
        "decode_s": 0.0,
        "identity": identity,
        "item_crc32": sums[0],
    }
    assert second.result(30).parameters == {
        "service_s": 0.5,
        "queue_s": 10.5,
        "decode_s": 0.0,
        "identity": identity,
        "item_crc32": sums[1],
    }


def test_several_models_with_tensors_share_the_device() -> None:
    pictures, tensors = FakeModel(), adding_model()
    service = make_service(pictures, tensors)
    inputs = (
        Tensor.from_numpy("a", np.ones((2, 3), np.float32)),
        Tensor.from_numpy("b", np.array([1, 0], np.int64)),
    )

    response = service.infer("adding", InferRequest(id="r", inputs=inputs))

    assert {tensor.name: tensor.to_numpy().tolist() for tensor in response.outputs} == {
        "sum": [4, 3],
        "rows": [[1, 1]],
        "rows_rows": [1, 0],
    }
    assert outputs(infer(service, picture(4)))[0].argmax() == 4


def test_each_model_has_its_own_largest_batch() -> None:
    service = make_service(FakeModel(), adding_model(), max_batch=2)
    service.models["adding"].max_batch = 1
    inputs = (Tensor.from_numpy("a", np.ones((2, 3), np.float32)), Tensor.from_numpy("b", np.ones(2, np.int64)))

    with pytest.raises(WireError, match="2 items, but model adding takes at most 1"):
        service.infer("adding", InferRequest(id="r", inputs=inputs))
    infer(service, picture(1), picture(2))


@pytest.mark.parametrize("error", [ModelError("the network gave nothing"), KeyError("secret")])
def test_a_model_that_fails_fails_its_batch_and_no_other(error: Exception) -> None:
    model = FakeModel()
    service = make_service(model)

    def fail() -> None:
        raise error

    model.while_predicting = fail
    with pytest.raises(Failed, match="model 'digits' failed on this batch.*(gave nothing|KeyError)") as failure:
        infer(service, picture(1))
    model.while_predicting = lambda: None

    assert "secret" not in str(failure.value)
    assert service.device.in_hand == 0
    assert outputs(infer(service, picture(2)))[0].argmax() == 2


def test_a_model_that_hangs_fails_its_batch_and_the_others_go_on() -> None:
    hanging = FakeModel()
    service = make_service(hanging, adding_model(), limit_s=0.05)
    inputs = (Tensor.from_numpy("a", np.ones((1, 3), np.float32)), Tensor.from_numpy("b", np.ones(1, np.int64)))
    hanging.may_predict.clear()

    with pytest.raises(Failed, match="model 'digits' failed on this batch: the batch has not ended within 0.05 s"):
        infer(service, picture(1))
    with pytest.raises(Unavailable, match="model 'digits' does not come back from an earlier batch"):
        infer(service, picture(1))

    assert service.infer("adding", InferRequest(id="r", inputs=inputs)).outputs[0].to_numpy().tolist() == [4]
    assert service.is_alive(10)
    hanging.may_predict.set()
    while service.models["digits"].is_stuck:
        pass
    assert outputs(infer(service, picture(2)))[0].argmax() == 2


def test_a_server_whose_every_model_hangs_is_not_alive() -> None:
    hanging = FakeModel()
    service = make_service(hanging, limit_s=0.05)
    hanging.may_predict.clear()
    with pytest.raises(Failed):
        infer(service, picture(1))

    assert not service.is_alive(10)
    hanging.may_predict.set()


def test_a_decoder_that_hangs_fails_its_batch_and_the_others_go_on() -> None:
    gate = threading.Event()

    def hang(element: bytes) -> np.ndarray:
        gate.wait(timeout=30)
        return np.zeros(1, np.float32)

    decode: ElementDecoder = hang
    card = own_card("hanging", [TensorSpec("image", "BYTES", picture=True)], [TensorSpec("y", "FP32", (1,))])
    hanging = ServedModel(card, FunctionRuntime(lambda inputs: {"y": inputs["image"]}), decoders={"image": decode})
    service = make_service(FakeModel(), hanging, limit_s=0.05)

    with pytest.raises(Failed, match="hanging"):
        service.infer("hanging", InferRequest(id="", inputs=(Tensor.from_elements("image", [b"x"] * 4),)))

    assert outputs(infer(service, picture(2)))[0].argmax() == 2
    gate.set()
