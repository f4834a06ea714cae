"""Which device a model runs on: an NVIDIA GPU if there is one that its framework can use, else the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from models.errors import ModelError
from models.packages import is_installed, needed

Device = Literal["cpu", "cuda"]

# NVIDIA's device files: of a discrete GPU, of Jetsons before and since JetPack 6, and of a GPU under Windows' Linux.
_GPU_FILES = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/dxg")


def has_gpu() -> bool:
    """Returns whether the host has an NVIDIA GPU, whatever is installed."""
    return any(Path(name).exists() for name in _GPU_FILES)


def torch_device(wanted: str) -> str:
    """Returns torch's device for "auto", "cpu" or "cuda"; imports torch.

    Raises:
        ModelError: torch is missing, or it is to run on a GPU and finds none.
    """
    torch = needed("torch", "this format of model")
    usable = torch.cuda.is_available()
    if wanted == "auto":
        return "cuda" if usable else "cpu"
    if wanted.startswith("cuda") and not usable:
        raise ModelError(f"device {wanted!r} is not usable here, torch finds no CUDA: choose 'cpu'")
    return wanted


def onnxruntime_device(wanted: str) -> str:
    """Returns the device of ONNX Runtime for "auto", "cpu" or "cuda"; imports it.

    Raises:
        ModelError: ONNX Runtime is missing, or it is to run on a GPU and cannot.
    """
    onnxruntime = needed("onnxruntime", "this format of model")
    usable = "CUDAExecutionProvider" in onnxruntime.get_available_providers() and has_gpu()
    if wanted == "auto":
        return "cuda" if usable else "cpu"
    if wanted.startswith("cuda") and not usable:
        raise ModelError(
            f"device {wanted!r} is not usable here, ONNX Runtime finds no CUDA: choose 'cpu', or install"
            " onnxruntime-gpu"
        )
    return wanted


def handler_device(wanted: str) -> str:
    """Returns the device that a handler in Python is asked to load on; imports torch only beside a GPU.

    Raises:
        ModelError: it is to run on a GPU and there is none.
    """
    if not wanted.startswith("cuda") and (wanted != "auto" or not has_gpu()):
        return "cpu"
    if is_installed("torch"):
        return torch_device(wanted)
    if not has_gpu():
        raise ModelError(f"device {wanted!r} is not usable here, there is no NVIDIA GPU: choose 'cpu'")
    return "cuda" if wanted == "auto" else wanted
