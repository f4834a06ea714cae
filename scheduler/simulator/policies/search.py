"""Search with hindsight: chooses parameters of a static policy by simulating them on the requests to come."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SLICE = 5000
"""Requests of a short trial. Only the best parameters are then simulated with all requests."""
_FINALISTS = 10
_PASSES = 2
_STEPS = 8


@dataclass(frozen=True, slots=True)
class TrialResult:
    """Result of a trial: the fraction within the SLO, and the cost."""

    within_slo: float
    cost: float


Parameters = TypeVar("Parameters", bound="DataclassInstance")
Contravariant = TypeVar("Contravariant", contravariant=True)


class Trial(Protocol[Contravariant]):
    """Function that simulates given parameters."""

    def __call__(self, parameters: Contravariant, *, whole: bool) -> TrialResult:
        """Returns the result with the whole workload, or with a slice of it."""


def rank(tried: TrialResult, target: float) -> tuple[bool, float, float]:
    """Returns a sort key, smaller for better results: those within the target by cost, then the others by lateness."""
    if tried.within_slo >= target:
        return False, tried.cost, -tried.within_slo
    return True, -tried.within_slo, tried.cost


def descend(
    start: Parameters, axes: Sequence[Sequence[Mapping[str, Any]]], trial: Trial[Parameters], *, target: float
) -> Parameters:
    """Searches along one axis after the other, twice, with a slice; then compares the best with the whole workload.

    Args:
        start: parameters at which the search begins.
        axes: for each axis, the changes of fields to try.
        trial: simulates given parameters.
        target: required fraction within the SLO.
    """
    seen: dict[Parameters, TrialResult] = {}

    def tried(parameters: Parameters) -> TrialResult:
        if parameters not in seen:
            seen[parameters] = trial(parameters, whole=False)
        return seen[parameters]

    best = start
    for _ in range(_PASSES):
        for axis in axes:
            candidates = [best, *(replace(best, **change) for change in axis)]
            best = min(candidates, key=lambda candidate: rank(tried(candidate), target))
    return choose(_finalists(list(seen.items()), target), trial, target=target)


def _finalists(found: Sequence[tuple[Parameters, TrialResult]], target: float) -> list[Parameters]:
    """Returns the best on the slice, and the best with a stricter target: a slice may be easier than the whole."""
    strict = 1 - (1 - target) / 3
    by_rank = sorted(found, key=lambda entry: rank(entry[1], target))[:_FINALISTS]
    by_strict = sorted(found, key=lambda entry: rank(entry[1], strict))[:_FINALISTS]
    return list(dict.fromkeys(parameters for parameters, _ in by_rank + by_strict))


def refine(
    best: Parameters,
    neighbours: Callable[[Parameters], Iterable[Parameters]],
    trial: Trial[Parameters],
    *,
    target: float,
) -> Parameters:
    """Moves to the best neighbour with the whole workload, until none is better or `_STEPS` steps are made."""
    tried = trial(best, whole=True)
    for _ in range(_STEPS):
        found = [(trial(candidate, whole=True), candidate) for candidate in neighbours(best)]
        better, candidate = min(found, key=lambda entry: rank(entry[0], target))
        if rank(better, target) >= rank(tried, target):
            break
        best, tried = candidate, better
    return best


def choose(candidates: Sequence[Parameters], trial: Trial[Parameters], *, target: float) -> Parameters:
    """Returns the best candidate with the whole workload."""
    return min(candidates, key=lambda candidate: rank(trial(candidate, whole=True), target))
