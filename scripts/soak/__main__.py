"""Runs random worlds: `python -m scripts.soak`.

A world is drawn from its seed: a configuration, clients, faults of every kind, kills, stops, reloads and leaps of the
clock, around the daemon's own code on a virtual loop. The first broken promise ends it: its seed is printed with the
command that runs it again, the script is made shorter, and the last events are shown.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from secrets import randbelow

from scripts.soak import planted, script, shrinking, sites
from scripts.soak.running import broken_by
from scripts.support.script import run_script

AT_ONCE = 25
"""Worlds that a process runs before it reports."""
TRACE_LINES = 60


@dataclass
class Tally:
    """What a number of worlds came to."""

    worlds: int = 0
    cpu_s: float = 0.0
    calls: int = 0
    lives: int = 0
    engine_calls: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    violations: list[tuple[int, str]] = field(default_factory=list)
    """Seeds with the sentences."""

    def add(self, other: Tally) -> None:
        """Adds another one."""
        self.worlds += other.worlds
        self.cpu_s += other.cpu_s
        self.calls += other.calls
        self.lives += other.lives
        self.engine_calls += other.engine_calls
        self.violations += other.violations
        for status, number in other.statuses.items():
            self.statuses[status] = self.statuses.get(status, 0) + number

    def line(self, wall_s: float) -> str:
        """Returns it in one line."""
        statuses = ", ".join(f"{number} x {status}" for status, number in sorted(self.statuses.items()))
        return (
            f"{self.worlds} worlds, {len(self.violations)} violations, {self.lives} processes, {self.calls} requests"
            f" ({statuses}), {self.engine_calls} engine calls; {1000 * self.cpu_s / max(1, self.worlds):.0f} ms of CPU"
            f" for each world, {wall_s:.0f} s in all"
        )


def run_seeds(seeds: Sequence[int], folder: Path, fault: str = "") -> Tally:
    """Runs the worlds of these seeds.

    Args:
        seeds: of the worlds.
        folder: with the profiles.
        fault: a fault to plant, by its name; empty: none.
    """
    tally, begun_s = Tally(), time.process_time()
    gc.disable()
    with planted.planted(fault):
        for seed in seeds:
            sentence, ran = broken_by(script.draw(seed), folder)
            tally.worlds += 1
            if sentence:
                tally.violations.append((seed, sentence))
            report = ran.report
            tally.add(Tally(0, 0.0, report.calls, report.lives, report.engine_calls, report.statuses))
    gc.collect()
    tally.cpu_s = time.process_time() - begun_s
    return tally


def explain(seed: int, folder: Path, fault: str = "") -> None:
    """Prints the shortest script that breaks the same promise as that of a seed, and what happened last."""
    with planted.planted(fault):
        sentence, ran = broken_by(script.draw(seed), folder)
        if not sentence:
            print(f"world {seed} keeps its promises")
            return
        shorter = shrinking.shrunk(script.draw(seed), sentence, lambda made: broken_by(made, folder)[0])
        sentence, ran = broken_by(shorter, folder)
    print(f"world {seed}: {sentence}\n{shrinking.described(shorter)}")
    print(f"the last of {shorter.ends_s:.1f} s:\n{ran.trace(TRACE_LINES)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs worlds as the command line says; returns 1 where a promise was broken, or a planted fault was not found."""
    args = _parser().parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="edgeburst-profiles-"))
    sites.write_profiles(folder)
    if args.seed is not None and args.worlds is None and args.hours is None:
        explain(args.seed, folder, args.plant)
        return 0
    first = randbelow(2**40) if args.seed is None else args.seed
    if args.planted:
        return _find_planted(first, folder, worlds=args.worlds or 400)
    print(f"seeds {first} and on; this run again: python -m scripts.soak --seed {first} --worlds N", flush=True)
    tally, begun_s = Tally(), time.monotonic()
    for part in _parts(first, folder, args):
        for seed, sentence in part.violations:
            print(f"VIOLATION in world {seed}: {sentence}\n  python -m scripts.soak --seed {seed}", flush=True)
        tally.add(part)
    for seed, _ in tally.violations[:3]:
        explain(seed, folder, args.plant)
    print(tally.line(time.monotonic() - begun_s))
    return 1 if tally.violations else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.soak", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the first world; alone: this world only, made shorter and shown")
    parser.add_argument("--worlds", type=int, help="how many (default 2000)")
    parser.add_argument("--hours", type=float, help="as many as run in so many hours")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="processes (default 2)")
    parser.add_argument(
        "--plant", default="", choices=("", *planted.FAULTS), help="a fault that the worlds should find"
    )
    parser.add_argument("--planted", action="store_true", help="plant each fault in turn, until a world finds it")
    return parser


def _parts(first: int, folder: Path, args: argparse.Namespace) -> Iterator[Tally]:
    """Yields the tallies of a few worlds each."""
    ends_s = None if args.hours is None else time.monotonic() + 3600.0 * args.hours
    worlds = args.worlds if args.worlds is not None else 2000 if ends_s is None else sys.maxsize
    starts = iter(range(first, first + worlds, AT_ONCE))
    with ProcessPoolExecutor(args.workers) as pool:
        running = set()
        for _ in range(2 * args.workers):
            start = next(starts, None)
            if start is not None:
                running.add(
                    pool.submit(run_seeds, range(start, min(start + AT_ONCE, first + worlds)), folder, args.plant)
                )
        while running:
            done = next((future for future in running if future.done()), None)
            if done is None:
                time.sleep(0.02)
                continue
            running.remove(done)
            yield done.result()
            start = None if ends_s is not None and time.monotonic() > ends_s else next(starts, None)
            if start is not None:
                running.add(
                    pool.submit(run_seeds, range(start, min(start + AT_ONCE, first + worlds)), folder, args.plant)
                )


def _find_planted(first: int, folder: Path, *, worlds: int) -> int:
    """Plants each fault in turn; prints in which world it was found, and how."""
    missed = 0
    for name in planted.FAULTS:
        for seed in range(first, first + worlds):
            tally = run_seeds([seed], folder, name)
            if tally.violations and not run_seeds([seed], folder).violations:
                print(f"{name}: found in world {seed - first + 1}: {tally.violations[0][1][:120]}", flush=True)
                break
        else:
            missed += 1
            print(f"{name}: NOT found in {worlds} worlds", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(run_script("soak", main, shown=False))
