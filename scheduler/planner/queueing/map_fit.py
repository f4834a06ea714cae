"""Arrival processes fitted to observations: to timestamps by likelihood, to the daemon's estimates by moments."""

import math
from dataclasses import dataclass

import numpy as np

from scheduler.planner.queueing.map_process import ArrivalError, MarkovianArrivals, markovian, mmpp2, poisson_arrivals
from scheduler.planner.queueing.matrices import Array

MAX_GAPS = 200_000
"""Gaps that are fitted, the newest ones: they bound work and memory."""
_MIN_GAPS = 20
"""Fewest gaps that are fitted. Judgement: the standard error of a rate is 22 % then; fewer gaps fix nothing."""
_FINEST = 1e-3
"""Smallest gap, as a part of the mean gap: recorded times have a resolution, and gaps of 0 would make the rate of a
phase infinite. Judgement: a fit does not depend on it while bursts are less than a thousand times as fast as the mean.
"""
_WINDOWS = (8, 64, 512)
"""Numbers of gaps over which local rates are averaged for first guesses. Judgement: bursts of a few to some hundred
arrivals each start near one of them; the likelihood chooses."""
_TRIALS = 8
"""Rounds from each first guess before the best is continued. Judgement: after a few rounds the best guess leads
clearly; more rounds cost time for guesses that are dropped."""
_MAX_ROUNDS = 60
"""Largest number of rounds. Judgement: a fit usually stops earlier by `_ENOUGH`; this bounds the time of the others."""
_ENOUGH = 1e-2
"""Gain of the log-likelihood in one round below which the fit stops. BIC asks for a gain of 4.5 (with 20 gaps) to 18
(with 200,000) before it prefers two phases, so a hundredth decides nothing."""
_PARAMETERS_MORE = 3
"""Parameters of a two-phase process beyond those of Poisson."""
_PLAIN = 0.02
"""Excess of the index of dispersion over 1 that still counts as Poisson. Judgement: the daemon's estimate scatters by
more (its prior weighs 20 of 200 pairs), and the plan of either process is the same."""
_BURST_TICKS = 1.892618
"""The x that maximises (2 g(x) - g(2 x)) / x with g(x) = 1 - (1 - e^-x) / x; see `refit`."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted process.

    Attributes:
        process: the process.
        log_likelihood: natural logarithm of the likelihood of the gaps under it.
        gaps: number of gaps.
    """

    process: MarkovianArrivals
    log_likelihood: float
    gaps: int


def fit_arrivals(gaps_s: Array) -> Fit:
    """Returns a Poisson or a two-phase process, whichever Schwarz's criterion (BIC, 1978) prefers.

    Args:
        gaps_s: seconds between arrivals, shape (gaps,), at least 20; the newest 200,000 count.

    Raises:
        ArrivalError: there are too few gaps, or some are negative or not finite.
    """
    plain, bursty = fit_poisson(gaps_s), fit_mmpp2(gaps_s)
    penalty = 0.5 * _PARAMETERS_MORE * math.log(plain.gaps)
    return bursty if bursty.log_likelihood - penalty > plain.log_likelihood else plain


def fit_poisson(gaps_s: Array) -> Fit:
    """Returns the Poisson process with the mean rate, which has the largest likelihood."""
    gaps_s = _checked(gaps_s)
    rate_rps = len(gaps_s) / float(gaps_s.sum())
    return Fit(poisson_arrivals(rate_rps), len(gaps_s) * (math.log(rate_rps) - 1), len(gaps_s))


def fit_mmpp2(gaps_s: Array) -> Fit:
    """Returns the two-phase Markov-modulated Poisson process of largest likelihood.

    Expectation-maximisation starts from three first guesses and continues the best of them. A round is linear in the
    number of gaps.

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
    """Returns the process to plan with, from the daemon's estimates.

    The daemon's index of dispersion compares neighbouring counts: E[(x - y)^2 / (x + y)]. Let the rate of a process
    have the relative variance v and forget its past at the rate r. Then the index is 1 + 2 rate v tick (2 g(x) - g(2
    x)) / x with x = r tick and g(x) = 1 - (1 - e^-x) / x. Two numbers do not determine four parameters. So the process
    is the one whose r needs the least variance, with phases of equal length. If its rates had to vary by more than
    their mean, one phase has no arrivals, and the phases have different lengths.

    Args:
        rate_rps: mean arrivals a second, above 0.
        dispersion: index of dispersion, 1 for Poisson; below 1 counts as Poisson.
        tick_s: length of the intervals that were counted, above 0.

    The maximum of the fraction is 0.1906. So an index of 2 at 4 arrivals in a tick needs v = 1 / (2 * 4 * 0.1906) =
    0.656, and the rates are 16 (1 -+ 0.81) arrivals a second. An index of 3 needs v = 1.31, so one phase has no
    arrivals; the other one takes 1 / 2.31 of the time, at 16 * 2.31 arrivals a second:

    >>> refit(rate_rps=16.0, dispersion=2.0, tick_s=0.25).matrices()[1].diagonal().round(1).tolist()
    [3.0, 29.0]
    >>> refit(rate_rps=16.0, dispersion=3.0, tick_s=0.25).matrices()[1].diagonal().round(1).tolist()
    [0.0, 37.0]
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
    """Returns 2 g(x) - g(2 x): the effect on two neighbouring counts of a rate that forgets x in one interval."""
    return 1 + 2 * math.expm1(-x) / x - math.expm1(-2 * x) / (2 * x)


def _checked(gaps_s: Array) -> Array:
    gaps_s = np.asarray(gaps_s, dtype=np.float64)[-MAX_GAPS:]
    if len(gaps_s) < _MIN_GAPS:
        raise ArrivalError(f"gaps_s must hold at least {_MIN_GAPS} gaps to fit a process, not {len(gaps_s)}")
    if not (np.isfinite(gaps_s).all() and (gaps_s >= 0).all() and gaps_s.sum() > 0):
        raise ArrivalError("gaps_s must be finite, at least 0, and not all 0")
    # Gaps of 0 would make the rate of a phase grow without bound.
    return np.asarray(np.maximum(gaps_s, _FINEST * gaps_s.mean()))


def _guess(gaps_s: Array, window: int) -> MarkovianArrivals:
    """Returns a first guess: a fast and a slow phase by the local rate, and the mean length of their runs."""
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
    """Returns the process after one round of expectation-maximisation, and the log-likelihood before it."""
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
    """Returns the eigenvalues (real), eigenvectors and their inverse of a 2 x 2 matrix with positive off-diagonals."""
    values, vectors = np.linalg.eig(d0)
    return values.real, vectors.real, np.linalg.inv(vectors.real)


def _between(values: Array, decay: Array, gaps_s: Array) -> Array:
    """Returns integrals of e^(a s) e^(b (x - s)) over a gap x for all pairs of eigenvalues a, b, shape (gaps, 2, 2)."""
    result = np.empty((len(gaps_s), 2, 2))
    result[:, 0, 0], result[:, 1, 1] = gaps_s * decay[:, 0], gaps_s * decay[:, 1]
    apart = values[0] - values[1]
    # The larger exponential is a factor, so that the difference of nearly equal ones keeps its digits.
    mixed = decay.max(axis=1) * -np.expm1(-abs(apart) * gaps_s) / abs(apart)
    result[:, 0, 1] = result[:, 1, 0] = mixed
    return result


def _passes(start: Array, steps: Array) -> tuple[Array, Array, float]:
    """Computes the forward and the backward pass over the gaps.

    The gaps are cut into stretches. The products of all stretches are formed side by side and then joined, so that the
    number of steps in Python is the square root of the number of gaps.

    Returns:
        Phase distribution before each gap given the past, shape (gaps, 2); likelihood of the rest after each gap by
        phase, shape (gaps, 2), both scaled; log-likelihood of all gaps.
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
    """Returns the row vectors before each step, scaled to a sum of 1, shape (stretches, length, 2)."""
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
