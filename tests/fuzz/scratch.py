"""A folder in memory, where there is one, for targets that read files; it goes with the process."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

_MEMORY = Path("/dev/shm")


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="edgeburst-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None)


def folder(name: str) -> Path:
    """Returns a folder of that name."""
    path = Path(_folder().name) / name
    path.mkdir(exist_ok=True)
    return path


def written(name: str, data: bytes) -> Path:
    """Returns a file of that name with these bytes, and nothing else."""
    path = Path(_folder().name) / name
    path.write_bytes(data)
    return path
