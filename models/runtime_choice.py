"""Which runtime serves a model: the named one, the usual one, or the fastest of those whose outputs agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from models.card import Card
from models.errors import ModelError
from models.runtime import Runtime
from models.weights_file import Weights

RUNTIMES = (
    "torch",
    "torch-channels_last",
    "torch-bf16",
    "torch-fp16",
    "torch-channels_last-bf16",
    "torch-channels_last-fp16",
    "onnxruntime",
    "onnxruntime-tensorrt",
)
"""Names for `--runtime`, beside "auto"."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a host asks for.

    Attributes:
        device: "auto", "cpu" or "cuda".
        runtime: "auto" or one of `RUNTIMES`.
        threads: threads of one operation on the CPU.
        max_batch: largest batch.
        measure_s: seconds for measuring; 0: none.
    """

    device: str
    runtime: str
    threads: int
    max_batch: int
    measure_s: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """One runtime that could serve the model.

    Attributes:
        name: one of `RUNTIMES`.
        precision: "fp32", "bf16" or "fp16".
        open: loads it.
    """

    name: str
    precision: str
    open: Callable[[], Runtime]


def runtime_for(card: Card, weights: Weights, wanted: Wanted) -> Runtime:
    """Returns the runtime that serves a model of any format but python.

    Raises:
        ModelError: it cannot be loaded, or the named runtime does not run it.
    """
    if wanted.runtime != "auto" and wanted.runtime not in RUNTIMES:
        raise ModelError(f"there is no runtime {wanted.runtime!r}: choose auto, {', '.join(RUNTIMES)}")
    candidates = (
        _onnx_candidates(card, weights, wanted) if card.format == "onnx" else _torch_candidates(card, weights, wanted)
    )
    if wanted.runtime == "auto":
        return candidates[0].open()
    for candidate in candidates:
        if candidate.name == wanted.runtime:
            return candidate.open()
    raise ModelError(
        f"model {card.name} of format {card.format} cannot run on {wanted.runtime!r} on this device: choose auto,"
        f" {', '.join(candidate.name for candidate in candidates)}"
    )


def _onnx_candidates(card: Card, weights: Weights, wanted: Wanted) -> Sequence[Candidate]:
    from models.formats.onnx_format import OnnxRuntime, open_session
    from models.hardware import onnxruntime_device
    from models.runtime import RuntimeReport

    assert weights.file is not None
    file = weights.file
    device = onnxruntime_device(wanted.device)
    kind = device.partition(":")[0]

    def opened(provider: str) -> Runtime:
        session = open_session(file, device=device, threads=wanted.threads, name=card.name, provider=provider)
        name = "onnxruntime tensorrt" if provider == "tensorrt" else "onnxruntime"
        return OnnxRuntime(card, session, RuntimeReport(name, kind))

    found = [Candidate("onnxruntime", "fp32", lambda: opened(kind))]
    if kind == "cuda":
        found.append(Candidate("onnxruntime-tensorrt", "fp32", lambda: opened("tensorrt")))
    return found


def _torch_candidates(card: Card, weights: Weights, wanted: Wanted) -> Sequence[Candidate]:
    from models.formats.torch_networks import network_of
    from models.formats.torch_runtime import TorchRuntime
    from models.hardware import torch_device
    from models.packages import needed

    torch: Any = needed("torch", f"model {card.name}, of format {card.format},")
    device = torch_device(wanted.device)
    torch.set_num_threads(wanted.threads)
    network = network_of(card, weights.file)

    def opened(precision: str, channels_last: bool) -> Callable[[], Runtime]:
        return lambda: TorchRuntime(card, network, device=device, precision=precision, channels_last=channels_last)

    found = []
    for precision in ("fp32", "bf16", "fp16"):
        for channels_last in (False, True):
            parts = ("torch", "channels_last" if channels_last else "", "" if precision == "fp32" else precision)
            found.append(Candidate("-".join(filter(None, parts)), precision, opened(precision, channels_last)))
    return found
