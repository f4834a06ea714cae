"""Requests of different sizes routed to buffers by size: how many buffers, and where one ends (MBS).

A batch is padded to its largest request. With class distribution F in a buffer, P(largest <= j | b) = F(j)^b, and so
the bill is exact without enumeration. Who is latest is a request of the buffer's largest class, whose batch has the
largest services for certain: its percentile is the one to keep. Buffers are contiguous in size; dynamic programming.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scheduler.planner.catalogue.configurations import Configurations
from scheduler.planner.functions.grouping import best_grouping
from scheduler.planner.functions.shared_buffer_search import Choice, Space, percentile, space_of, worst_case
from scheduler.planner.queueing.matrices import Array
from scheduler.planner.queueing.multi_slo_batching import SharedBuffer
from scheduler.planner.queueing.multi_slo_lateness import SharedWaits


@dataclass(frozen=True, slots=True)
class SizeClass:
    """Requests of up to so many bytes, and their share of all."""

    size_bytes: float
    share: float


@dataclass(frozen=True, slots=True)
class SizeBuffer:
    """A buffer for the size classes `start` to `end` - 1.

    Attributes:
        start: its first class.
        end: behind its last class.
        family: the configurations that its choice is one of.
        choice: its function.
        mean_size: requests in a batch.
        latency_s: of its largest class at the percentile.
        rate_rps: requests a second.
    """

    start: int
    end: int
    family: Configurations
    choice: Choice
    mean_size: float
    latency_s: float
    rate_rps: float


def best_size_buffers(
    by_class: Sequence[Sequence[Configurations]],
    *,
    shares: Sequence[float],
    slo_s: float,
    rate_rps: float,
    percentile_wanted: float,
    never_late: bool,
) -> list[SizeBuffer]:
    """Returns the cheapest routing of size classes to buffers; empty if some class cannot be in time.

    Args:
        by_class: the configurations with the services of each class, by rising size; the same ones for all classes.
        shares: of each class, they sum to 1.
        slo_s: the SLO of all.
        rate_rps: of all classes together, Poisson.
        percentile_wanted: which shall be within the SLO in every class.
        never_late: nobody may ever be late.
    """
    search = _SizeSearch(tuple(tuple(one) for one in by_class), np.array(shares), slo_s, rate_rps)
    bounds = search.bounds()
    wanted = np.array([percentile_wanted])
    spaces: dict[tuple[int, int], Space] = {}

    def buffers(start: int, end: int) -> SharedBuffer:
        spaces[(start, end)] = search.space(start, end)
        return search.buffer(start, end)

    def find(buffer: SharedBuffer, which: slice, below: float) -> Choice | None:
        space = spaces[(which.start, which.stop)]
        if never_late:
            return worst_case(space, buffer, below=below)
        return percentile(space, buffer, wanted, below=below)

    grouping = best_grouping(bounds, buffers=buffers, search=find)
    return [
        search.described(group.start, group.end, group.choice, spaces[(group.start, group.end)], wanted)
        for group in grouping.groups
    ]


@dataclass(frozen=True, slots=True, eq=False)
class _SizeSearch:
    by_class: tuple[tuple[Configurations, ...], ...]
    shares: Array
    slo_s: float
    rate_rps: float

    def buffer(self, start: int, end: int) -> SharedBuffer:
        rate = self.rate_rps * float(self.shares[start:end].sum())
        return SharedBuffer(np.array([self.slo_s]), np.array([rate]))

    def space(self, start: int, end: int) -> Space:
        """The pairs of a buffer: services of its largest class, bills of the largest of each batch."""
        reached = np.cumsum(self.shares[start:end]) / self.shares[start:end].sum()
        families = []
        for number, largest in enumerate(self.by_class[end - 1]):
            batches = np.arange(1, largest.max_batch + 1)
            chances = np.diff(reached[:, None] ** batches, axis=0, prepend=0.0)
            billed = np.stack([one[number].services.billed_s for one in self.by_class[start:end]])
            mixed_s = np.einsum("jb,jnb->nb", chances, billed)
            families.append(replace(largest, services=replace(largest.services, billed_s=mixed_s)))
        return space_of(families)

    def bounds(self) -> Array:
        """Lower bounds on the cost per second: every batch full, billed as the smallest class of the buffer."""
        cheapest = [float(space_of(one).least.min()) for one in self.by_class]
        rates = np.cumsum(self.shares) * self.rate_rps
        count = len(cheapest)
        bounds = np.full((count, count), np.inf)
        for i in range(count):
            bounds[i, i:] = cheapest[i] * (rates[i:] - (rates[i - 1] if i else 0.0))
        return bounds

    def described(self, start: int, end: int, choice: Choice, space: Space, wanted: Array) -> SizeBuffer:
        buffer, family = self.buffer(start, end), space.families[choice.family]
        distribution = buffer.size_distribution(np.array([choice.latency_reserve_s]), max_batch=choice.cap)
        atoms_s = family.services.atoms_s[choice.index, : choice.cap]
        weights = family.services.weights[choice.index, : choice.cap]
        latency_s = float(SharedWaits.of(buffer, distribution, 0).quantiles_s(wanted, atoms_s, weights)[0])
        mean_size = float(distribution.mean_sizes()[0, -1])
        return SizeBuffer(start, end, family, choice, mean_size, latency_s, buffer.rate_rps)
