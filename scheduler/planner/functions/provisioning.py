"""How many instances of a function pay if they are kept warm: their idle price against starts and late batches.

A function instance takes one batch at a time. Batches arrive in phases that change slowly: a Markov chain, in which
phase j sends nu_j batches a second, each in service for s seconds, so that a_j = nu_j s are in service on average
(M/G/infinity). The warm instances, w of them, are a loss system: a batch that finds all of them busy starts an instance
of its own, with Erlang's probability B(w, a_j), which depends on the service times by their mean alone. Two things
move w:

- a start at rate e = nu_j B(w, a_j). A start takes L seconds and its own batch s more, in which the instance helps no
  other, so a start is one of 1 + K, with K Poisson of mean e (L + s): the batches that find none free in that time;
- the platform removes an instance that it has not used for tau seconds. Instances are taken in a fixed order (the last
  used first), so the k-th gets what the k - 1 before it lose: u = nu_j B(k - 1, a_j) batches a second. A Poisson stream
  has its first gap above tau after (exp(u tau) - 1) / u on average; one over that is the rate of the removal.

Provisioned instances come first in that order and are never removed. The chain of phase and w has few states, so its
stationary distribution is computed exactly. tests/oracles/test_provisioning.py compares it with a simulation of
instances and with closed forms.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scheduler.planner.queueing.map_process import MarkovianArrivals
from scheduler.planner.queueing.matrices import Array, Indices

Transform = npt.NDArray[np.complex128]

_MAX_LEVELS = 64
"""Sizes of the warm pool that are distinguished; of a larger pool, several sizes count as one. Judgement: the pool then
has over 60 instances, and a step of two is 3 % of it."""
_TAIL_SIGMAS = 8.0
"""Standard deviations above the mean at which a batch never finds all instances busy: Erlang's probability is below
1e-12 there."""
_NEVER = 1e-8
"""Least probability of a gap that is told from none, which is the precision of the inversion."""
_NO_STARTS_PER_S = 1e-9
"""Starts a second that count as none: one in 32 years."""
_SHORTEST_S = 1e-9
"""Shortest service time and mean gap, seconds, so that a load of 0 needs no case of its own."""
_DAMPING, _SERIES, _SUMMED = 18.4, 15, 11
"""Parameters of the inversion of transforms, as its authors recommend them: the error is exp(-18.4) = 1e-8."""


@dataclass(frozen=True, slots=True, eq=False)
class BatchTraffic:
    """Arrivals of a tier's batches, by phase.

    Attributes:
        changes: rates from phase to phase, 1/s, shape (m, m); diagonals are not read.
        batches_per_s: rate of batches in each phase, shape (m,).
        service_s: mean seconds that a batch occupies a warm instance in each phase, shape (m,).
    """

    changes: Array
    batches_per_s: Array
    service_s: Array

    @property
    def loads(self) -> Array:
        """Mean number of batches in service in each phase."""
        return self.batches_per_s * self.service_s

    @property
    def parts(self) -> Array:
        """Fraction of the time in each phase."""
        return _stationary(self.changes)

    @property
    def mean_batches_per_s(self) -> float:
        """Batches a second over all phases."""
        return float(self.parts @ self.batches_per_s)


@dataclass(frozen=True, slots=True)
class InstancePrices:
    """What instances of a tier cost and how long they take, in one currency.

    Attributes:
        idle_per_s: a second of a provisioned instance without a batch.
        per_start: what the provider bills for one start.
        start_s: seconds of a start.
        kept_s: idle seconds after which the platform removes an instance that is not provisioned.
        max_instances: largest number of batches of the tier at one time.
    """

    idle_per_s: float
    per_start: float
    start_s: float
    kept_s: float
    max_instances: int


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What one number of provisioned instances leads to, on average over all phases.

    Attributes:
        count: provisioned instances.
        idle_per_s: money a second for them while idle.
        starts_per_s: instances that are started for a batch, a second.
        starting_per_s: money a second for these starts.
        late_per_s: batches a second that are late because no warm instance was free.
    """

    count: int
    idle_per_s: float
    starts_per_s: float
    starting_per_s: float
    late_per_s: float

    @property
    def cost_per_s(self) -> float:
        """Money a second for instances beside that of the batches themselves."""
        return self.idle_per_s + self.starting_per_s


@dataclass(frozen=True, slots=True)
class WarmProblem:
    """How many instances of one tier are to be provisioned.

    Attributes:
        traffic: arrivals of its batches.
        prices: what instances cost.
        late_if_cold: probability that a batch that waits for a start is late.
        max_late_per_s: batches a second that may be late for want of a warm instance.
    """

    traffic: BatchTraffic
    prices: InstancePrices
    late_if_cold: float
    max_late_per_s: float


def erlang_loss(servers: int, loads: Array) -> Array:
    """Returns Erlang's loss probabilities of 0, 1, ... `servers` servers, shape (servers + 1, m).

    Args:
        servers: largest number of servers.
        loads: offered load, shape (m,): arrivals a second times mean seconds in service.

    One server with load 1 is busy half of the time; a second one makes that (1/2) / (1 + 1 + 1/2) = 1/5:

    >>> erlang_loss(2, np.array([1.0])).ravel().tolist()
    [1.0, 0.5, 0.2]
    """
    losses = np.ones((servers + 1, len(loads)))
    for number in range(1, servers + 1):
        offered = loads * losses[number - 1]
        losses[number] = offered / (number + offered)
    return losses


def upkeep(problem: WarmProblem, count: int) -> Upkeep:
    """Returns what a number of provisioned instances costs, and how many batches are then late.

    One instance, batches of 1 s once in 2 s (load 1/2): it is idle for two thirds of the time, and one batch in three
    waits for another:

    >>> traffic = BatchTraffic(np.zeros((1, 1)), np.array([0.5]), np.array([1.0]))
    >>> prices = InstancePrices(idle_per_s=3.0, per_start=1.0, start_s=2.0, kept_s=100.0, max_instances=1)
    >>> found = upkeep(WarmProblem(traffic, prices, late_if_cold=1.0, max_late_per_s=0.0), 1)
    >>> round(found.idle_per_s, 6), round(found.late_per_s, 6), found.starts_per_s
    (2.0, 0.166667, 0.0)
    """
    return _upkeep(problem, count, _instances(problem, max(count, _needed(problem))))


@dataclass(frozen=True, slots=True, eq=False)
class _Instances:
    """What holds for the instances of a tier in their order, whatever is provisioned.

    Attributes:
        losses: probability that the first 0, 1, ... n instances are all busy, shape (n + 1, m).
        removals: how often the platform removes the 1st, 2nd, ... n-th instance, 1/s, shape (n, m).
    """

    losses: Array
    removals: Array


def _instances(problem: WarmProblem, most: int) -> _Instances:
    """Returns the tables for up to `most` instances, and those that the step between pool sizes may add."""
    losses = erlang_loss(most + most // _MAX_LEVELS + 1, problem.traffic.loads)
    return _Instances(losses, _removal_rates(problem, len(losses) - 1))


def _upkeep(problem: WarmProblem, count: int, instances: _Instances) -> Upkeep:
    traffic, prices, losses = problem.traffic, problem.prices, instances.losses
    sizes = _pool_sizes(problem, count)
    distribution = _pool_distribution(problem, sizes, instances)
    # Shape (pool sizes, phases), like the distribution. A start brings the batches that arrive meanwhile with it.
    finding_none = traffic.batches_per_s * losses[sizes]
    together = 1.0 + finding_none * (prices.start_s + traffic.service_s)
    room = np.maximum(prices.max_instances - sizes, 0)[:, None]
    starts = finding_none * np.minimum(together, room)
    waits = np.where(room > 0, finding_none * together - starts, finding_none)
    busy = traffic.loads * (1.0 - losses[count])
    idle = max(0.0, count - float(traffic.parts @ busy))
    starts_per_s = float((distribution * starts).sum())
    return Upkeep(
        count=count,
        idle_per_s=prices.idle_per_s * idle,
        starts_per_s=starts_per_s,
        starting_per_s=prices.per_start * starts_per_s,
        late_per_s=problem.late_if_cold * starts_per_s + float((distribution * waits).sum()),
    )


def cheapest(problem: WarmProblem) -> Upkeep:
    """Returns the number of provisioned instances that costs least and keeps late batches within their bound.

    If no number does, it is the smallest one that comes as near as all of them together.
    """
    most = _needed(problem)
    instances = _instances(problem, most)
    allowed = max(problem.max_late_per_s, _upkeep(problem, most, instances).late_per_s * (1 + 1e-6))
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        if _upkeep(problem, middle, instances).late_per_s <= allowed:
            high = middle
        else:
            low = middle + 1
    best = _upkeep(problem, low, instances)
    for count in range(low + 1, most + 1):
        found = _upkeep(problem, count, instances)
        if found.cost_per_s < best.cost_per_s:
            best = found
        # One more can save no more than what is left of the starts.
        if found.idle_per_s >= best.cost_per_s or found.starts_per_s <= _NO_STARTS_PER_S:
            break
    return best


def map_traffic(process: MarkovianArrivals, *, mean_batch: float, service_s: float) -> BatchTraffic:
    """Returns the batches of a Markovian arrival process: its phases, with one batch for `mean_batch` arrivals.

    Batches leave more regularly than a Poisson process of the same rate, so this errs towards more instances.
    """
    arrivals = np.asarray(process.d1).sum(axis=1)
    return BatchTraffic(
        changes=np.asarray(process.d0) + np.asarray(process.d1),
        batches_per_s=arrivals / mean_batch,
        service_s=np.full(len(arrivals), service_s),
    )


def poisson_traffic(*, batches_per_s: float, service_s: float) -> BatchTraffic:
    """Returns batches that arrive at one rate."""
    return BatchTraffic(np.zeros((1, 1)), np.array([batches_per_s]), np.array([service_s]))


def cycle_traffic(parts: list[tuple[float, BatchTraffic]]) -> BatchTraffic:
    """Returns traffic that goes through parts in turn, and then begins again.

    Args:
        parts: mean seconds of each part, and its traffic; a part begins in the stationary phase of its traffic.
    """
    sizes = [len(traffic.batches_per_s) for _, traffic in parts]
    starts = [sum(sizes[:number]) for number in range(len(parts))]
    changes = np.zeros((sum(sizes), sum(sizes)))
    for number, (held_s, traffic) in enumerate(parts):
        mine = slice(starts[number], starts[number] + sizes[number])
        changes[mine, mine] += traffic.changes
        if len(parts) > 1:
            following = (number + 1) % len(parts)
            theirs = slice(starts[following], starts[following] + sizes[following])
            changes[mine, theirs] += parts[following][1].parts / held_s
    return BatchTraffic(
        changes=changes,
        batches_per_s=np.concatenate([traffic.batches_per_s for _, traffic in parts]),
        service_s=np.concatenate([traffic.service_s for _, traffic in parts]),
    )


def _needed(problem: WarmProblem) -> int:
    """Returns the number of instances above which one more is never used."""
    load = float(problem.traffic.loads.max(initial=0.0))
    return min(problem.prices.max_instances, math.ceil(load + _TAIL_SIGMAS * math.sqrt(load)) + (load > 0))


def _pool_sizes(problem: WarmProblem, count: int) -> Indices:
    """Returns the sizes of the warm pool that are distinguished, the provisioned instances alone first."""
    top = max(count, _needed(problem))
    step = max(1, math.ceil((top - count) / _MAX_LEVELS))
    sizes = np.minimum(np.arange(count, top + step, step), max(count, problem.prices.max_instances))
    return np.asarray(sizes, dtype=np.intp)


def _pool_distribution(problem: WarmProblem, sizes: Indices, instances: _Instances) -> Array:
    """Returns the stationary distribution of pool size and phase, shape (pool sizes, phases)."""
    traffic = problem.traffic
    phases, levels = len(traffic.batches_per_s), len(sizes)
    rates = np.zeros((levels, phases, levels, phases))
    each = np.arange(phases)
    # An instance that was not used for that long leaves with all that come after it in the order.
    removed = np.diff(instances.removals[sizes[1:] - 1], axis=0, prepend=0.0).clip(min=0.0)
    for level, size in enumerate(sizes):
        rates[level, :, level, :] = traffic.changes
        if level < levels - 1:
            starting = traffic.batches_per_s * instances.losses[size]
            up_to = _poisson_up_to(
                starting * (problem.prices.start_s + traffic.service_s), sizes[level + 1 : -1] - size - 1
            )
            reached = np.diff(up_to, axis=0, prepend=0.0, append=1.0)
            rates[level, each, level + 1 :, each] = (starting * reached).T
        rates[level, each, :level, each] = removed[:level].T
    return _stationary(rates.reshape(levels * phases, levels * phases)).reshape(levels, phases)


def _poisson_up_to(means: Array, numbers: Indices) -> Array:
    """Returns the probabilities that Poisson variables are at most each of some ascending numbers.

    Args:
        means: their means, shape (m,).
        numbers: shape (n,).

    Returns:
        Shape (n, m).
    """
    counts = np.arange(int(numbers[-1]) + 1 if len(numbers) else 0)
    log_factorials = np.log(np.maximum(counts, 1)).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = counts[:, None] * np.log(means) - means - log_factorials[:, None]
    chances = np.where(means > 0, np.exp(logs), (counts == 0)[:, None])
    return np.asarray(chances.cumsum(axis=0)[numbers].clip(max=1.0), dtype=np.float64)


def _removal_rates(problem: WarmProblem, most: int) -> Array:
    """Returns how often the platform removes the 1st, 2nd, ... instance, 1/s, shape (most, phases).

    With X the gap between two batches that reach an instance, it is first left alone for tau seconds after
    E[min(X, tau)] / P(X > tau) on average: one gap after another, until one is longer.

    The transform of X follows from one instance to the next (the passage times of M/M/infinity from k - 1 to k):
    phi_k(s) = nu / (nu + s + (k - 1) (1 - phi_{k - 1}(s)) / service).
    """
    traffic, kept_s = problem.traffic, problem.prices.kept_s
    nodes, weights = _euler_nodes(kept_s)
    arriving, serving = traffic.batches_per_s[:, None], 1.0 / np.maximum(traffic.service_s, _SHORTEST_S)[:, None]
    gap: Transform = np.zeros((len(traffic.batches_per_s), len(nodes)), dtype=np.complex128)
    rates = np.empty((most, len(traffic.batches_per_s)))
    for number in range(most):
        gap = arriving / (arriving + nodes + number * serving * (1.0 - gap))
        survival = (1.0 - gap) / nodes
        longer = (survival.real @ weights).clip(_NEVER, 1.0)
        until_s = ((survival / nodes).real @ weights).clip(_SHORTEST_S, kept_s)
        rates[number] = longer / until_s
    return rates


def _euler_nodes(at_s: float) -> tuple[Transform, Array]:
    """Returns points and weights with which the real part of a transform gives its function at one time.

    The Fourier series of Abate and Whitt (1995), with Euler's summation of its last terms: exact to about 1e-8.

    >>> nodes, weights = _euler_nodes(2.0)
    >>> bool(abs((1 / (nodes + 1)).real @ weights - math.exp(-2.0)) < 1e-7)
    True
    """
    numbers = np.arange(_SERIES + _SUMMED + 1)
    last = np.array([math.comb(_SUMMED, k) for k in range(_SUMMED + 1)]).cumsum()[::-1] / 2.0**_SUMMED
    signs = (-1.0) ** numbers * np.concatenate([[0.5], np.ones(_SERIES - 1), last])
    nodes = np.asarray((_DAMPING + 2j * math.pi * numbers) / (2 * at_s), dtype=np.complex128)
    return nodes, np.asarray(signs * math.exp(_DAMPING / 2) / at_s, dtype=np.float64)


def _stationary(changes: Array) -> Array:
    """Returns the stationary distribution of a Markov chain in continuous time, from its rates."""
    size = len(changes)
    if size == 1:
        return np.ones(1)
    balance = changes.T.copy()
    np.fill_diagonal(balance, 0.0)
    np.fill_diagonal(balance, -balance.sum(axis=0))
    # One balance equation follows from the others; the sum of the probabilities takes its place.
    balance[-1] = 1.0
    wanted = np.zeros(size)
    wanted[-1] = 1.0
    found = np.linalg.solve(balance, wanted).clip(min=0.0)
    return np.asarray(found / found.sum(), dtype=np.float64)
