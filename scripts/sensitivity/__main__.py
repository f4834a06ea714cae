"""Halves and doubles the tuning constants of the data plane and the estimators, one at a time, and simulates.

    python -m scripts.sensitivity                                  # all constants; about ten minutes on two free cores
    python -m scripts.sensitivity --only SAFETY GAIN --requests 3000

The constants are the numbers with an upper-case name at the top of a module in scheduler/, scheduler/dispatch/ and
scheduler/estimators/. The source is read, so that nothing has to be listed here. Each variant runs in a process of its
own that imports the module with the changed number. The change therefore reaches every use: names imported by other
modules, default arguments, and constants computed from it.

The simulations are those of scripts.command_hash and the suites load, noise and lte of scripts.evaluate --quick. Cost
is the mean over the simulations of the fraction of serving everything by function at the cheapest batch.

To read the table: cost and share in time belong to one seed, and any change of a decision leads to other ones after it.
Differences below 0.5 % of cost and 0.1 points are noise. So may be 2 % with the default of 800 requests, or where the
commands of few simulations differ: several signs are others with --requests 3000.

A value between 0.5 and 1 counts as a probability: instead of doubling it, its distance to 1 is halved.

"none" means that no command changed in these simulations. They have no fixed plan, no backend that hangs, no large
items and no run of several hours, so that a constant for such a case seems to have no effect. Detectors of changes need
longer runs than the default: check with --only and --requests 3000 before a constant is removed.
"""

import argparse
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial

from scripts.sensitivity.constants import Constant, Value, double, find_constants, half
from scripts.sensitivity.variants import REQUESTS, Measured, Variant, measure
from scripts.support.script import run_script

HEADER = """| constant | value | half | cost | within SLO | commands | double | cost | within SLO | commands | effect |
|---|---|---|---|---|---|---|---|---|---|---|"""


def row(constant: Constant, base: Measured, halved: Measured, doubled: Measured) -> str:
    """Returns a line of the Markdown table."""
    cells = [
        f"{constant.module.removeprefix('scheduler.')} `{constant.name}`",
        _shown(constant.value),
        *_cells(half(constant.value), constant.value, base, halved),
        *_cells(double(constant.value), constant.value, base, doubled),
        "" if changes(base, halved) or changes(base, doubled) else "**none**",
    ]
    return f"| {' | '.join(cells)} |"


def _cells(changed: Value, own: Value, base: Measured, measured: Measured) -> tuple[str, ...]:
    if changed == own:
        return _shown(changed), "", "", "same value"
    if measured.error:
        return _shown(changed), "", "", measured.error.replace("|", "/")
    count = changes(base, measured)
    differing = f"{count} of {len(base.hashes)}" if count else "same"
    return _shown(changed), f"{measured.cost:.4f}", f"{measured.within_slo:.4f}", differing


def changes(base: Measured, measured: Measured) -> int:
    """Returns in how many simulations the commands differ; all of them if the variant failed."""
    if measured.error:
        return len(base.hashes)
    return sum(a != b for a, b in zip(base.hashes, measured.hashes, strict=True))


def _shown(value: Value) -> str:
    return ", ".join(f"{part:.4g}" for part in (value if isinstance(value, tuple) else (value,)))


def report(constants: Sequence[Constant], *, requests: int, jobs: int) -> Iterator[str]:
    """Yields the lines of the Markdown table as they are measured, and at last what changes nothing.

    Args:
        constants: the constants to change, one at a time.
        requests: requests of each simulation.
        jobs: processes that measure at the same time.
    """
    # Half of 0 and half of the whole number 1 are the number itself: the code as it is, which is measured once.
    pairs = [(_variant(c, half(c.value)), _variant(c, double(c.value))) for c in constants]
    variants = list(dict.fromkeys([None, *(variant for pair in pairs for variant in pair)]))
    found: dict[Variant | None, Measured] = {}
    # Spawned, one task a child: a module can only be changed before it is imported.
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=1) as pool:
        results = zip(variants, pool.imap(partial(measure, requests=requests), variants), strict=True)

        def result_of(variant: Variant | None) -> Measured:
            while variant not in found:
                measured_variant, measured = next(results)
                found[measured_variant] = measured
            return found[variant]

        base = result_of(None)
        if base.error:
            raise RuntimeError(f"the code as it is fails: {base.error}")
        yield f"As it is: cost {base.cost:.4f}, within SLO {base.within_slo:.4f}, {len(base.hashes)} simulations.\n"
        yield HEADER
        without_effect = 0
        for constant, (halved, doubled) in zip(constants, pairs, strict=True):
            both = result_of(halved), result_of(doubled)
            without_effect += not any(changes(base, measured) for measured in both)
            yield row(constant, base, *both)
    yield f"\n{without_effect} of {len(constants)} constants change no command."


def _variant(constant: Constant, value: Value) -> Variant | None:
    return None if value == constant.value else Variant(constant, value)


def main(words: Sequence[str] | None = None) -> int:
    """Prints the report; returns 2 if no constant has one of the given names."""
    head, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m scripts.sensitivity",
        description=head,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of constants; default: all")
    parser.add_argument("--requests", type=int, default=REQUESTS, metavar="N", help="default: %(default)s")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    args = parser.parse_args(words)
    constants = [c for c in find_constants() if args.only is None or c.name in args.only]
    unknown = set(args.only or ()) - {constant.name for constant in constants}
    if unknown:
        print(f"there is no constant {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    for line in report(constants, requests=args.requests, jobs=args.jobs):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run_script("sensitivity", main))
