"""The figures that HarmonyBatch and BATCH published, read from a folder and converted to this project's profiles."""

import json
from pathlib import Path
from typing import Any


def read(folder: Path, name: str) -> Any:
    """Returns the parsed JSON file `name` of the folder of published figures."""
    return json.loads((folder / name).read_text())


def harmony_profile(folder: Path, model: str, *, fluid: bool = True) -> dict[str, Any]:
    """Returns HarmonyBatch's figures of one model as a profile.

    Args:
        folder: the published figures.
        model: its name there, for instance `VGG19`.
        fluid: the mean latency and the bill of a GPU slice as HarmonyBatch assumes them, not the exact ones.
    """
    constants = read(folder, "constants.json")
    return convert_harmony(constants["Harmony_models"][model], constants["Harmony_grid"], fluid=fluid)


def convert_harmony(figures: dict[str, Any], grid: dict[str, Any], *, fluid: bool) -> dict[str, Any]:
    """Returns a profile with a CPU and a GPU family.

    Args:
        figures: fitted coefficients and memory of one model, as published.
        grid: the ranges of vCPU, GPU memory and batch size, as published; the same for all models.
        fluid: the mean latency and the bill of a GPU slice as HarmonyBatch assumes them.
    """
    return {
        "name": "harmonybatch",
        "source": "HarmonyBatch's fitted coefficients",
        "date": "2024",
        "families": [_cpu_family(figures, grid), _gpu_family(figures, grid, fluid=fluid)],
    }


def _cpu_family(figures: dict[str, Any], grid: dict[str, Any]) -> dict[str, Any]:
    per_item_mb, base_mb = figures["cpu_mem_MB_affine_in_batch"]
    return {
        "kind": "cpu",
        "form": "exponential",
        "grid": dict(zip(("from", "to", "step"), grid["cpu"], strict=True)) | {"over": "vcpu"},
        "mean": figures["cpu_avg_g0_g1_g2_by_batch1_4"],
        "worst": figures["cpu_max_g0_g1_g2_by_batch1_4"],
        "memory_gb": {"base": base_mb / 1024, "per_item": per_item_mb / 1024, "per_vcpu": 1.0, "step": 0.0625},
        "measured": {"vcpu": grid["cpu"][:2], "batch": grid["B_cpu"]},
    }


def _gpu_family(figures: dict[str, Any], grid: dict[str, Any], *, fluid: bool) -> dict[str, Any]:
    gpu = figures["gpu"]
    return {
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
