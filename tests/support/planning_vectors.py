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
    constants = read("constants.json")
    low_mb, high_mb, step_mb = constants["BATCH_grid"]["M"]
    family = {
        "kind": "cpu",
        "form": "polynomial",
        "grid": {"over": "memory_gb", "from": low_mb / 1024, "to": high_mb / 1024, "step": step_mb / 1024},
        "coefficients": constants["BATCH_service_poly"][model],
        "max_batch": max_batch,
    }
    return {"name": "batch", "source": "BATCH's fitted polynomial", "date": "2020", "families": [family]}
