"""Hindsight: parameters of a static policy, chosen by simulating them on the requests that will come."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SLICE = 5000
"""Requests of the short trials; only what does well there is tried on all."""
_FINALISTS = 10
_PASSES = 2
_STEPS = 8


@dataclass(frozen=True, slots=True)
class Trying:
    """What a trial came to: fraction within the SLO, and money."""

    within_slo: float
    cost: float


Parameters = TypeVar("Parameters", bound="DataclassInstance")
Contravariant = TypeVar("Contravariant", contravariant=True)


class Trial(Protocol[Contravariant]):
    """Simulates some parameters."""

    def __call__(self, parameters: Contravariant, *, whole: bool) -> Trying:
        """Returns what they come to, on the whole workload or on a slice of it."""


def rank(tried: Trying, target: float) -> tuple[bool, float, float]:
    """Returns a key by which the better trial is less: within the target first, then money; else lateness first."""
    if tried.within_slo >= target:
        return False, tried.cost, -tried.within_slo
    return True, -tried.within_slo, tried.cost


def descend(
    start: Parameters, axes: Sequence[Sequence[Mapping[str, Any]]], trial: Trial[Parameters], *, target: float
) -> Parameters:
    """Searches along one axis after the other, twice, on a slice; then tries the best on the whole workload.

    Args:
        start: where it begins.
        axes: per axis, the changes of fields that are tried.
        trial: simulates some parameters.
        target: fraction within the SLO that must hold.
    """
    seen: dict[Parameters, Trying] = {}

    def tried(parameters: Parameters) -> Trying:
        if parameters not in seen:
            seen[parameters] = trial(parameters, whole=False)
        return seen[parameters]

    best = start
    for _ in range(_PASSES):
        for axis in axes:
            candidates = [best, *(replace(best, **change) for change in axis)]
            best = min(candidates, key=lambda candidate: rank(tried(candidate), target))
    return choose(_finalists(list(seen.items()), target), trial, target=target)


def _finalists(found: Sequence[tuple[Parameters, Trying]], target: float) -> list[Parameters]:
    """The best of the slice, and the best of those with room to spare: a slice may flatter."""
    spare = 1 - (1 - target) / 3
    by_rank = sorted(found, key=lambda entry: rank(entry[1], target))[:_FINALISTS]
    by_spare = sorted(found, key=lambda entry: rank(entry[1], spare))[:_FINALISTS]
    return list(dict.fromkeys(parameters for parameters, _ in by_rank + by_spare))


def refine(
    best: Parameters,
    neighbours: Callable[[Parameters], Iterable[Parameters]],
    trial: Trial[Parameters],
    *,
    target: float,
) -> Parameters:
    """Climbs from neighbour to neighbour on the whole workload, until none is better or for so many steps."""
    tried = trial(best, whole=True)
    for _ in range(_STEPS):
        found = [(trial(candidate, whole=True), candidate) for candidate in neighbours(best)]
        better, candidate = min(found, key=lambda entry: rank(entry[0], target))
        if rank(better, target) >= rank(tried, target):
            break
        best, tried = candidate, better
    return best


def choose(candidates: Sequence[Parameters], trial: Trial[Parameters], *, target: float) -> Parameters:
    """Returns the best of some on the whole workload."""
    return min(candidates, key=lambda candidate: rank(trial(candidate, whole=True), target))
