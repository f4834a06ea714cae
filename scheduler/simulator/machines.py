"""Several machines in the clairvoyant bound: one machine that is at least as good as all of them.

A batch of b items on machine k takes L_k(b). For weights w_k of at least 0 whose sum is 1, let the one machine have the
latency min_k L_k(b) and the pace min_k w_k L_k(b). A batch that a real machine k works on from s to s + L_k(b) takes at
least w_k of the one machine's time all that while, so that all of them together ask for no more than all of its time;
K equal machines have the pace L(b)/K. Whatever the weights, no schedule of the real machines was found below the bound
of the one (tests/oracles); it is loose near saturation, where the one machine is not held up by how batches end.
The best weights give the highest bound. With two machines they are between those that make both equally fast at one
size: with others the pace is that of one machine at every size, and more weight to it lifts the bound. So sizes are
tried, and the highest bound counts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scheduler.domain.latency import LatencyModel
from scheduler.simulator.bound import Problem, Seconds, clairvoyant_bound, rising_seconds

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
"""At which machines are made equally fast; those are left out that some machine lacks, or none serves in time."""
_ALIKE = 1e-3
"""Weights that differ by less than this part of their sum are not tried again."""


@dataclass(frozen=True, slots=True)
class Machines:
    """Machines of one latency model.

    Attributes:
        latency: of each.
        count: how many, at least 1.
    """

    latency: LatencyModel
    count: int = 1


def bound_of_machines(problem: Problem, machines: Sequence[Machines], *, max_items: int) -> float:
    """Returns the least cost in the currency of the prices, as `clairvoyant_bound` does for one machine.

    Args:
        problem: all but the edge.
        machines: on the edge; none: functions only.
        max_items: the largest number of requests in a batch.

    Raises:
        BoundError: no schedule serves every request within the SLO.
    """
    return max(clairvoyant_bound(one) for one in taken_for_one(problem, machines, max_items=max_items))


def taken_for_one(problem: Problem, machines: Sequence[Machines], *, max_items: int) -> Iterator[Problem]:
    """Yields a problem with one machine for each choice of weights."""
    if not machines:
        yield replace(problem, edge_s=np.empty(0), pace_s=None)
        return
    seconds = _seconds(machines, max_items)
    counts = np.array([machine.count for machine in machines], dtype=float)
    edge_s = seconds.min(axis=0)
    for weights in _weights(seconds, counts, problem.slo_s):
        yield replace(problem, edge_s=edge_s, pace_s=(weights[:, None] * seconds / counts[:, None]).min(axis=0))


def _seconds(machines: Sequence[Machines], max_items: int) -> Seconds:
    """Returns the seconds of batches of 1, 2, ... items, shape (machines, items); infinite where one takes none."""
    each = [rising_seconds(machine.latency, max_items) for machine in machines]
    table = np.full((len(each), max(map(len, each))), np.inf)
    for row, seconds in zip(table, each, strict=True):
        row[: len(seconds)] = seconds
    return table


def _weights(seconds: Seconds, counts: Seconds, slo_s: float) -> list[Seconds]:
    """Returns weights with which all machines are equally fast at a size, without those that are alike."""
    found: list[Seconds] = []
    for items in SIZES:
        if items > seconds.shape[1] or not np.isfinite(seconds[:, items - 1]).all():
            break
        if found and seconds[:, items - 1].min() > slo_s:
            break
        rates = counts / seconds[:, items - 1]
        weights = rates / rates.sum()
        if all(np.abs(weights - other).max() > _ALIKE for other in found):
            found.append(weights)
    return found
