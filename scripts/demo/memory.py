"""Checks whether this machine has enough memory for the processes of the demo."""

from __future__ import annotations

import re
from pathlib import Path

# Measured on x86-64 with ONNX Runtime 1.32: a function process has 45 MB of private memory and 65 MB that all of them
# share. All other processes of the demo together have about 1.2 GB.
INSTANCE_BYTES = 50 * 10**6
OTHERS_BYTES = 1_200 * 10**6
_MEMINFO = Path("/proc/meminfo")


def memory_warning(provisioned: int, meminfo: str) -> str:
    """Returns a sentence if the memory will not suffice; empty if it will, or if it is unknown.

    Args:
        provisioned: number of provisioned instances.
        meminfo: content of /proc/meminfo.
    """
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo, re.MULTILINE)
    needed_bytes = OTHERS_BYTES + provisioned * INSTANCE_BYTES
    if found is None or int(found[1]) * 1024 >= needed_bytes:
        return ""
    return (
        f"{provisioned} function instances and the rest need about {needed_bytes / 1e9:.1f} GB of memory, and"
        f" {int(found[1]) * 1024 / 1e9:.1f} GB are free: choose a smaller --provisioned"
    )


def read_meminfo() -> str:
    """Returns the content of /proc/meminfo; empty if there is none."""
    return _MEMINFO.read_text(encoding="ascii") if _MEMINFO.exists() else ""
