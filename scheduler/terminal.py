"""What a person sees of a command beside its result: progress and notes on stderr; with --quiet nothing of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_quiet = [False]


def be_quiet(quiet: bool) -> None:
    """Says whether commands write no progress and no notes from now on."""
    _quiet[0] = quiet


def progress_console() -> Console:
    """Returns a console on stderr for progress, which writes nothing with --quiet."""
    # Imported here: a command without progress needs no rich.
    from rich.console import Console

    return Console(stderr=True, highlight=False, quiet=_quiet[0])


def note(sentence: str) -> None:
    """Writes a note to stderr, unless there is to be none."""
    if not _quiet[0]:
        print(f"edgeburst: {sentence}", file=sys.stderr)
