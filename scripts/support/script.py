"""Runs a script with the habits of `edgeburst`: its options, exit statuses and progress."""

from __future__ import annotations

import sys
from collections.abc import Callable

from scheduler.domain.errors import EdgeburstError
from scheduler.program_options import show_where, take_everywhere
from scheduler.terminal import progress


def run_script(name: str, main: Callable[[], int | None], *, shown: bool = True) -> int:
    """Runs a script's `main`, which reads the command line, with the habits of `edgeburst`.

    Args:
        name: of the script, in messages.
        main: returns the exit status, None for 0.
        shown: whether to show on a terminal how long it takes; not where `main` shows progress of its own.

    Returns:
        The exit status: that of `main`, 2 after an error (one sentence on stderr), 130 interrupted.
    """
    sys.argv[1:] = take_everywhere(sys.argv[1:])
    try:
        with progress(name, shown=shown):
            return main() or 0
    except EdgeburstError as error:
        show_where()
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
