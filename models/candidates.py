"""The runtimes that could serve a model on a device, the usual one first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.card import Card
from models.conversion import convert, converted
from models.errors import ModelError
from models.formats.onnx_format import OnnxRuntime, open_session
from models.formats.torch_networks import network_of
from models.formats.torch_runtime import TorchRuntime, half_precision_problem
from models.hardware import onnxruntime_device, torch_device
from models.packages import is_installed, needed
from models.runtime import Runtime, RuntimeReport
from models.weights_file import Weights


@dataclass(frozen=True, slots=True)
class Candidate:
    """One runtime that could serve the model.

    Attributes:
        name: one of `runtime_names.RUNTIMES`.
        precision: "fp32", "bf16" or "fp16".
        open: loads it; raises ModelError if that fails.
        problem: why it should not be tried unless it is asked for by name; None: nothing.
    """

    name: str
    precision: str
    open: Callable[[], Runtime]
    problem: str | None = None


def of_onnx(card: Card, file: Path, device: str, threads: int) -> list[Candidate]:
    """Returns the runtimes of an ONNX file.

    Args:
        card: the model's card.
        file: the ONNX file.
        device: "auto", "cpu" or "cuda".
        threads: threads of one operation on the CPU.

    Raises:
        ModelError: ONNX Runtime is missing, or cannot use the device.
    """
    onnxruntime: Any = needed("onnxruntime", f"model {card.name}")
    found = onnxruntime_device(device)
    kind = found.partition(":")[0]

    def opened(provider: str, name: str) -> Callable[[], Runtime]:
        def runtime() -> Runtime:
            session = open_session(file, device=found, threads=threads, name=card.name, provider=provider)
            return OnnxRuntime(card, session, RuntimeReport(name, kind))

        return runtime

    candidates = [Candidate("onnxruntime", "fp32", opened(kind, "onnxruntime"))]
    if kind == "cuda" and "TensorrtExecutionProvider" in onnxruntime.get_available_providers():
        candidates.append(Candidate("onnxruntime-tensorrt", "fp32", opened("tensorrt", "onnxruntime tensorrt")))
    return candidates


def of_conversion(card: Card, weights: Weights, device: str, threads: int) -> list[Candidate]:
    """Returns the runtimes of the ONNX file that was made of this very model earlier; none if there is none."""
    file = converted(card, weights)
    if file is None or not is_installed("onnxruntime"):
        return []
    return of_onnx(card, file, device, threads)


def of_torch(card: Card, weights: Weights, device: str, threads: int, *, with_onnx: bool) -> list[Candidate]:
    """Returns the runtimes of a network of torch, after loading it.

    Args:
        card: of a format of torch.
        weights: where its weights come from.
        device: "auto", "cpu" or "cuda".
        threads: threads of one operation on the CPU.
        with_onnx: whether an ONNX file is made of it, which takes seconds, if there is none.

    Raises:
        ModelError: torch is missing, cannot use the device, or cannot load the network.
    """
    torch: Any = needed("torch", f"model {card.name}, of format {card.format},")
    found = torch_device(device)
    torch.set_num_threads(threads)
    network = network_of(card, weights.file, found)
    further: list[Candidate] = []
    if with_onnx:
        # Before any candidate moves the network to the GPU.
        further = _converting(card, weights, network if found == "cpu" else None, found, threads)

    def opened(precision: str, channels_last: bool) -> Callable[[], Runtime]:
        return lambda: TorchRuntime(card, network, device=found, precision=precision, channels_last=channels_last)

    no_images = None if _has_images(card) else "no input is a picture, or has three axes"
    candidates = [
        Candidate("torch", "fp32", opened("fp32", False)),
        *further,
        Candidate("torch-channels_last", "fp32", opened("fp32", True), no_images),
    ]
    for precision in ("bf16", "fp16"):
        problem = half_precision_problem(found, precision)
        candidates.append(Candidate(f"torch-{precision}", precision, opened(precision, False), problem))
        last = Candidate(f"torch-channels_last-{precision}", precision, opened(precision, True), problem or no_images)
        candidates.append(last)
    return candidates


def _has_images(card: Card) -> bool:
    return any(spec.picture or len(spec.shape) == 3 for spec in card.inputs)


def _converting(card: Card, weights: Weights, network: Any, device: str, threads: int) -> list[Candidate]:
    """Returns the runtimes of an ONNX file made of the network now, or one that says why there is none."""
    try:
        # A conversion takes seconds, which ONNX Runtime without this device would not repay.
        onnxruntime_device(device)
        if converted(card, weights) is None:
            convert(card, weights, network_of(card, weights.file) if network is None else network)
        return of_conversion(card, weights, device, threads)
    except ModelError as error:
        sentence = str(error)

        def refused() -> Runtime:
            raise ModelError(sentence)

        return [Candidate("onnxruntime", "fp32", refused, sentence)]
