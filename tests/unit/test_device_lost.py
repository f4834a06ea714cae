"""A GPU that answers nothing any more, and one without room: what each side is told, with runtimes that only say so."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.edge_fakes import FakeModel, make_service, picture
from support.own_models import own_card

from edge_server.errors import Failed, TooLarge, Unavailable
from edge_server.service import State
from models.card import TensorSpec
from models.errors import DeviceLost, ModelError, OutOfDeviceMemory, of_device
from models.formats.onnx_format import OnnxRuntime
from models.runtime import RuntimeReport
from scheduler import wire
from scheduler.wire import InferRequest, Tensor
from serverless_fn.backend import Served
from serverless_fn.inference import Inference

LOST = (
    "CUDA error: device-side assert triggered\nCompile with `TORCH_USE_CUDA_DSA`",
    "CUDA error: an illegal memory access was encountered",
    "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 700: an illegal memory access was encountered ; GPU=0",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
)
FULL = (
    "CUDA out of memory. Tried to allocate 2.00 GiB",
    "CUDA error: out of memory",
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 64",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
)
NEITHER = ("mat1 and mat2 shapes cannot be multiplied", "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED")


@pytest.mark.parametrize(
    ("words", "kind"),
    [*((words, DeviceLost) for words in LOST), *((words, OutOfDeviceMemory) for words in FULL)],
)
def test_an_error_of_a_gpu_is_told_apart(words: str, kind: type[ModelError]) -> None:
    assert type(of_device(RuntimeError(words), name="m", items=4)) is kind


@pytest.mark.parametrize("words", NEITHER)
def test_an_error_of_the_network_is_none_of_the_gpu(words: str) -> None:
    assert of_device(RuntimeError(words), name="m", items=4) is None


def onnx_runtime(device: str, words: str) -> OnnxRuntime:
    """A runtime whose session fails with these words."""

    def fail(_names: object, _feed: object) -> list[Any]:
        raise RuntimeError(words)

    node = SimpleNamespace(name="x", type="tensor(float)", shape=["n", 2])
    session = SimpleNamespace(get_inputs=lambda: [node], get_outputs=lambda: [node], run=fail)
    card = own_card("m", [TensorSpec("x", "FP32", (2,))], [TensorSpec("x", "FP32", (2,))])
    return OnnxRuntime(card, session, RuntimeReport("onnxruntime", device))


@pytest.mark.parametrize(("words", "kind"), [(LOST[2], DeviceLost), (FULL[2], OutOfDeviceMemory)])
def test_onnx_runtime_on_a_gpu_says_what_became_of_it(words: str, kind: type[ModelError]) -> None:
    with pytest.raises(kind):
        onnx_runtime("cuda", words).run({"x": np.zeros((4, 2), np.float32)})


def test_the_same_words_on_a_cpu_are_the_networks() -> None:
    with pytest.raises(ModelError, match="failed in ONNX Runtime") as error:
        onnx_runtime("cpu", LOST[2]).run({"x": np.zeros((4, 2), np.float32)})
    assert type(error.value) is ModelError


def test_torch_on_a_gpu_says_what_became_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from models.formats.torch_runtime import TorchRuntime

    words = [LOST[0]]

    def network(_: Any) -> Any:
        raise RuntimeError(words[0])

    card = own_card("m", [TensorSpec("x", "FP32", (2,))], [TensorSpec("y", "FP32", (2,))])
    runtime = TorchRuntime(card, network, device="cuda")
    monkeypatch.setattr(runtime, "_on_device", torch.from_numpy)
    batch: Mapping[str, Any] = {"x": np.zeros((4, 2), np.float32)}
    with pytest.raises(DeviceLost, match="device-side assert|TORCH_USE_CUDA_DSA"):
        runtime.run(batch)
    words[0] = NEITHER[0]
    with pytest.raises(ModelError, match="failed in torch"):
        runtime.run(batch)
    # The copy to the GPU fails too where it is full.
    full = torch.cuda.OutOfMemoryError(FULL[0])
    monkeypatch.setattr(runtime, "_on_device", lambda _: (_ for _ in ()).throw(full))
    with pytest.raises(OutOfDeviceMemory, match="a batch of 4 of model m does not fit in the GPU's memory"):
        runtime.run(batch)


def test_half_of_the_precision_is_not_imitated(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from models.formats.torch_runtime import half_precision_problem

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert half_precision_problem("cuda", "bf16") == "this GPU has no bf16"
    assert half_precision_problem("cuda", "fp16") is None
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert half_precision_problem("cuda", "bf16") is None


def failing(error: Exception) -> FakeModel:
    model = FakeModel()

    def fail() -> None:
        raise error

    model.while_predicting = fail
    return model


def test_the_server_ends_when_its_gpu_is_lost() -> None:
    service, ended = make_service(failing(DeviceLost("the GPU is gone"))), []
    service.on_device_lost = lambda: ended.append(True)
    request = InferRequest("", (Tensor.from_elements("image", [picture(1)]),))
    with pytest.raises(Unavailable, match="the GPU answers nothing any more, the server starts again"):
        service.infer("digits", request)
    assert (service.state, service.device_is_lost, ended) == (State.STOPPING, True, [True])


@pytest.mark.parametrize(("items", "kind", "status"), [(2, TooLarge, 413), (1, Failed, 500)])
def test_a_batch_without_room_is_too_large_unless_it_is_one_item(items: int, kind: Any, status: int) -> None:
    service = make_service(failing(OutOfDeviceMemory("a batch does not fit in the GPU's memory")))
    request = InferRequest("", (Tensor.from_elements("image", [picture(1)] * items),))
    with pytest.raises(kind, match="does not fit in the GPU's memory") as error:
        service.infer("digits", request)
    assert error.value.status == status
    assert service.state is State.READY


def test_the_functions_process_ends_after_the_answer() -> None:
    class Lost:
        def load(self) -> None:
            pass

        def check(self, model: object) -> None:
            pass

        def serve(self, model: object, payload: wire.Encoded, trace: object = None) -> Served:  # noqa: ARG002
            raise DeviceLost("the GPU is gone")

    ended: list[bool] = []
    inference = Inference(Lost(), end_process=lambda: ended.append(True))
    answer = inference.answer(wire.pack_frame({"model": "m"}, wire.Encoded(b"", None)))
    assert (answer.status, ended) == (500, [True])
