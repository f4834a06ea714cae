"""Profiles from files: latency models over grids of configurations, or measurements of `edgeburst profile`."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.profile import Profile, ProfileError, load_profile, shipped_profiles
from scheduler.planner.catalogue.configurations import Family
from scheduler.planner.catalogue.function_profile import FunctionProfile, parse_profile
from scheduler.planner.catalogue.json_fields import PlanInputError
from scheduler.planner.catalogue.latency_models import TableLatency

_MAX_FILE_BYTES = 20_000_000
"""Largest profile that is read: 4096 configurations x 512 batch sizes in JSON are about as much."""
_NORMAL_95 = 1.6449
"""Standard normal quantile at 0.95."""


def read_profiles(names: Sequence[str]) -> FunctionProfile:
    """Reads profiles and returns all their functions as one profile.

    Args:
        names: files, or names of shipped profiles.

    Raises:
        PlanInputError: a file cannot be read or used; the message names it and the field.
    """
    profiles = [_read(name) for name in names]
    first, families = profiles[0], tuple(family for profile in profiles for family in profile.families)
    if len(profiles) > 1 and any(profile.sizes_bytes for profile in profiles):
        raise PlanInputError("--profile: one with sizes_bytes cannot be mixed with others; name it alone")
    return replace(first, families=families)


def _read(name: str) -> FunctionProfile:
    if name in shipped_profiles():
        return measured_profile(load_profile(name))
    path = Path(name)
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise PlanInputError(f"--profile: {path} has over {_MAX_FILE_BYTES} bytes; name another file")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise PlanInputError(f"--profile: cannot read {path}: {error.strerror}; name a file") from error
    except (ValueError, RecursionError) as error:
        raise PlanInputError(f"--profile: {path} is not JSON: {error}") from error
    if isinstance(content, dict) and "families" not in content and "alpha_s" in content:
        try:
            return measured_profile(load_profile(path))
        except ProfileError as error:
            raise PlanInputError(f"--profile: {error}") from error
    return parse_profile(content, of=path.name)


def measured_profile(profile: Profile) -> FunctionProfile:
    """Returns the measurements of one function as a profile with one configuration.

    Its resources are `memory_mb`, `vcpu` and `gpu_gb` of the environment; a missing `vcpu` counts as one for each GB,
    the most that Function Compute gives. Medians are interpolated between measured batch sizes and end at the largest.
    The scatter is the widest p95 over p50 of any row, as a lognormal.

    Raises:
        PlanInputError: the profile is of an edge server, or does not give its memory.
    """
    where = f"profile {profile.name!r}"
    if profile.backend != "function":
        raise PlanInputError(f"{where}: backend is {profile.backend!r}; only functions can be planned; measure one")
    if "memory_mb" not in profile.environment:
        raise PlanInputError(
            f"{where}: environment.memory_mb is missing; measure with --memory-mb, or add it as a text"
        )
    memory_gb = _number(profile, "memory_mb", 0.0) / 1024
    gpu_gb = _number(profile, "gpu_gb", 0.0)
    rows = profile.rows
    batches = np.arange(1, (rows[-1].batch if rows else profile.max_batch) + 1)
    if rows:
        medians_s = np.interp(batches, [row.batch for row in rows], [row.p50_s for row in rows])
        sigma = max(math.log(row.p95_s / row.p50_s) / _NORMAL_95 if row.p50_s > 0 else 0.0 for row in rows)
    else:
        medians_s, sigma = np.array([profile.predict_s(int(batch)) for batch in batches]), 0.0
    family = Family(
        kind="gpu" if gpu_gb > 0 else "cpu",
        latency=TableLatency((tuple(float(x) for x in medians_s),), sigma),
        vcpu=np.array([_number(profile, "vcpu", memory_gb)]),
        gpu_gb=np.array([gpu_gb]),
        memory_gb=np.full((1, len(batches)), memory_gb),
        largest=np.array([float(len(batches))]),
        gpu_type=profile.environment.get("gpu_type", ""),
    )
    return FunctionProfile(profile.name, profile.source, profile.date, (family,))


def _number(profile: Profile, key: str, default: float) -> float:
    text = profile.environment.get(key)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise PlanInputError(f"profile {profile.name!r}: environment.{key} is {text!r}; it must be a number")
    return value
