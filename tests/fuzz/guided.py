"""One process that fuzzes one target, guided by coverage: atheris, or our own loop where it is not installed.

It is started by `python -m fuzz`, which gives it a folder; what is found lies there afterwards.
"""

from __future__ import annotations

import argparse
import ast
import random
import resource
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from fuzz.limits import within_limits
from fuzz.target import CORPUS, Target, load

ADDRESS_SPACE_BYTES = 6 << 30
"""What asks for more gets MemoryError, which no target expects."""
WALL_S = 60
"""An input that waits for so long, whatever for, hangs; time on the processor is limited in `limits`."""
RESIDENT_MB = 2048


def main() -> int:
    """Fuzzes; does not return where atheris is used."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--work", type=Path, required=True, help="grown corpus, and what was found")
    parser.add_argument("--own-loop", action="store_true")
    args = parser.parse_args()
    atheris = None if args.own_loop else _atheris()
    with _instrumented(atheris, args.target):
        target = load(args.target)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    grown = args.work / "grown"
    grown.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (grown / f"seed-{number:03}").write_bytes(seed)
    if atheris is None:
        from fuzz.own_loop import search

        return search(target, runs=args.runs, seconds=args.seconds, seed=args.seed, work=args.work)
    words = args.work / "words.dict"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words), encoding="ascii")
    kept = CORPUS / args.target
    folders = [str(grown), *([str(kept)] if kept.is_dir() else [])]
    atheris.Setup(
        [
            "fuzz",
            f"-runs={args.runs}",
            f"-max_total_time={int(args.seconds)}",
            f"-seed={args.seed}",
            f"-max_len={target.longest_bytes}",
            f"-timeout={WALL_S}",
            f"-report_slow_units={WALL_S}",
            f"-rss_limit_mb={RESIDENT_MB}",
            f"-artifact_prefix={args.work}/found-",
            f"-dict={words}",
            "-print_final_stats=1",
            # Decoders of pictures complain on stderr about each that is damaged.
            *(["-close_fd_mask=2"] if args.target == "images" else []),
            *folders,
        ],
        lambda data: within_limits(target.check, data),
        **_custom_mutator(atheris, target),
    )
    atheris.Fuzz()
    return 0


def _atheris() -> Any:
    try:
        import atheris
    except ImportError:
        return None
    return atheris


def _instrumented(atheris: Any, name: str) -> AbstractContextManager[object]:
    """Returns a context in which imports of a target's modules are instrumented."""
    return nullcontext() if atheris is None else atheris.instrument_imports(include=_instrumented_modules(name))


def _custom_mutator(atheris: Any, target: Target) -> dict[str, Any]:
    """Returns the argument by which every second input is made by the target's own mutation."""
    mutate = target.mutate
    if mutate is None:
        return {}

    def mutated(data: bytes, longest: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            made = mutate(data, rng)
            if len(made) <= longest:
                return made
        changed: bytes = atheris.Mutate(data, longest)
        return changed

    return {"custom_mutator": mutated}


def _instrumented_modules(name: str) -> list[str]:
    # The target's module says it, but must not be imported before: what it imports would stay as it is.
    tree = ast.parse((Path(__file__).parent / "targets" / f"{name}.py").read_text(encoding="utf-8"))
    return next(
        list(ast.literal_eval(node.value))
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "INSTRUMENTED"
    )


def _escaped(word: bytes) -> str:
    return "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\x{b:02x}" for b in word)


if __name__ == "__main__":
    sys.exit(main())
