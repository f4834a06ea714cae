"""Arrival processes as values: Poisson, Markov-modulated Poisson, and any Markovian arrival process (D0, D1)."""

import math
from dataclasses import dataclass

import numpy as np

from scheduler.domain.errors import EdgeburstError
from scheduler.planner.queueing.matrices import Array, Mask, square, stationary

Rates = tuple[tuple[float, ...], ...]

MAX_PHASES = 64
"""Largest number of phases. The count matrices of more phases do not fit in memory; superposition multiplies phases."""
_ROW_TOLERANCE, _ROW_TOLERANCE_RELATIVE = 1e-5, 1e-6
"""Tolerances for sums of rows, which should be 0: published processes are rounded to six decimals."""


class ArrivalError(EdgeburstError):
    """A description is not a valid arrival process. The message names the field."""


@dataclass(frozen=True, slots=True)
class MarkovianArrivals:
    """A Markovian arrival process: a Markov chain of phases, some of whose transitions are arrivals.

    The first phase of this example is left once a second, the second one three times a second. So three quarters of the
    time pass in the first phase, and the mean rate is 0.75 * 10 + 0.25 * 50 = 20 arrivals a second. Of these arrivals
    7.5 of 20 are in the first phase.

    >>> bursty = MarkovianArrivals(d0=((-11.0, 1.0), (3.0, -53.0)), d1=((10.0, 0.0), (0.0, 50.0)))
    >>> bursty.phase_distribution().tolist(), bursty.rate_rps, bursty.arrival_phase_distribution().tolist()
    ([0.75, 0.25], 20.0, [0.375, 0.625])

    Attributes:
        d0: rates of transitions without an arrival, per second, shape (m, m). The diagonal is set so that rows of D0 +
            D1 sum to zero exactly: published diagonals are rounded, and a diagonal of 0 stands for a missing one.
        d1: rates of transitions with an arrival, per second, shape (m, m).

    Raises:
        ArrivalError: the matrices are no process, have no arrivals, or have a long run that depends on the first phase.

    References:
        Neuts, "A versatile Markovian point process", J. Appl. Prob. 16 (1979).
    """

    d0: Rates
    d1: Rates

    def __post_init__(self) -> None:
        """Checks the matrices and makes the diagonal exact."""
        _check_shape(self.d0, self.d1)
        _check_rates(self.d0, self.d1)
        object.__setattr__(self, "d0", _with_exact_diagonal(self.d0, self.d1))
        _check_long_run(*self.matrices())

    @property
    def phases(self) -> int:
        """Number of phases m."""
        return len(self.d0)

    def matrices(self) -> tuple[Array, Array]:
        """Returns D0 and D1 as arrays, shape (m, m)."""
        return square(self.d0), square(self.d1)

    def phase_distribution(self) -> Array:
        """Returns the stationary distribution of the phase at any time, shape (m,)."""
        d0, d1 = self.matrices()
        generator = d0 + d1
        return stationary(np.eye(self.phases) + generator / _fastest(generator))

    def arrival_phase_distribution(self) -> Array:
        """Returns the stationary distribution of the phase just after an arrival, shape (m,)."""
        _, d1 = self.matrices()
        flow = self.phase_distribution() @ d1
        return np.asarray(flow / flow.sum())

    def to_next_arrival(self) -> Array:
        """Returns N = (-D0)^-1 D1: phase now to phase just after the next arrival, shape (m, m)."""
        d0, d1 = self.matrices()
        return np.asarray(np.linalg.solve(-d0, d1), dtype=np.float64)

    @property
    def rate_rps(self) -> float:
        """Mean arrivals a second."""
        return float(self.phase_distribution() @ square(self.d1).sum(axis=1))

    def superposed(self, other: "MarkovianArrivals") -> "MarkovianArrivals":
        """Returns the arrivals of two independent processes together; a phase is a pair of their phases."""
        if self.phases * other.phases > MAX_PHASES:
            raise ArrivalError(
                f"superposing {self.phases} and {other.phases} phases gives more than {MAX_PHASES}; "
                "fit the superposition with fewer"
            )
        here, there = np.eye(self.phases), np.eye(other.phases)
        d0, d1 = (
            np.kron(mine, there) + np.kron(here, theirs)
            for mine, theirs in zip(self.matrices(), other.matrices(), strict=True)
        )
        return markovian(d0, d1)


def markovian(d0: Array, d1: Array) -> MarkovianArrivals:
    """Returns the process with these matrices.

    Args:
        d0: rates without an arrival, shape (m, m).
        d1: rates with an arrival, shape (m, m).
    """
    return MarkovianArrivals(
        d0=tuple(tuple(float(x) for x in row) for row in d0), d1=tuple(tuple(float(x) for x in row) for row in d1)
    )


def poisson_arrivals(rate_rps: float) -> MarkovianArrivals:
    """Returns Poisson arrivals, a process of one phase."""
    _positive("rate_rps", rate_rps)
    return MarkovianArrivals(d0=((-rate_rps,),), d1=((rate_rps,),))


def mmpp2(*, rates_rps: tuple[float, float], leave_per_s: tuple[float, float]) -> MarkovianArrivals:
    """Returns a Markov-modulated Poisson process of two phases.

    Args:
        rates_rps: arrivals a second in each phase, at least one of them above 0.
        leave_per_s: how often a second each phase is left, both above 0; the reciprocal is the mean stay in seconds.
    """
    if any(not (math.isfinite(rate) and rate >= 0) for rate in rates_rps) or max(rates_rps) <= 0:
        raise ArrivalError(f"rates_rps must be at least 0, one of them above 0, not {rates_rps}")
    for leave in leave_per_s:
        _positive("leave_per_s", leave)
    (one, two), (from_one, from_two) = rates_rps, leave_per_s
    return MarkovianArrivals(d0=((-one - from_one, from_one), (from_two, -two - from_two)), d1=((one, 0.0), (0.0, two)))


def _positive(field: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ArrivalError(f"{field} must be above 0, not {value}")


def _fastest(generator: Array) -> float:
    """Returns a rate that is at least that of every transition; 1 where the phase never changes."""
    return float(max(-generator.diagonal().min(), 0.0)) or 1.0


def _check_shape(d0: Rates, d1: Rates) -> None:
    size = len(d0)
    if not 0 < size <= MAX_PHASES:
        raise ArrivalError(f"D0 must have 1 to {MAX_PHASES} rows, not {size}")
    if len(d1) != size or any(len(row) != size for row in (*d0, *d1)):
        raise ArrivalError(f"D0 and D1 must be square matrices of one size, {size} rows of {size} rates")


def _check_rates(d0: Rates, d1: Rates) -> None:
    for name, rows in (("D0", d0), ("D1", d1)):
        for i, row in enumerate(rows):
            for j, rate in enumerate(row):
                if not math.isfinite(rate):
                    raise ArrivalError(f"{name} must hold finite rates; row {i + 1}, column {j + 1} is {rate}")
                if rate < 0 and not (name == "D0" and i == j):
                    place = f"row {i + 1}, column {j + 1} of {name}"
                    raise ArrivalError(f"{place} is {rate}; only rates on the diagonal of D0 may be negative")


def _with_exact_diagonal(d0: Rates, d1: Rates) -> Rates:
    rows = []
    for i, row in enumerate(d0):
        leaving = math.fsum(rate for j, rate in enumerate(row) if j != i) + math.fsum(d1[i])
        surplus = row[i] + leaving
        if row[i] != 0 and abs(surplus) > _ROW_TOLERANCE + _ROW_TOLERANCE_RELATIVE * leaving:
            raise ArrivalError(f"row {i + 1} of D0 + D1 sums to {surplus:g}, not 0; set D0's diagonal to {-leaving:g}")
        if leaving <= 0:
            raise ArrivalError(f"row {i + 1} of D0 + D1 has no rate above 0; every phase must be left at some time")
        rows.append((*row[:i], -leaving, *row[i + 1 :]))
    return tuple(rows)


def _check_long_run(d0: Array, d1: Array) -> None:
    """Checks that arrivals never end in any phase, and that the long run does not depend on the first phase."""
    reach = _reachability((d0 + d1) > 0)
    arrives = reach[:, d1.sum(axis=1) > 0].any(axis=1)
    if not arrives.all():
        raise ArrivalError(f"D1 has no arrival that can be reached from phase {int(np.argmin(arrives)) + 1}")
    # With one closed class there is a phase that every phase leads to.
    if not reach.all(axis=0).any():
        raise ArrivalError("D0 + D1 has parts that cannot reach each other; give each part as a process of its own")


def _reachability(steps: Mask) -> Mask:
    reach = steps | np.eye(len(steps), dtype=bool)
    for _ in range(max(1, math.ceil(math.log2(len(steps) + 1)))):
        reach = reach @ reach
    return np.asarray(reach)
