"""The prototypes' figures in our profile format, and the folder they are read from."""

import json
import os
from pathlib import Path
from typing import Any

import pytest


def vectors() -> Path:
    """The folder of published figures, next to that of the traces; skips the test without it."""
    traces = os.environ.get("EDGEBURST_TRACES")
    folder = Path(traces).parent / "vectors" if traces else None
    if folder is None or not folder.is_dir():
        pytest.skip("set EDGEBURST_TRACES to the folder with the traces (vectors lie beside it) to run this")
    return folder


def read(name: str) -> Any:
    """One of the files, parsed."""
    return json.loads((vectors() / name).read_text())


def harmony_profile(model: str, *, fluid: bool = True) -> dict[str, Any]:
    """HarmonyBatch's figures of one model as a profile; `fluid` takes its mean of a GPU slice, too."""
    constants = read("constants.json")
    return convert_harmony(constants["Harmony_models"][model], constants["Harmony_grid"], fluid=fluid)


def convert_harmony(figures: dict[str, Any], grid: dict[str, Any], *, fluid: bool) -> dict[str, Any]:
    gpu, (each_mb, base_mb) = figures["gpu"], figures["cpu_mem_MB_affine_in_batch"]
    cpu_family = {
        "kind": "cpu",
        "form": "exponential",
        "grid": dict(zip(("from", "to", "step"), grid["cpu"], strict=True)) | {"over": "vcpu"},
        "mean": figures["cpu_avg_g0_g1_g2_by_batch1_4"],
        "worst": figures["cpu_max_g0_g1_g2_by_batch1_4"],
        "memory_gb": {"base": base_mb / 1024, "per_item": each_mb / 1024, "per_vcpu": 1.0, "step": 0.0625},
        "measured": {"vcpu": grid["cpu"][:2], "batch": grid["B_cpu"]},
    }
    gpu_family = {
        "kind": "gpu",
        "form": "slices",
        "grid": dict(zip(("from", "to", "step"), grid["gpu"], strict=True)) | {"over": "gpu_gb"},
        "slope_s": gpu["l1"],
        "constant_s": gpu["l2"],
        "slice_s": gpu["t"],
        "card_gb": gpu["G"],
        "on_gpu": gpu.get("a", 1.0),
        "on_cpu": gpu.get("b", 0.0),
        "worst_factor": grid["max_scale"],
        "fluid": fluid,
        "vcpu": {"each": 1 / 3},
        "memory_gb": figures["gpu_mem_MB"] / 1024,
        "another_gpu_gb_beyond_batch": figures["gpu_mem_steps"],
        "max_batch": grid["B_gpu"][1],
    }
    return {
        "name": "harmonybatch",
        "source": "HarmonyBatch's fitted coefficients",
        "date": "2024",
        "families": [cpu_family, gpu_family],
    }


def batch_profile(model: str, *, max_batch: int) -> dict[str, Any]:
    """BATCH's fitted polynomial of one model as a profile."""
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
