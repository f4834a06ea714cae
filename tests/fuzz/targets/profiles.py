"""Profiles as measured, functions' profiles, and plans. First byte: which of them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable

from fuzz import scratch
from fuzz.mutators import of_json
from fuzz.target import Target, one_sentence

from models.profile import SHIPPED, ProfileError, load_profile, save_profile
from scheduler.planner.catalogue.json_fields import PlanInputError
from scheduler.planning.plan_file import PlanFileError, read_plan
from scheduler.planning.profiles import read_profiles

INSTRUMENTED = (
    "models.profile",
    "scheduler.planner.catalogue",
    "scheduler.planning.plan_file",
    "scheduler.planning.profiles",
)
MEASURED, FUNCTIONS, PLAN = range(3)


def check(data: bytes) -> None:
    """Reads a file of one of the kinds; a measured profile is written and read again."""
    if not data:
        return
    kind, path = data[0] % 3, scratch.written("profile.json", data[1:])
    try:
        if kind == PLAN:
            assert read_plan(path).groups
            return
        if kind == FUNCTIONS:
            assert read_profiles([str(path)]).families
            return
        profile = load_profile(path)
    except (ProfileError, PlanInputError, PlanFileError) as error:
        one_sentence(error)
        return
    save_profile(profile, path)
    assert load_profile(path) == profile
    assert profile.predict_s(profile.max_batch) >= 0


def seeds() -> Iterable[bytes]:
    """Yields shipped and made ones."""
    for path in sorted(SHIPPED.glob("*.json")):
        yield b"\0" + path.read_bytes()
        yield b"\1" + path.read_bytes()
    head = {"name": "n", "source": "s", "date": "2026-01-01"}
    table = {
        "kind": "cpu",
        "vcpu": [1.0, 2.0],
        "memory_gb": [1.0, 2.0],
        "latency": {"law": "table", "s": [[0.1], [0.2]]},
    }
    yield b"\1" + json.dumps({**head, "families": [table], "way": {"bytes_per_s": 1e6}}).encode()
    group = {"apps": ["a"], "kind": "cpu", "vcpu": 1, "memory_gb": 1, "gpu_gb": 0, "batch": 2, "timeouts_s": {"a": 0.1}}
    yield b"\2" + json.dumps({"groups": [group], "currency": "CNY", "infeasible": None}).encode()
    yield from (bytes([kind]) + b'{"a":' + b"[" * 1500 for kind in range(3))


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Changes values."""
    return data[:1] + of_json(data[1:], rng)


TARGET = Target(
    name="profiles",
    check=check,
    seeds=seeds,
    instrumented=INSTRUMENTED,
    words=(b"1e308", b"1e999", b"NaN", b"null", b'"rows"', b'"families"', b'"groups"', b"-1", b"[]", b"{}"),
    longest_bytes=3072,
    mutate=mutated,
)
