"""Requests of different sizes routed to buffers by size: the number of buffers, and where each ends (MBS).

A batch is padded to its largest request. With the distribution F of classes in a buffer, P(largest <= j | b) = F(j)^b,
so the expected bill is exact without enumeration. The latest requests are those of the buffer's largest class, whose
batch has the largest services for certain; the percentile is kept for them. Buffers are contiguous in size, and dynamic
programming finds the best ones.

Half of the requests are small and take 0.1 s, half are large and take 1 s, for batches of one and two. The larger of
two requests is small with probability 1/4, so a mixed batch of two costs 0.1 / 4 + 1 * 3 / 4 = 0.775, or 0.3875 a
request. At 1000 requests a second every batch is full; apart, a small request costs 0.1 / 2 and a large one 1 / 2, on
average 0.275, so they are routed apart:

>>> from scheduler.planner.catalogue.configurations import Family
>>> from scheduler.planner.catalogue.latency_models import TableLatency
>>> from scheduler.planner.catalogue.prices import PriceSheet
>>> one = np.ones(1)
>>> sheet = PriceSheet("s", "CNY", "", "", "", grain_s=1e-9, per_vcpu_s=1.0)
>>> def kinds(service_s: float) -> list[Configurations]:
...     latency, memory_gb = TableLatency(((service_s, service_s),)), np.ones((1, 2))
...     return [Family("cpu", latency, one, np.zeros(1), memory_gb, np.array([2.0])).tabulated(sheet)]
>>> found = best_size_buffers(
...     [kinds(0.1), kinds(1.0)], shares=[0.5, 0.5], slo_s=2.0, rate_rps=1000.0, percentile_wanted=0.9, never_late=True
... )
>>> [(buffer.start, buffer.end, round(buffer.choice.cost, 4)) for buffer in found]
[(0, 1, 0.05), (1, 2, 0.5)]
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scheduler.planner.catalogue.configurations import Configurations
from scheduler.planner.functions.cost_bounds import Space, space_of
from scheduler.planner.functions.grouping import best_grouping
from scheduler.planner.functions.shared_buffer_search import Choice, percentile, worst_case
from scheduler.planner.queueing.matrices import Array, Indices
from scheduler.planner.queueing.multi_slo_batching import SharedBuffer
from scheduler.planner.queueing.multi_slo_lateness import SharedWaits


@dataclass(frozen=True, slots=True)
class SizeClass:
    """Requests of up to `size_bytes`, and their share of all requests."""

    size_bytes: float
    share: float


@dataclass(frozen=True, slots=True)
class SizeBuffer:
    """A buffer for the size classes `start` to `end` - 1.

    Attributes:
        start: number of its first class.
        end: number after its last class.
        family: the kind of its function.
        choice: its function.
        mean_size: mean requests in a batch.
        latency_s: latency of its largest class at the percentile.
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
        by_class: configurations with the services of each class, by ascending size; the same ones for all classes.
        shares: share of each class; they sum to 1.
        slo_s: the SLO of all classes.
        rate_rps: Poisson requests a second of all classes together.
        percentile_wanted: fraction of the requests of every class that must meet the SLO.
        never_late: whether no request may ever be late.
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


def largest_of_batch(shares: Sequence[float] | Array, items: Indices) -> Array:
    """Returns the probability that the largest item of a batch is of each size, shape (sizes, batches).

    Args:
        shares: share of each size, ascending in size.
        items: sizes of batches, shape (batches,).

    >>> largest_of_batch([0.5, 0.5], np.array([1, 2])).tolist()
    [[0.5, 0.25], [0.5, 0.75]]
    """
    reached = np.cumsum(shares) / np.sum(shares)
    return np.asarray(np.diff(reached[:, None] ** items, axis=0, prepend=0.0))


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
        """Returns the pairs of a buffer: services of its largest class, bills of the largest request of each batch."""
        families = []
        for number, largest in enumerate(self.by_class[end - 1]):
            chances = largest_of_batch(self.shares[start:end], np.arange(1, largest.max_batch + 1))
            billed = np.stack([one[number].services.billed_s for one in self.by_class[start:end]])
            mixed_s = np.einsum("jb,jnb->nb", chances, billed)
            families.append(replace(largest, services=replace(largest.services, billed_s=mixed_s)))
        return space_of(families)

    def bounds(self) -> Array:
        """Returns lower bounds on the cost per second: every batch full, and billed as the smallest class."""
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
