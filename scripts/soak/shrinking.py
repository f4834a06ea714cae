"""Makes the script of a world that broke a promise shorter: whatever can be left out, while the same promise breaks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from scripts.soak.script import Script

MOST_RUNS = 150
"""Worlds that are tried."""

Broken = Callable[[Script], str]
"""Returns which promise a world breaks, in one sentence; empty: none."""


def kind_of(sentence: str) -> str:
    """Returns a sentence without its numbers, so that those of one kind are alike.

    >>> kind_of("request 7 ends a second time") == kind_of("request 12 ends a second time")
    True
    """
    return re.sub(r"[^A-Za-z ]+", "#", sentence)[:60]


def shrunk(script: Script, sentence: str, broken: Broken) -> Script:
    """Returns a shorter script that breaks a promise of the same kind."""
    runs, kind = 0, kind_of(sentence)

    def still(candidate: Script) -> bool:
        nonlocal runs
        runs += 1
        return runs <= MOST_RUNS and kind_of(broken(candidate)) == kind

    for part in ("faults", "events"):
        size = max(1, len(getattr(script, part)) // 2)
        while size and runs <= MOST_RUNS:
            at = 0
            while at < len(getattr(script, part)):
                leave_out: Sequence[int] = range(at, at + size)
                shorter = script.without(**{part: leave_out})
                if still(shorter):
                    script = shorter
                else:
                    at += size
            size //= 2
    return script


def described(script: Script) -> str:
    """Returns what is left of a script, one line for each thing."""
    lines = [f"  {script.site}"]
    lines += [f"  {f.from_s:7.3f} to {f.to_s:7.3f} s  {f.where} {f.what} ({f.share:g})" for f in script.faults]
    for event in script.events:
        what = event.what if event.call is None else f"{event.call}"
        lines.append(f"  {event.at_s:7.3f} s  {what} {event.number or ''}")
    return "\n".join(lines)
