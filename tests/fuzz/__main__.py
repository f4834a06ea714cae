"""Fuzzes targets one after the other, each in a process of its own: `make fuzz TARGET=wire N=100000`.

What is found goes to `tests/fuzz/corpus/TARGET`, where `make test` replays it; what reached new lines goes to
`out/fuzz/TARGET`, where the next run goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from fuzz.target import CORPUS, NAMES

ROOT = Path(__file__).parents[2]
GROWN = ROOT / "out" / "fuzz"
_EXECUTED = re.compile(r"^stat::number_of_executed_units:\s*(\d+)", re.MULTILINE)

IN_CI = {
    "wire": 30_000,
    "frame": 20_000,
    "grpc": 15_000,
    "images": 10_000,
    "config": 3_000,
    "traces": 8_000,
    "state": 2_000,
    "explain": 3_000,
    "cards": 4_000,
    "sheets": 3_000,
    "profiles": 4_000,
}
"""Inputs of each target in a run of CI, about by how cheap they are: 102,000 in all."""


def main() -> int:
    """Returns the exit status: 0, or 1 where something was found."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--target", nargs="+", choices=NAMES, default=list(NAMES), help="default: all")
    parser.add_argument("--inputs", type=int, default=0, help="of each target; default: as in CI")
    parser.add_argument("--seconds", type=float, default=0.0, help="longest time for each target; default: any")
    parser.add_argument("--seed", type=int, default=0, help="default: another one each time, which is printed")
    parser.add_argument("--own-loop", action="store_true", help="without atheris, also where it is installed")
    args = parser.parse_args()
    seed = args.seed or int.from_bytes(os.urandom(3), "little") + 1
    print(f"seed {seed}; the same again: --seed {seed}", flush=True)
    total, failed = 0, []
    for name in args.target:
        began_s = time.monotonic()
        executed, sound = _fuzz(name, args.inputs or IN_CI[name], args.seconds, seed, own_loop=args.own_loop)
        total += executed
        took_s = time.monotonic() - began_s
        print(f"{name:<10} {executed:>10} inputs in {took_s:6.1f} s: {'sound' if sound else 'FAILED'}", flush=True)
        failed += [] if sound else [name]
    print(f"{total} inputs in all; {'failed: ' + ', '.join(failed) if failed else 'nothing found'}")
    return 1 if failed else 0


def _fuzz(name: str, inputs: int, seconds: float, seed: int, *, own_loop: bool) -> tuple[int, bool]:
    """Returns how many inputs were tried, and whether all were sound."""
    work = GROWN / name
    work.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "fuzz.guided", name, "--runs", str(inputs), "--seed", str(seed)]
    command += ["--seconds", str(seconds), "--work", str(work), *(["--own-loop"] if own_loop else [])]
    log = work / "log"
    with log.open("wb") as out:
        status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, check=False)
    text = log.read_text(errors="replace")
    found = sorted(work.glob("found-*"))
    for path in found:
        kept = CORPUS / name / hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        kept.parent.mkdir(parents=True, exist_ok=True)
        path.replace(kept)
        print(f"{name}: {kept.relative_to(ROOT)} fails; rename it after what it shows")
    sound = status.returncode == 0 and not found
    if not sound:
        print(text[text.find("=== Uncaught") :][:4000] if "=== Uncaught" in text else text[-3000:])
    executed = _EXECUTED.search(text)
    return int(executed[1]) if executed else 0, sound


if __name__ == "__main__":
    sys.exit(main())
