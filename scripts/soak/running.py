"""Runs a world in a folder of its own."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from scripts.soak.report import Violation
from scripts.soak.script import Script
from scripts.soak.world import World


def broken_by(script: Script, profiles: Path, *, twins: bool | None = None) -> tuple[str, World]:
    """Runs a script; returns which promise was broken, in one sentence, empty: none, and the world.

    Args:
        script: of the world.
        profiles: folder with those of `sites.write_profiles`.
        twins: whether a second engine follows each that keeps nothing; None: in one world of eight.
    """
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="edgeburst-world-", dir=memory if memory.is_dir() else None))
    world = World(script, folder, profiles, twins=twins)
    try:
        world.run()
    except Violation as violation:
        return str(violation), world
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return "", world
