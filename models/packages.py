"""Imports a framework when a model needs it; a missing or unusable one is a sentence that names what to install."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import sys
from types import ModuleType
from typing import Final

from models import hints
from models.errors import ModelError

_HOW: Final = {
    "torch": "pip install '.[torch]' from the source tree, or NVIDIA's build on a Jetson",
    "torchvision": "pip install '.[torch]' from the source tree, or NVIDIA's build on a Jetson",
    "onnxruntime": "pip install '.[onnx]' from the source tree",
    "onnx": "pip install '.[convert]' from the source tree",
    "onnxscript": "pip install '.[convert]' from the source tree",
    "timm": "pip install '.[timm]' from the source tree",
    "safetensors": "pip install '.[timm]' from the source tree",
    "cv2": "pip install '.[opencv]' from the source tree, or on a board apt install python3-opencv",
}
_OF_ANOTHER_NUMPY = "compiled using NumPy 1.x"
"""In what numpy 2 writes to standard error when a package that was built for numpy 1 is imported."""


class MissingPackage(ModelError):
    """Error: a package that the model needs is not installed."""


def needed(package: str, what_for: str) -> ModuleType:
    """Returns an imported package.

    Args:
        package: its name, perhaps with a module in it.
        what_for: what needs it, the beginning of the error sentence.

    Raises:
        MissingPackage: it is not installed, cannot be imported, or was built for another numpy.
    """
    root = package.partition(".")[0]
    if sys.modules.get(package) is not None:
        return importlib.import_module(package)
    said = io.StringIO()
    try:
        # numpy 2 writes a page with a traceback for each module that was built for numpy 1.
        with contextlib.redirect_stderr(said), hints.kept_back():
            module = importlib.import_module(package)
            another_numpy = root == "torch" and not _exchanges_arrays(module)
    except ImportError as error:
        if _OF_ANOTHER_NUMPY in said.getvalue() or "numpy.core.multiarray" in str(error):
            raise _built_for_numpy_1(root, what_for) from None
        raise MissingPackage(f"{what_for} needs {root}, which is not usable here ({error}): {_HOW[root]}") from None
    if another_numpy or (_OF_ANOTHER_NUMPY in said.getvalue() and root != "torch"):
        raise _built_for_numpy_1(root, what_for)
    sys.stderr.write(said.getvalue())
    return module


def _exchanges_arrays(torch: ModuleType) -> bool:
    """Returns whether torch and numpy work together; torch says so only when it is asked to."""
    try:
        torch.zeros(1).numpy()
    except RuntimeError:
        return False
    return True


def _built_for_numpy_1(root: str, what_for: str) -> MissingPackage:
    import numpy as np

    return MissingPackage(
        f"{what_for} needs {root}, which was built for numpy 1 here and does not work with numpy {np.__version__}:"
        " pip install 'numpy<2', and install edgeburst with the constraints of the board's JetPack"
        " (scripts/requirements/jetpack-6.txt)"
    )


def missing_for(program: str, error: ModuleNotFoundError, extra: str) -> str:
    """Returns the sentence for the start of a program that is not installed completely.

    Args:
        program: its name.
        error: of the import that failed; one of ours is a fault of the program and raised again.
        extra: the extra that has what is missing.

    >>> missing_for("edgeburst-edge", ModuleNotFoundError("No module named 'flask'", name="flask"), "edge")
    "edgeburst-edge needs the Python package 'flask': install it from the source tree with pip install '.[edge]'"
    """
    missing = (error.name or "").partition(".")[0]
    if missing in ("models", "scheduler", "edge_server", "serverless_fn"):
        raise error
    extra = "opencv" if missing == "cv2" and extra == "edge" else extra
    return (
        f"{program} needs the Python package {missing!r}: install it from the source tree with pip install '.[{extra}]'"
    )


def is_installed(package: str) -> bool:
    """Returns whether a package is there, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False
