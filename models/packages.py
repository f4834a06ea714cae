"""Imports a framework when a model needs it; a missing one is a sentence that names what to install."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Final

from models.errors import ModelError

_HOW: Final = {
    "torch": "pip install '.[torch]' from the source tree, or NVIDIA's build on a Jetson",
    "torchvision": "pip install '.[torch]' from the source tree, or NVIDIA's build on a Jetson",
    "onnxruntime": "pip install '.[onnx]' from the source tree",
    "onnx": "pip install '.[convert]' from the source tree",
    "onnxscript": "pip install '.[convert]' from the source tree",
    "timm": "pip install timm",
    "safetensors": "pip install safetensors",
    "cv2": "pip install '.[edge]' from the source tree",
}


class MissingPackage(ModelError):
    """Error: a package that the model needs is not installed."""


def needed(package: str, what_for: str) -> ModuleType:
    """Returns an imported package.

    Args:
        package: its name, perhaps with a module in it.
        what_for: what needs it, the beginning of the error sentence.

    Raises:
        MissingPackage: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        root = package.partition(".")[0]
        raise MissingPackage(f"{what_for} needs {root}, which is not usable here ({error}): {_HOW[root]}") from None


def is_installed(package: str) -> bool:
    """Returns whether a package is there, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False
