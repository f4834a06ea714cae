"""Exact distribution of one buffer shared by classes of Markovian arrivals, each class with a timeout of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.planner.queueing.map_batching import TIE, check_buffer
from scheduler.planner.queueing.map_counting import count_rates
from scheduler.planner.queueing.map_process import MAX_PHASES, ArrivalError, MarkovianArrivals
from scheduler.planner.queueing.matrices import Array, stationary


@dataclass(frozen=True, slots=True, eq=False)
class MarkedArrivals:
    """Arrivals of several classes under one chain of phases.

    Attributes:
        d0: rates of phase changes without an arrival, shape (m, m).
        marks: rates with an arrival of each class, shape (n, m, m).
    """

    d0: Array
    marks: Array


def marked(processes: Sequence[MarkovianArrivals]) -> MarkedArrivals:
    """Returns independent classes together; phases multiply, so a handful of classes of two phases is the limit.

    Args:
        processes: one for each class.
    """
    if not processes:
        raise ArrivalError("processes must hold at least one class")
    sizes = [process.phases for process in processes]
    if np.prod(sizes) > MAX_PHASES:
        raise ArrivalError(f"processes of {sizes} phases have more than {MAX_PHASES} together; use Poisson classes")
    d0, marks = np.zeros((int(np.prod(sizes)),) * 2), []
    for place, process in enumerate(processes):
        before, after = np.eye(int(np.prod(sizes[:place]))), np.eye(int(np.prod(sizes[place + 1 :])))
        alone, arriving = (np.kron(np.kron(before, part), after) for part in process.matrices())
        d0 += alone
        marks.append(arriving)
    return MarkedArrivals(d0, np.stack(marks))


@dataclass(frozen=True, slots=True, eq=False)
class _Ages:
    """An open batch cut by the age of its requests: at age s - u a class takes part while its timeout is above it.

    Count matrices of one piece of age follow those of the older one, so that those of the whole are products. Every
    array is by count, shape (B, M, M); M is m, or 2 m where the derivative by a tag on late requests is carried along
    in an upper right block.

    Attributes:
        edges_s: where the pieces meet, from 0.
        older: integral over closing times in each piece of what its oldest part counts.
        whole: what all ages up to an edge count, at each edge.
        closed: the same with one request whose timeout has just run out.
    """

    edges_s: Array
    older: list[Array]
    whole: list[Array]
    closed: list[Array]


@dataclass(frozen=True, slots=True, eq=False)
class MarkedBufferDistribution:
    """One buffer for several classes of Markovian arrivals, each class with its own timeout.

    Sizes and waits are sums of products of count matrices; closing times are integrated exactly. A wait costs some
    milliseconds, so it serves to check a plan, not to search for one.

    Attributes:
        arrivals: arrivals of all classes.
        timeouts_s: timeouts of the classes, shape (n,).
        max_batch: B.
        opening: distribution of class and phase of the request that opens a batch, shape (n, m).
        sizes: p_b for b = 1 ... B, shape (B,).

    >>> from scheduler.planner.queueing.map_process import poisson_arrivals
    >>> two = [poisson_arrivals(5.0), poisson_arrivals(5.0)]
    >>> marked_buffer_distribution(two, [0.0, 0.1], max_batch=3).sizes.round(4).tolist()
    [0.6839, 0.25, 0.0661]
    """

    arrivals: MarkedArrivals
    timeouts_s: Array
    max_batch: int
    opening: Array
    sizes: Array

    @property
    def mean_size(self) -> float:
        """Mean requests in a batch, all classes together."""
        return float(self.sizes @ np.arange(1, self.max_batch + 1))

    def cost_per_request(self, costs: Sequence[float] | Array) -> float:
        """Returns E[C(b)] / E[b].

        Args:
            costs: C(1), C(2), ... for every size up to `max_batch`.
        """
        return float(self.sizes @ np.asarray(costs, dtype=np.float64)) / self.mean_size

    def late(self, of_class: int, wait_s: float) -> Array:
        """Returns requests a batch of one class that wait longer than `wait_s`, by batch size, shape (B,).

        Args:
            of_class: index of the class.
            wait_s: below 0 every request counts.
        """
        if wait_s >= self.timeouts_s[of_class] * (1 - TIE) - TIE:
            return np.zeros(self.max_batch)
        tags = np.arange(len(self.timeouts_s)) == of_class
        rates, wait_s = _with_tags(self.arrivals, tags), max(wait_s, -1.0)
        opener = np.concatenate([self.opening, np.zeros_like(self.opening)], axis=1)
        tagged = np.concatenate([self.opening, self.opening * tags[:, None]], axis=1)
        # In the derivative's block stands the number of tagged requests.
        ages = _ages(rates, self.timeouts_s, self.max_batch, wait_s)
        by_size = _by_size(ages, rates, self.timeouts_s, wait_s, opener, tagged)
        return np.asarray(by_size[:, len(self.arrivals.d0) :].sum(axis=1))

    def class_latency_within(self, of_class: int, latency_s: float, services_s: Sequence[float] | Array) -> float:
        """Returns the fraction of a class whose wait and service together take at most `latency_s`.

        Args:
            of_class: index of the class.
            latency_s: the bound, seconds.
            services_s: service time of a batch of 1, 2, ... requests, for every size up to `max_batch`.
        """
        waits_s = latency_s - np.asarray(services_s, dtype=np.float64)
        waits_s = np.where(np.abs(waits_s) < TIE, 0.0, np.maximum(waits_s, -1.0))
        late = sum(
            float(self.late(of_class, wait_s)[waits_s == wait_s].sum()) for wait_s in np.unique(waits_s).tolist()
        )
        return 1 - late / float(self.late(of_class, -1.0).sum())


def marked_buffer_distribution(
    processes: Sequence[MarkovianArrivals], timeouts_s: Sequence[float], *, max_batch: int
) -> MarkedBufferDistribution:
    """Returns the distribution of a buffer.

    Args:
        processes: arrivals of each class.
        timeouts_s: longest that a member of each class lets its batch wait, at least 0, shape (n,).
        max_batch: requests at which it closes at once, at least 1.

    Raises:
        ArrivalError: no buffer, or more phases together than can be treated.
    """
    arrivals, timeouts = marked(processes), np.asarray(timeouts_s, dtype=np.float64)
    if timeouts.shape != (len(processes),):
        raise ArrivalError(f"timeouts_s must hold one timeout for each of the {len(processes)} classes")
    for timeout_s in timeouts.tolist():
        check_buffer(max_batch, timeout_s)
    next_open: Array = np.linalg.solve(-arrivals.d0, arrivals.marks).astype(np.float64)
    rates = (arrivals.d0, arrivals.marks, arrivals.marks)
    ages, change = _ages(rates, timeouts, max_batch, np.inf), np.zeros_like(arrivals.d0)
    for phase in range(len(change)):
        # For each phase in which the last batch closed: the next first request, and how its batch closes.
        opener = next_open[:, phase]
        change[phase] = _by_size(ages, rates, timeouts, np.inf, opener, opener).sum(axis=0)
    opening = np.asarray(np.einsum("i,nij->nj", stationary(change), next_open))
    sizes = _by_size(ages, rates, timeouts, np.inf, opening, opening).sum(axis=1)
    return MarkedBufferDistribution(arrivals, timeouts, max_batch, opening, sizes / sizes.sum())


_Rates = tuple[Array, Array, Array]
"""D0, the classes' D1 where they are in time, and where they are late."""


def _with_tags(arrivals: MarkedArrivals, tags: Array) -> _Rates:
    """The same rates with a derivative by the number of late requests of the classes with a tag."""
    nothing = np.zeros_like(arrivals.marks)
    plain, late = _blocks(arrivals.marks, nothing), _blocks(arrivals.marks, arrivals.marks * tags[:, None, None])
    return _blocks(arrivals.d0[None], nothing[:1])[0], plain, late


def _blocks(values: Array, derivatives: Array) -> Array:
    below = np.zeros_like(values)
    return np.concatenate(
        [np.concatenate([values, derivatives], axis=2), np.concatenate([below, values], axis=2)], axis=1
    )


def _by_size(ages: _Ages, rates: _Rates, timeouts_s: Array, wait_s: float, opener: Array, late_opener: Array) -> Array:
    """Returns the distribution of size and last phase of a batch, given class and phase of its first request: (B, M).

    Args:
        ages: count matrices by age, with `wait_s` among the edges.
        rates: D0 and the classes' D1.
        timeouts_s: timeouts of the classes, shape (n,).
        wait_s: longest wait in time.
        opener: rows of the first request by class if it is in time, shape (n, M).
        late_opener: the same if it is late.
    """
    _, plain, late = rates
    max_batch = len(ages.whole[0])
    if max_batch == 1:
        return np.asarray((late_opener if wait_s < 0 else opener).sum(axis=0)[None])
    result = np.zeros((max_batch, opener.shape[1]))
    fills = (late if wait_s < 0 else plain).sum(axis=0)
    for piece, older in enumerate(ages.older):
        start = (late_opener if ages.edges_s[piece] >= wait_s else opener)[timeouts_s > ages.edges_s[piece]].sum(axis=0)
        closings = start @ older
        result[:-1] += _rows(closings, ages.closed[piece])[:-1]
        result[-1] += _rows(closings, ages.whole[piece])[max_batch - 2] @ fills
    for of_class, timeout_s in enumerate(timeouts_s.tolist()):
        edge = int(np.searchsorted(ages.edges_s, timeout_s))
        start = (late_opener if timeout_s > wait_s else opener)[of_class]
        result[:-1] += (start @ ages.whole[edge])[:-1]
    return result


def _ages(rates: _Rates, timeouts_s: Array, max_batch: int, wait_s: float) -> _Ages:
    d0, plain, late = rates
    cuts = np.append(timeouts_s, [0.0, *([wait_s] if 0 < wait_s < timeouts_s.max() else [])])
    edges_s = np.unique(cuts)
    whole = [np.zeros((max_batch, *d0.shape))]
    whole[0][0] = np.eye(len(d0))
    closed, older = [_closing(rates, timeouts_s == 0, whole[0], wait_s < 0)], []
    for start_s, end_s in zip(edges_s, edges_s[1:], strict=False):
        counted = (late if start_s >= wait_s else plain)[timeouts_s > start_s].sum(axis=0)
        table = count_rates(d0, counted, counts=max_batch, longest_s=float(end_s - start_s))
        length_s = np.array([end_s - start_s])
        passed = table.at(length_s)[0]
        older.append(table.integrated(length_s)[0])
        whole.append(_products(passed, whole[-1]))
        new = _closing(rates, timeouts_s == end_s, whole[-1], end_s > wait_s)
        closed.append(_products(passed, closed[-1]) + new)
    return _Ages(edges_s, older, whole, closed)


def _closing(rates: _Rates, classes: Array, after: Array, is_late: bool) -> Array:
    """One request of these classes, and then what is younger: one more in the count."""
    result = np.zeros_like(after)
    result[1:] = rates[2 if is_late else 1][classes].sum(axis=0) @ after[:-1]
    return result


def _products(first: Array, second: Array) -> Array:
    """Count matrices of one piece and then another, shape (B, M, M)."""
    result = np.zeros_like(second)
    for k in range(len(first)):
        result[k:] += first[k] @ second[: len(second) - k]
    return result


def _rows(first: Array, second: Array) -> Array:
    """The same for rows of the first piece, shapes (B, M) and (B, M, M)."""
    result = np.zeros_like(first)
    for k in range(len(first)):
        result[k:] += first[k] @ second[: len(second) - k]
    return result
