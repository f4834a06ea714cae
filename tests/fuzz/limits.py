"""Time and memory of one input: what takes over a second or hundreds of megabytes is a fault like a crash."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

CPU_S = 1.0
"""Longest for one input. Processor time, because machines that run tests are shared."""
MEMORY_BYTES = 512 << 20
"""Most that one input may add to the process's peak."""


class TooSlow(AssertionError):
    """Error: an input took too long."""


class TooLarge(AssertionError):
    """Error: an input took too much memory."""


def within_limits(check: Callable[[bytes], None], data: bytes) -> None:
    """Checks an input.

    Raises:
        TooSlow, TooLarge: it took over the limits; and whatever the check raises.
    """
    began_s, peak = time.process_time(), _peak_bytes()
    check(data)
    took_s, grown = time.process_time() - began_s, _peak_bytes() - peak
    if took_s > CPU_S:
        raise TooSlow(f"{len(data)} bytes took {took_s:.2f} s of processor time")
    if grown > MEMORY_BYTES:
        raise TooLarge(f"{len(data)} bytes took {grown >> 20} MB of memory")


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
