"""Search guided by coverage where atheris is not installed: an input that reaches a new line is kept and varied.

From Python 3.12 on the interpreter reports each line once (`sys.monitoring`), which costs next to nothing; before that,
`sys.settrace` reports all of them, which makes it several times slower.
"""

from __future__ import annotations

import hashlib
import math
import random
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from fuzz.limits import within_limits
from fuzz.target import Target, in_corpus

Place = tuple[CodeType, int]


def search(target: Target, *, runs: int, seconds: float, seed: int, work: Path) -> int:
    """Tries inputs until there are enough, or an error is found, which is written to the folder.

    Args:
        target: what is fuzzed.
        runs: how many inputs.
        seconds: longest time; 0: any.
        seed: of what is drawn.
        work: where grown inputs are read and kept, and what was found is written.

    Returns:
        The exit status: 0, or 1 where an input fails.
    """
    grown = work / "grown"
    pool = [path.read_bytes() for path in (*sorted(grown.iterdir()), *in_corpus(target.name))] or [b""]
    rng, seen, began_s = random.Random(seed), Lines(target.instrumented), time.monotonic()
    try:
        done = _tried(target, pool, seen, rng, runs=runs, end_s=began_s + seconds if seconds else math.inf, work=work)
    finally:
        seen.close()
    print(f"stat::number_of_executed_units: {done}")
    return int(any(work.glob("found-*")))


def _tried(
    target: Target, pool: list[bytes], seen: Lines, rng: random.Random, *, runs: int, end_s: float, work: Path
) -> int:
    """Returns how many inputs were tried, the last one found or not."""
    begin, done = len(pool), 0
    while done < runs and time.monotonic() < end_s:
        done += 1
        data = pool[done - 1] if done <= begin else varied(rng.choice(pool), pool, target, rng)
        seen.new = False
        try:
            seen.watch(partial(within_limits, target.check, data))
        except Exception:  # noqa: BLE001 - whatever it is was found
            traceback.print_exc(file=sys.stdout)
            (work / f"found-own-{done}").write_bytes(data)
            break
        if seen.new and done > begin:
            pool.append(data)
            (work / "grown" / f"own-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)
    return done


def varied(data: bytes, pool: list[bytes], target: Target, rng: random.Random) -> bytes:
    """Returns an input made of another one."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        if target.mutate is not None and rng.random() < 0.5:
            data = target.mutate(data, rng)
        else:
            data = _bytes_varied(data, pool, target, rng)
    return data[: target.longest_bytes]


def _bytes_varied(data: bytes, pool: list[bytes], target: Target, rng: random.Random) -> bytes:
    out, at = bytearray(data), rng.randrange(len(data) + 1)
    kind = rng.randrange(5)
    if kind == 0 and out:
        out[min(at, len(out) - 1)] = rng.randrange(256)
    elif kind == 1:
        del out[at : at + rng.randrange(1, 9)]
    elif kind == 2 and target.words:
        out[at:at] = rng.choice(target.words)
    elif kind == 3:
        other = rng.choice(pool)
        out[at:] = other[rng.randrange(len(other) + 1) :]
    elif out:
        out[min(at, len(out) - 1)] ^= 1 << rng.randrange(8)
    return bytes(out)


class Lines:
    """Which lines of some modules have run; `new` is set by each that had not."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        """Stores the modules, with all below them, and begins to watch where the interpreter can."""
        self.new = False
        self._folders = tuple(f"/{module.replace('.', '/')}" for module in modules)
        self._seen: set[Place] = set()
        monitoring: Any = getattr(sys, "monitoring", None)
        self._monitoring = monitoring
        if monitoring is not None:
            tool = monitoring.COVERAGE_ID
            monitoring.use_tool_id(tool, "edgeburst-fuzz")
            monitoring.register_callback(tool, monitoring.events.LINE, self._reached)
            monitoring.set_events(tool, monitoring.events.LINE)

    def watch(self, call: Callable[[], None]) -> None:
        """Calls, and notes the lines."""
        if self._monitoring is not None:
            call()
            return
        before = sys.gettrace()
        sys.settrace(self._entered)
        try:
            call()
        finally:
            sys.settrace(before)

    def close(self) -> None:
        """Watches no longer."""
        if self._monitoring is not None:
            self._monitoring.set_events(self._monitoring.COVERAGE_ID, 0)
            self._monitoring.free_tool_id(self._monitoring.COVERAGE_ID)

    def _ours(self, code: CodeType) -> bool:
        return any(folder in code.co_filename for folder in self._folders)

    def _reached(self, code: CodeType, _line: int) -> object:
        self.new = self.new or self._ours(code)
        return self._monitoring.DISABLE

    def _entered(self, frame: FrameType, _event: str, _argument: object) -> Any:
        return self._line if self._ours(frame.f_code) else None

    def _line(self, frame: FrameType, event: str, _argument: object) -> Any:
        place = (frame.f_code, frame.f_lineno)
        if event == "line" and place not in self._seen:
            self._seen.add(place)
            self.new = True
        return self._line
