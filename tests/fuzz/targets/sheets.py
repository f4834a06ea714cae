"""Price sheets, as a user's own file."""

from __future__ import annotations

import math
from collections.abc import Iterable

from fuzz import scratch
from fuzz.mutators import of_json
from fuzz.target import Target, one_sentence

from scheduler.planner.catalogue.prices import SHIPPED, PriceSheetError, load_sheet

INSTRUMENTED = ("scheduler.planner.catalogue.prices", "scheduler.domain.latency")
_HARDWARE = (
    {"memory_gb": 1.0},
    {"memory_gb": 2.0, "vcpu": 1.0},
    {"memory_gb": 8.0, "vcpu": 4.0, "gpu_gb": 8.0, "gpu_type": "fc.gpu.tesla.1"},
)


def check(data: bytes) -> None:
    """Reads a sheet, and prices calls and idle instances with it."""
    try:
        sheet = load_sheet(scratch.written("sheet.json", data))
    except PriceSheetError as error:
        one_sentence(error)
        return
    assert sheet.max_body_bytes(beside=16_384) >= 1
    for hardware in _HARDWARE:
        try:
            costs = sheet.tier_price(**hardware).cost(0.25), sheet.idle_per_s(**hardware)
        except PriceSheetError as error:
            one_sentence(error)
            continue
        assert all(math.isfinite(cost) and cost >= 0 for cost in costs), f"{costs}"


def seeds() -> Iterable[bytes]:
    """Yields the shipped sheets."""
    for path in sorted(SHIPPED.glob("*.json")):
        yield path.read_bytes()
    yield b'{"name":' + b"[" * 1500


TARGET = Target(
    name="sheets",
    check=check,
    seeds=seeds,
    instrumented=INSTRUMENTED,
    words=(b"1e308", b"1e999", b"NaN", b"null", b'"gb-s"', b'"cu"', b'"resources"', b"-1", b'"base64"', b"[]", b"{}"),
    longest_bytes=2048,
    mutate=of_json,
)
