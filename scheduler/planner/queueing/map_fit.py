"""Arrival processes from what was seen: timestamps by likelihood, the daemon's running estimates by moments."""

import math
from dataclasses import dataclass

import numpy as np

from scheduler.planner.queueing.map_process import ArrivalError, MarkovianArrivals, markovian, mmpp2, poisson_arrivals
from scheduler.planner.queueing.matrices import Array

MAX_GAPS = 200_000
"""Gaps that are fitted, the newest ones: work and memory stay bounded."""
_MIN_GAPS = 20
_FINEST = 1e-3
"""Gaps below this part of the mean gap are taken for it: clocks that record them tick."""
_WINDOWS = (8, 64, 512)
"""Gaps over which local rates are averaged for first guesses: bursts may be short or long."""
_TRIALS = 8
_MAX_ROUNDS = 60
_ENOUGH = 1e-2
"""Gain of the logarithm of the likelihood in a round that is not worth another."""
_PARAMETERS_MORE = 3
"""Of a two-phase process than of Poisson."""
_PLAIN = 0.02
"""An index of dispersion this near 1 is Poisson."""
_BURST_TICKS = 1.892618
"""x that maximises (2 g(x) - g(2x)) / x, g(x) = 1 - (1 - e^-x) / x: see `refit`."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted process.

    Attributes:
        process: it.
        log_likelihood: of the gaps under it, natural logarithm.
        gaps: how many there were.
    """

    process: MarkovianArrivals
    log_likelihood: float
    gaps: int


def fit_arrivals(gaps_s: Array) -> Fit:
    """Returns Poisson or a two-phase process, whichever Schwarz's criterion (BIC, 1978) prefers.

    Args:
        gaps_s: seconds between arrivals, shape (gaps,), at least 20; the newest 200,000 count.

    Raises:
        ArrivalError: too few gaps, or gaps that are none.
    """
    plain, bursty = fit_poisson(gaps_s), fit_mmpp2(gaps_s)
    penalty = 0.5 * _PARAMETERS_MORE * math.log(plain.gaps)
    return bursty if bursty.log_likelihood - penalty > plain.log_likelihood else plain


def fit_poisson(gaps_s: Array) -> Fit:
    """Returns the Poisson process with the mean rate, which is its maximum likelihood."""
    gaps_s = _checked(gaps_s)
    rate_rps = len(gaps_s) / float(gaps_s.sum())
    return Fit(poisson_arrivals(rate_rps), len(gaps_s) * (math.log(rate_rps) - 1), len(gaps_s))


def fit_mmpp2(gaps_s: Array) -> Fit:
    """Returns the two-phase Markov-modulated Poisson process of largest likelihood.

    Expectation-maximisation from three first guesses, the best of which is continued. A round is linear in the number
    of gaps. On 50,000 gaps of a process whose phases last for dozens of arrivals, its rates come back to about 2 %, the
    times in its phases to about 10 %.

    Args:
        gaps_s: seconds between arrivals, shape (gaps,), at least 20; the newest 200,000 count.

    References:
        Ryden, "An EM algorithm for estimation in Markov-modulated Poisson processes", Comput. Stat. Data Anal. 21
        (1996).
    """
    gaps_s = _checked(gaps_s)
    trials = [_improved(_guess(gaps_s, window), gaps_s, _TRIALS) for window in _WINDOWS if window * 4 < len(gaps_s)]
    if not trials:
        trials = [_improved(_guess(gaps_s, 2), gaps_s, _TRIALS)]
    best = max(trials, key=lambda fit: fit.log_likelihood)
    return _improved(best.process, gaps_s, _MAX_ROUNDS)


def refit(*, rate_rps: float, dispersion: float, tick_s: float) -> MarkovianArrivals:
    """Returns the process to plan with, given what the daemon's estimators know.

    The daemon's index of dispersion compares neighbouring counts, E[(x - y)^2 / (x + y)]; for a process whose rate has
    relative variance v and forgets with rate r it is 1 + 2 rate v tick (2 g(x) - g(2 x)) / x with x = r tick and
    g(x) = 1 - (1 - e^-x) / x. Two numbers do not fix four parameters: we take the r that needs the least variance, and
    phases of equal length; where rates would have to vary by more than their mean, one phase is silent and shorter or
    longer than the other.

    Args:
        rate_rps: mean arrivals a second, above 0.
        dispersion: 1 for Poisson; below 1 counts as Poisson.
        tick_s: length of the intervals that were counted, above 0.
    """
    for field, value in (("dispersion", dispersion), ("tick_s", tick_s)):
        if not (math.isfinite(value) and value > 0):
            raise ArrivalError(f"{field} must be above 0, not {value}")
    if dispersion < 1 + _PLAIN:
        return poisson_arrivals(rate_rps)
    forgets_per_s = _BURST_TICKS / tick_s
    variance = (dispersion - 1) / (2 * rate_rps * tick_s * _neighbours(_BURST_TICKS) / _BURST_TICKS)
    if variance <= 1:
        swing = math.sqrt(variance)
        leave_per_s = forgets_per_s / 2
        return mmpp2(rates_rps=(rate_rps * (1 - swing), rate_rps * (1 + swing)), leave_per_s=(leave_per_s, leave_per_s))
    busy = 1 / (1 + variance)
    return mmpp2(rates_rps=(0.0, rate_rps / busy), leave_per_s=(forgets_per_s * busy, forgets_per_s * (1 - busy)))


def _neighbours(x: float) -> float:
    """2 g(x) - g(2 x): what two counts side by side show of a rate that forgets x in one of them."""
    return 1 + 2 * math.expm1(-x) / x - math.expm1(-2 * x) / (2 * x)


def _checked(gaps_s: Array) -> Array:
    gaps_s = np.asarray(gaps_s, dtype=np.float64)[-MAX_GAPS:]
    if len(gaps_s) < _MIN_GAPS:
        raise ArrivalError(f"gaps_s must hold at least {_MIN_GAPS} gaps to fit a process, not {len(gaps_s)}")
    if not (np.isfinite(gaps_s).all() and (gaps_s >= 0).all() and gaps_s.sum() > 0):
        raise ArrivalError("gaps_s must be finite, at least 0, and not all 0")
    # Arrivals at one instant would make the rate of a phase grow without bound.
    return np.asarray(np.maximum(gaps_s, _FINEST * gaps_s.mean()))


def _guess(gaps_s: Array, window: int) -> MarkovianArrivals:
    """Phases by the local rate: above or below that of all, and how long a run of either is."""
    smooth_s = np.convolve(gaps_s, np.ones(window) / window, mode="same")
    fast = smooth_s < gaps_s.mean()
    changes = max(1, int(np.count_nonzero(np.diff(fast.astype(np.int8)))))
    rates, leaves = [], []
    for phase in (fast, ~fast):
        total_s = max(float(gaps_s[phase].sum()), float(gaps_s.sum()) / len(gaps_s))
        rates.append(max(1, int(phase.sum())) / total_s)
        leaves.append(max(1.0, changes / 2) / total_s)
    return mmpp2(rates_rps=(rates[0], rates[1]), leave_per_s=(leaves[0], leaves[1]))


def _improved(process: MarkovianArrivals, gaps_s: Array, rounds: int) -> Fit:
    likelihood = -math.inf
    for _ in range(rounds):
        better, now = _round(process, gaps_s)
        if now - likelihood < _ENOUGH:
            return Fit(process, now, len(gaps_s))
        process, likelihood = better, now
    return Fit(process, _round(process, gaps_s)[1], len(gaps_s))


def _round(process: MarkovianArrivals, gaps_s: Array) -> tuple[MarkovianArrivals, float]:
    """One round of expectation-maximisation; the likelihood is that before it."""
    d0, d1 = process.matrices()
    values, left, right = _spectrum(d0)
    decay = np.exp(values * gaps_s[:, None])
    quiet = np.einsum("ip,tp,pj->tij", left, decay, right)
    start = process.arrival_phase_distribution()
    before, after, likelihood = _passes(start, quiet @ d1)
    # Sums over gaps of integrals of (before e^(D0 s))_i (e^(D0 (x - s)) D1 after)_j, in the eigenvectors of D0.
    inward, outward = before @ left, (after @ d1.T) @ right.T
    total = np.einsum("ti,tij,jk,tk->t", before, quiet, d1, after)
    weights = inward[:, :, None] * outward[:, None, :] * _between(values, decay, gaps_s) / total[:, None, None]
    spent = np.einsum("pq,pi,jq->ij", weights.sum(axis=0), right, left)
    arrivals = np.einsum("ti,tij,tk->jk", before, quiet, after / total[:, None]) * d1
    time_s = np.maximum(spent.diagonal(), 1e-12 * gaps_s.sum())[:, None]
    hidden = np.maximum((d0 - np.diag(d0.diagonal())) * spent / time_s, 1e-9 / gaps_s.sum())
    np.fill_diagonal(hidden, 0.0)
    return markovian(hidden, np.maximum(arrivals, 0.0) / time_s), likelihood


def _spectrum(d0: Array) -> tuple[Array, Array, Array]:
    """Eigenvalues of a 2 by 2 matrix with positive off-diagonals (real and apart), eigenvectors and their inverse."""
    values, vectors = np.linalg.eig(d0)
    return values.real, vectors.real, np.linalg.inv(vectors.real)


def _between(values: Array, decay: Array, gaps_s: Array) -> Array:
    """Integrals of e^(a s) e^(b (x - s)) over a gap x for both eigenvalues a, b: shape (gaps, 2, 2)."""
    result = np.empty((len(gaps_s), 2, 2))
    result[:, 0, 0], result[:, 1, 1] = gaps_s * decay[:, 0], gaps_s * decay[:, 1]
    apart = values[0] - values[1]
    # The larger exponential is taken out, so that the difference of near ones keeps its digits.
    mixed = decay.max(axis=1) * -np.expm1(-abs(apart) * gaps_s) / abs(apart)
    result[:, 0, 1] = result[:, 1, 0] = mixed
    return result


def _passes(start: Array, steps: Array) -> tuple[Array, Array, float]:
    """Forward and backward passes over the gaps.

    The gaps are cut into stretches whose products are formed side by side, then joined: as many steps in Python as
    the square root of the number of gaps.

    Returns:
        Phase distribution before each gap given the past, and likelihood of the rest after each gap by phase (both
        scaled), shapes (gaps, 2); the logarithm of the likelihood of all.
    """
    count = len(steps)
    stretches = math.isqrt(count) + 1
    length = -(-count // stretches)
    padded = np.tile(np.eye(2), (stretches * length, 1, 1))
    padded[:count] = steps
    lanes = padded.reshape(stretches, length, 2, 2)
    before = _forward(start, lanes).reshape(-1, 2)[:count]
    flipped = lanes[::-1, ::-1].transpose(0, 1, 3, 2)
    after = _forward(np.ones(2), flipped)[::-1, ::-1].reshape(-1, 2)[:count]
    likelihood = float(np.log(np.einsum("ti,tij->t", before, steps)).sum())
    return before, after, likelihood


def _forward(start: Array, lanes: Array) -> Array:
    """Row vectors before each step, scaled to sum 1: shape (stretches, length, 2)."""
    stretches, length = lanes.shape[:2]
    products = np.empty_like(lanes)
    product = np.tile(np.eye(2), (stretches, 1, 1))
    for step in range(length):
        products[:, step] = product
        product = product @ lanes[:, step]
        product /= product.sum(axis=(1, 2), keepdims=True)
    starts, row = np.empty((stretches, 2)), start / start.sum()
    for stretch in range(stretches):
        starts[stretch] = row
        row = row @ product[stretch]
        row = row / row.sum()
    rows = np.einsum("si,slij->slj", starts, products)
    return np.asarray(rows / rows.sum(axis=-1, keepdims=True))
