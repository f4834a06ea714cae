"""The folder of published figures that some tests compare with; without it these tests are skipped."""

import os
from pathlib import Path
from typing import Any

import pytest

from scripts.support import published_figures


def vectors() -> Path:
    """Returns the folder of published figures, next to that of the traces; skips the test without it."""
    traces = os.environ.get("EDGEBURST_TRACES")
    folder = Path(traces).parent / "vectors" if traces else None
    if folder is None or not folder.is_dir():
        pytest.skip("set EDGEBURST_TRACES to the folder with the traces (vectors lie beside it) to run this")
    return folder


def read(name: str) -> Any:
    """Returns one of the files, parsed."""
    return published_figures.read(vectors(), name)


def harmony_profile(model: str, *, fluid: bool = True) -> dict[str, Any]:
    """Returns HarmonyBatch's figures of one model as a profile."""
    return published_figures.harmony_profile(vectors(), model, fluid=fluid)


def batch_profile(model: str, *, max_batch: int) -> dict[str, Any]:
    """Returns BATCH's fitted polynomial of one model as a profile."""
    return published_figures.batch_profile(vectors(), model, max_batch=max_batch)
