"""Halves and doubles the tuning constants of the data plane and the estimators, one at a time, and simulates.

    python -m scripts.sensitivity                                  # all constants; about ten minutes on two free cores
    python -m scripts.sensitivity --only SAFETY GAIN --requests 3000

The constants are the numbers with an upper-case name at the top of a module in scheduler/, scheduler/dispatch/ and
scheduler/estimators/. The source is read, so that nothing has to be listed here. Each variant runs in a process of its
own that imports the module with the changed number. The change therefore reaches every use: names imported by other
modules, default arguments, and constants computed from it.

The simulations are those of scripts.command_hash and the suites load, noise and lte of scripts.evaluate --quick. Cost
is the mean over the simulations of the fraction of serving everything by function at the cheapest batch.

A value between 0.5 and 1 counts as a probability: instead of doubling it, its distance to 1 is halved.

"none" means that no command changed in these simulations. They have no fixed plan, no backend that hangs, no long run.
"""

import argparse
import ast
import hashlib
import math
import multiprocessing
import operator
import os
import re
import signal
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from itertools import zip_longest
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scheduler.simulator.scenario import Scenario
    from scheduler.workloads import Workload

# Nothing of the scheduler is imported at the top: a child imports it after its constant is changed.
ROOT = Path(__file__).parents[1]
SOURCES = ("scheduler/*.py", "scheduler/dispatch/*.py", "scheduler/estimators/*.py")
LEFT_OUT = frozenset({"scheduler/cli.py", "scheduler/fc_client.py", "scheduler/workloads.py"})
"""No decision is made in these modules."""
SUITES = ("load", "noise", "lte")
REQUESTS = 800
"""Requests of each simulation; with more, some constants show an effect that they do not show with these."""
LIMIT_S = 120
"""Seconds after which a variant counts as failed: some values make a loop endless."""
_NAME = re.compile(r"_?[A-Z][A-Z0-9_]*")
_OPERATORS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}

Value = float | tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Constant:
    """Tuning constant in the source.

    Attributes:
        module: name of the module, for instance `scheduler.dispatch.edge_side`.
        name: name of the constant.
        value: a number or a tuple of numbers.
        meaning: first line of the docstring below it; empty without one.
    """

    module: str
    name: str
    value: Value
    meaning: str


@dataclass(frozen=True, slots=True)
class Variant:
    """Value to simulate in place of a constant's own."""

    constant: Constant
    value: Value


@dataclass(frozen=True, slots=True)
class Measured:
    """Result of the simulations of one variant.

    Attributes:
        cost: mean over simulations of the cost, as a fraction of serving everything by function.
        within_slo: mean over simulations of the fraction of requests answered in time.
        hashes: hash of the commands of each simulation.
        error: why the variant failed; empty if it did not.
    """

    cost: float
    within_slo: float
    hashes: tuple[str, ...]
    error: str = ""


def find_constants(root: Path = ROOT, sources: Sequence[str] = SOURCES) -> list[Constant]:
    """Returns the constants of all modules that match one of the patterns, by module and line."""
    paths = sorted({path for pattern in sources for path in root.glob(pattern)} - {root / name for name in LEFT_OUT})
    return [constant for path in paths for constant in _constants_of(path, root)]


def _constants_of(path: Path, root: Path) -> Iterator[Constant]:
    module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    known: dict[str, float] = {}
    for node, following in zip_longest(body, body[1:]):
        name, value = _assigned(node, known)
        if value is None:
            continue
        if isinstance(value, (int, float)):
            known[name] = value
        match following:
            case ast.Expr(ast.Constant(str(text))):
                meaning = text.strip().partition("\n")[0]
            case _:
                meaning = ""
        yield Constant(module, name, value, meaning)


def _assigned(node: ast.stmt, known: Mapping[str, float]) -> tuple[str, Value | None]:
    """Returns the name and the value of a constant; None as its value for any other statement."""
    match node:
        case ast.Assign([ast.Name(name)], expression) | ast.AnnAssign(ast.Name(name), _, ast.expr() as expression):
            if _NAME.fullmatch(name):
                return name, _value(expression, known)
    return "", None


def _value(node: ast.expr, known: Mapping[str, float]) -> Value | None:
    if not isinstance(node, ast.Tuple):
        return _number(node, known)
    numbers = [_number(element, known) for element in node.elts]
    return tuple(number for number in numbers if number is not None) if numbers and None not in numbers else None


def _number(node: ast.expr, known: Mapping[str, float]) -> float | None:
    match node:
        case ast.Constant(bool()):
            return None
        case ast.Constant(int() | float() as number):
            return number
        case ast.Name(name):
            return known.get(name)
        case ast.UnaryOp(ast.USub(), operand):
            negated = _number(operand, known)
            return None if negated is None else -negated
        case ast.BinOp(left, symbol, right) if type(symbol) in _OPERATORS:
            first, second = _number(left, known), _number(right, known)
            return None if first is None or second is None else _OPERATORS[type(symbol)](first, second)
    return None


def half(value: Value) -> Value:
    """Returns half the value; a whole number stays whole, and at least 1 if it was.

    >>> half(0.3), half(5), half(1), half((2.0, 8))
    (0.15, 2, 1, (1.0, 4))
    """
    if isinstance(value, tuple):
        return tuple(_whole_if(part, part / 2) for part in value)
    return _whole_if(value, value / 2)


def double(value: Value) -> Value:
    """Returns twice the value; for a value between 0.5 and 1, halves its distance to 1.

    >>> double(0.3), double(5), double(0.9)
    (0.6, 10, 0.95)
    """
    if isinstance(value, tuple):
        return tuple(_twice(part) for part in value)
    return _twice(value)


def _twice(number: float) -> float:
    return _whole_if(number, 1 - (1 - number) / 2 if 0.5 < number < 1 else 2 * number)


def _whole_if(number: float, changed: float) -> float:
    if not isinstance(number, int):
        return changed
    return max(1, int(changed)) if number >= 1 else int(changed)


class _ChangedLoader(SourceFileLoader):
    """Loader of a module in which one constant has another value; it ignores cached bytecode."""

    def __init__(self, variant: Variant, path: str) -> None:
        super().__init__(variant.constant.module, path)
        self._variant = variant

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 (the only module that it loads)
        tree = ast.parse(self.get_data(self.path))
        for node in tree.body:
            match node:
                case ast.Assign([ast.Name(name)]) | ast.AnnAssign(ast.Name(name)) if (
                    name == self._variant.constant.name
                ):
                    node.value = ast.parse(repr(self._variant.value), mode="eval").body
        return compile(ast.fix_missing_locations(tree), self.path, "exec")


class _ChangedFinder(MetaPathFinder):
    """Finder of the module whose constant is changed; it leaves all other modules to the finders after it."""

    def __init__(self, variant: Variant) -> None:
        self._variant = variant

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,  # noqa: ARG002 (part of the interface)
    ) -> ModuleSpec | None:
        if fullname != self._variant.constant.module:
            return None
        found = PathFinder.find_spec(fullname, path)
        if found is None or found.origin is None:
            return None
        return spec_from_file_location(fullname, found.origin, loader=_ChangedLoader(self._variant, found.origin))


def measure(variant: Variant | None, requests: int = REQUESTS) -> Measured:
    """Returns the result of all simulations with a constant changed. Call it in a fresh process.

    Args:
        variant: the change; None for the code as it is.
        requests: requests of each simulation.

    Raises:
        RuntimeError: the module was imported before its constant could be changed.
    """
    if variant is not None:
        if variant.constant.module in sys.modules:
            raise RuntimeError(f"{variant.constant.module} is imported already; measure in a fresh process")
        sys.meta_path.insert(0, _ChangedFinder(variant))
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.alarm(LIMIT_S)
    try:
        return _simulate(requests)
    except Exception as error:  # noqa: BLE001 (a value that breaks the engine, in whatever way, is a result)
        return Measured(math.nan, math.nan, (), f"{type(error).__name__}: {error}".partition("\n")[0])
    finally:
        signal.alarm(0)


def _out_of_time(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"not finished after {LIMIT_S} s")


def _simulate(requests: int) -> Measured:
    from scheduler.simulator.report import summarise
    from scheduler.simulator.world import make_requests, make_simulation
    from scripts.command_hash import lines

    costs, within, hashes = [], [], []
    for scenario, workload in _simulations(requests):
        arrivals = make_requests(scenario, workload)
        journal = make_simulation(scenario, arrivals, keep_commands=True).run()
        figures = summarise(journal, scenario, wall_s=0.0)
        whole_cny, cost_cny, share = (figures[key] for key in ("all_function_cny", "cost_cny", "within_slo"))
        assert isinstance(whole_cny, float)
        assert isinstance(cost_cny, float)
        assert isinstance(share, float)
        if whole_cny > 0:
            costs.append(cost_cny / whole_cny)
        within.append(share)
        hashes.append(hashlib.sha256("\n".join(lines(journal.commands)).encode()).hexdigest()[:16])
    return Measured(statistics.fmean(costs), statistics.fmean(within), tuple(hashes))


def _simulations(requests: int) -> "Iterator[tuple[Scenario, Workload]]":
    from scheduler.simulator.world import generators
    from scripts import command_hash
    from scripts.evaluation import suites

    for name, scenario, rate_rps in command_hash.scenarios():
        yield scenario, command_hash.workload(name, scenario, rate_rps, requests=requests)
    options = replace(suites.QUICK, policies=(suites.OURS,), requests=requests, traces=None)
    for suite in SUITES:
        for case in suites.SUITES[suite](options):
            if case.scenario.policy == suites.OURS:
                yield case.scenario, case.traffic.workload(generators(case.scenario.seed)[0])


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
    sys.exit(main())
