"""`edgeburst model`: the command `edgeburst-model` as a process of its own, with whatever frameworks are here."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence


def parser() -> argparse.ArgumentParser:
    """Returns the parser of that command, for the shell's completion."""
    # Imported here: the command itself is another process.
    from models.authoring.arguments import parser

    return parser()


def run_with(arguments: Sequence[str]) -> int:
    """Runs `python -m models` with these arguments; returns its exit status. It names itself what this host lacks."""
    return subprocess.run([sys.executable, "-m", "models", *arguments], check=False).returncode
