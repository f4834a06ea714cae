"""What this server runs on, for clients that look for what does not go together: Python, numpy, torch."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

_FIRST_FOR_NUMPY_2 = (2, 3)
"""The first release of torch that was built for numpy 2; it still works with numpy 1."""


def environment() -> dict[str, object]:
    """Returns the versions, and whether torch and numpy go together, without importing torch.

    `numpy_fits_torch` is null without torch.
    """
    numpy, torch = version_of("numpy"), version_of("torch")
    return {
        "python": platform.python_version(),
        "numpy": numpy,
        "torch": torch,
        "onnxruntime": version_of("onnxruntime"),
        "numpy_fits_torch": _exchanged() if "torch" in sys.modules else fit(numpy, torch),
    }


def fit(numpy: str | None, torch: str | None) -> bool | None:
    """Returns whether releases of numpy and torch go together; None where one of them is not there.

    >>> fit("2.1.0", "2.2.2+cpu"), fit("1.26.4", "2.2.2"), fit("2.1.0", "2.3.0a0+nv24"), fit("2.1.0", None)
    (False, True, True, None)
    """
    if numpy is None or torch is None:
        return None
    return _release(numpy)[0] < 2 or _release(torch) >= _FIRST_FOR_NUMPY_2


def _release(text: str) -> tuple[int, int]:
    """Returns the first two numbers of a version; 0 for what is none."""
    first, second = (*text.split("."), "", "")[:2]
    return (int(first) if first.isdigit() else 0, int(second) if second.isdigit() else 0)


def _exchanged() -> bool | None:
    """Returns whether the torch of this process and numpy exchange arrays; None where that cannot be tried."""
    try:
        sys.modules["torch"].zeros(1).numpy()
    except RuntimeError:
        return False
    except AttributeError:  # it is being imported, or could not be
        return None
    return True


def version_of(package: str) -> str | None:
    """Returns the installed release of a package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
