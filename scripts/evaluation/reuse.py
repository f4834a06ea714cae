"""Runs of an earlier evaluation that need not be made again: of policies that a change of the engine does not touch."""

from collections.abc import Callable, Sequence

from scheduler.simulator.scenario import ORACLES, SEPARATE
from scripts.evaluation.case import Case, Result, Row
from scripts.evaluation.options import OURS

Key = tuple[object, ...]
TOLERANCE = 0.1
"""A drawn pattern has about as many requests as were asked for."""


def kept(tasks: Sequence[Callable[[], Result]], rows: Sequence[Row]) -> dict[int, Row]:
    """Returns the earlier row of each task, by its index, for which there is one.

    Args:
        tasks: to be run.
        rows: of an earlier run.
    """
    earlier = {_key(row): row for row in rows if row["policy"] not in (OURS, *ORACLES, *SEPARATE)}
    found = {}
    for index, task in enumerate(tasks):
        case = next((arg for arg in getattr(task, "args", ()) if isinstance(arg, Case)), None)
        row = None if case is None else earlier.get(_key_of(case))
        if case is not None and row is not None and _as_long(row, case):
            found[index] = row
    return found


def _key(row: Row) -> Key:
    return tuple(row[column] for column in ("suite", "case", "policy", "variant", "seed"))


def _key_of(case: Case) -> Key:
    return case.suite, case.name, case.scenario.policy, case.variant, case.scenario.seed


def _as_long(row: Row, case: Case) -> bool:
    """Whether an earlier run had as many requests; the length of steps is part of the case."""
    requests = getattr(case.traffic, "requests", None)
    return requests is None or abs(float(str(row["requests"])) / requests - 1.0) <= TOLERANCE
