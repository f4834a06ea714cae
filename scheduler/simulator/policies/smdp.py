"""SMDP: the edge's batches by the optimal policy of a semi-Markov decision process, and functions for the overflow.

Source: Xu, Sun, Zhou, Niu, "SMDP-based dynamic batching for efficient inference on GPU-based platforms" (ICC 2023,
arXiv 2301.12865; at length arXiv 2501.02181). A free server with s waiting requests starts a batch of a of them, or
waits for the next arrival (a = 0). Arrivals are Poisson with a known rate, a service takes what its batch size takes,
and the policy has the least average cost, a weighted sum of time and of energy. Usually it has a control limit: it
waits below so many requests, and takes all of them from there on.

An edge has no price for energy here, but what it has no room for costs money. So the states end at the largest batch
that takes half the SLO: a request behind this many and one batch in service would be late, and goes to a function,
which is the process's cost in place of the paper's estimate of the states left out. The time of requests has a small
weight, so that of two policies that cost the same the faster one is taken. The paper has no deadlines; here a batch
starts at the latest when the oldest request's deadline demands it.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scheduler.domain.requests import Request
from scheduler.simulator.policies.baseline import Baseline, earliest
from scheduler.simulator.policies.buffers import DeadlineBuffer
from scheduler.simulator.policies.site import Site

Array = npt.NDArray[np.float64]

TIME_WEIGHT = 0.01
"""Money for an SLO's length of one request's time, in units of its price by function."""
_ROUNDS = 100
"""More than enough: a round of policy iteration leaves few actions to change after the third."""


@dataclass(frozen=True, slots=True)
class Process:
    """Semi-Markov decision process of the edge's batches.

    Attributes:
        rate_rps: Poisson arrivals, requests a second, above 0.
        service_s: seconds of a batch of 1, 2, ... requests; as many requests as the last may wait.
        overflow: cost of each request that finds no room.
        per_s: cost of each second of each request on the edge or waiting for it.
    """

    rate_rps: float
    service_s: tuple[float, ...]
    overflow: float
    per_s: float


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Optimal policy of a process.

    Attributes:
        sizes: size of the batch that starts with 0, 1, 2, ... waiting requests; 0 where the edge waits for another.
        cost_per_s: average cost, by the second.
    """

    sizes: tuple[int, ...]
    cost_per_s: float

    @property
    def limit(self) -> int:
        """The fewest waiting requests with which a batch starts."""
        return next((waiting for waiting, size in enumerate(self.sizes) if size), 0)

    def shown(self) -> dict[str, object]:
        """Returns the policy as entries for the report."""
        return {"control_limit": self.limit, "edge_batch": max(self.sizes)}


@dataclass(frozen=True, slots=True)
class Table:
    """Costs, lengths and probabilities of each action in each state.

    Attributes:
        cost: expected cost until the next decision, infinite where the action is not allowed, shape (states, actions).
        seconds: expected time until then, shape (states, actions).
        next_state: distribution of the state then, shape (states, actions, states).
    """

    cost: Array
    seconds: Array
    next_state: Array


def tabulate(process: Process) -> Table:
    """Returns costs, lengths and probabilities of a process. State s is a free edge with s waiting requests."""
    most, rate = len(process.service_s), process.rate_rps
    states = np.arange(most + 1)
    cost = np.full((most + 1, most + 1), np.inf)
    seconds = np.ones((most + 1, most + 1))
    after = np.zeros((most + 1, most + 1, most + 1))
    waits = states[:-1]
    cost[waits, 0], seconds[waits, 0], after[waits, 0, waits + 1] = process.per_s * waits / rate, 1 / rate, 1.0
    for size in range(1, most + 1):
        service_s = process.service_s[size - 1]
        [arrivals] = poisson_law(np.array([rate * service_s]), most + 1)
        for waiting in range(size, most + 1):
            room = most - (waiting - size)
            after[waiting, size, waiting - size : most] = arrivals[:room]
            after[waiting, size, most] = max(0.0, 1.0 - arrivals[:room].sum())
            joined = float(np.minimum(np.arange(room), room) @ arrivals[:room] + room * after[waiting, size, most])
            spilled = rate * service_s - joined
            # Requests that arrive meanwhile are there for half the service on average.
            time_s = waiting * service_s + joined * service_s / 2
            cost[waiting, size] = process.overflow * spilled + process.per_s * time_s
            seconds[waiting, size] = service_s
    return Table(cost, seconds, after)


def poisson_law(means: Array, count: int) -> Array:
    """Returns P(k arrivals) for k = 0 ... count - 1, shape (means, count)."""
    k = np.arange(count)
    log_factorials = np.log(np.maximum(k, 1)).cumsum()
    positive = np.maximum(means, 1e-300)[:, None]
    return np.asarray(np.exp(k * np.log(positive) - means[:, None] - log_factorials), dtype=np.float64)


def solve(process: Process) -> BatchPlan:
    """Returns the policy with the least average cost.

    The paper finds it by relative value iteration of the process in equal steps of time; policy iteration comes to the
    same policy in a few rounds, whatever the rate.
    """
    table = tabulate(process)
    states: npt.NDArray[np.int64] = np.arange(len(table.cost))
    # At first the edge takes whatever waits.
    chosen: npt.NDArray[np.int64] = states.copy()
    average = 0.0
    for _ in range(_ROUNDS):
        values, average = _evaluated(table, chosen)
        q = table.cost - average * table.seconds + table.next_state @ values
        # An action is only changed for a better one, so that equally good ones do not alternate.
        better = q.min(axis=1) < q[states, chosen] - 1e-12 * (1.0 + np.abs(values))
        if not better.any():
            break
        chosen = np.where(better, q.argmin(axis=1), chosen)
    return BatchPlan(tuple(chosen.tolist()), float(average))


def _evaluated(table: Table, chosen: npt.NDArray[np.int64]) -> tuple[Array, float]:
    """Returns the relative value of each state under a policy, that of no waiting requests being 0, and its average."""
    states = np.arange(len(chosen))
    # Unknown are the values of all states but the first, and the average in the place of that.
    equations = np.eye(len(chosen)) - table.next_state[states, chosen]
    equations[:, 0] = table.seconds[states, chosen]
    found = np.linalg.solve(equations, table.cost[states, chosen])
    return np.concatenate([[0.0], found[1:]]), float(found[0])


def control_limits(site: Site) -> BatchPlan:
    """Returns the policy for a site and its mean rate."""
    assert site.model.edge_latency is not None
    most = max(1, site.largest_edge_batch(site.slo_s / 2))
    if site.mean_rate_rps <= 0:
        return BatchPlan(tuple(range(most + 1)), 0.0)
    tier, items = site.cheapest_function(site.slo_s)
    price = tier.price.cost(tier.latency.predict_s(items)) / items
    service_s = tuple(site.model.edge_latency.predict_s(size) for size in range(1, most + 1))
    return solve(Process(site.mean_rate_rps, service_s, price, TIME_WEIGHT * price / site.slo_s))


class Smdp(Baseline):
    """Policy with one queue for the edge, first in, first out, and a buffer for functions."""

    def __init__(self, site: Site, plan: BatchPlan) -> None:
        """Creates an empty queue and an empty buffer."""
        super().__init__(site)
        self._sizes = plan.sizes
        self._queue: deque[Request] = deque()
        self._overflow = DeadlineBuffer(self)

    def arrived(self, request: Request, now_s: float) -> None:
        """Adds the request to the queue if it has room there and is likely in time, otherwise to the buffer."""
        free_s = max(now_s, self.edge_free_at_s)
        waiting = len(self._queue) + 1
        room = waiting < len(self._sizes) and free_s + self.site.edge_s[waiting] <= request.deadline_s
        if room or request.class_name in self.site.stays:
            self._queue.append(request)
        else:
            self._overflow.add(request, now_s)

    def decide(self, now_s: float) -> None:
        """Starts the edge's batch from the control limit on, or when its oldest request demands it."""
        queue = self._queue
        if queue and not self.edge_batches:
            size = self._sizes[min(len(queue), len(self._sizes) - 1)]
            if not size and self._latest_s() <= now_s:
                size = len(queue)
            if size:
                self.send_edge([queue.popleft() for _ in range(size)], now_s)
        self._overflow.send_if_due(now_s)

    def next_wakeup_s(self) -> float | None:
        """Returns the earlier of the buffer's last moment and, with a free edge, the queue's; None for never."""
        if self.edge_batches or not self._queue:
            return earliest(self._overflow.due_s)
        return earliest(self._overflow.due_s, self._latest_s())

    def _latest_s(self) -> float:
        """Returns the last moment at which the queue, with one more request, would still be in time."""
        more = min(len(self._queue) + 1, len(self._sizes) - 1)
        return self._queue[0].deadline_s - self.site.edge_s[more]
