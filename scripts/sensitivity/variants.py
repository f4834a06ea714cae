"""Variants: measures the code with one constant changed, in a process that has not imported the constant's module."""

import ast
import hashlib
import math
import signal
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from types import CodeType, FrameType, ModuleType
from typing import TYPE_CHECKING

from scripts.sensitivity.constants import Constant, Value

if TYPE_CHECKING:
    from scheduler.simulator.scenario import Scenario
    from scheduler.workloads import Workload

# Nothing of the scheduler is imported at the top: a child imports it after its constant is changed.

SUITES = ("load", "noise", "lte")
REQUESTS = 800
"""Requests of each simulation; with more, some constants show an effect that they do not show with these."""
LIMIT_S = 120
"""Seconds after which a variant counts as failed: some values make a loop endless."""


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
    from scripts.evaluation.options import OURS, QUICK
    from scripts.evaluation.suites import SUITES as CASES

    for name, scenario, rate_rps in command_hash.scenarios():
        yield scenario, command_hash.workload(name, scenario, rate_rps, requests=requests)
    options = replace(QUICK, policies=(OURS,), requests=requests, traces=None)
    for suite in SUITES:
        for case in CASES[suite](options):
            if case.scenario.policy == OURS:
                yield case.scenario, case.traffic.workload(generators(case.scenario.seed)[0])
