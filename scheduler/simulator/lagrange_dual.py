"""The Lagrange dual of a least cost under a percentile: how much a late request must cost so that as few are late.

For a multiplier w let c(w) be the least mean cost of a request where each late one costs w more. Where a share of at
most s may be late, no policy costs less than c(w) - w s, whatever w is. This is concave in w; its largest value is the
limit, and the w where it lies is what one late request more would save.

Between multipliers that were tried, lines through two of them on either side bound what a concave function can still
reach. It is tried where these lines meet, until they promise little more than the largest value found.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Costs = Callable[[Sequence[float]], Floats]
"""Returns c(w) for each w, in units of the cheapest price of a request by function."""

_RATIO = 2.5
_COARSE = tuple(0.64 * _RATIO**k for k in range(-4, 4))
_FINE = (1 / 1.5, 1 / 1.15, 1.15, 1.5)
_BEYOND = (1.3, 1.7)
_HIGHEST = 1e6
_PROMISE = 0.02
"""Part of the largest value by which another may be larger. Smooth functions keep this with the first four values."""
_LEAST = 1e-3
"""The same in units of the cheapest price, where the values themselves are rounded."""
_ROUNDS = 8
"""Values that scatter could promise more for ever."""


def largest(costs: Costs, share: float, *, rough: Costs | None = None) -> tuple[float, float]:
    """Returns the largest value of c(w) - w x share, and its w; both are 0 if nothing is gained by lateness at cost 0.

    Args:
        costs: c(w), one call for several w because they may share work.
        share: the share of requests that may be late.
        rough: a cheaper approximation of c(w), for the search where the maximum lies.

    Returns:
        the value, and w; an infinite w if lateness cannot be kept down at any price.
    """
    guess = _about(costs if rough is None else rough, share)
    if guess == 0.0 or math.isinf(guess):
        return 0.0 if guess == 0.0 else math.inf, guess
    seen: dict[float, float] = {}
    wanted = [guess * factor for factor in _FINE]
    while True:
        seen.update(zip(wanted, _duals(costs, wanted, share).tolist(), strict=True))
        best = max(seen, key=lambda w: seen[w])
        if min(seen) < best < max(seen) or not _COARSE[0] / 2 < best < _HIGHEST:
            break
        wanted = [best * factor if best == max(seen) else best / factor for factor in _BEYOND]
    if seen[best] <= 0.0:
        return 0.0, 0.0
    if best >= _HIGHEST:
        return math.inf, math.inf
    for _ in range(_ROUNDS):
        wanted = _promising(seen, share)
        if not wanted:
            break
        seen.update(zip(wanted, _duals(costs, wanted, share).tolist(), strict=True))
    best = max(seen, key=lambda w: seen[w])
    return seen[best], best


def _promising(seen: Mapping[float, float], share: float) -> list[float]:
    """Returns the multipliers beside the best one where a concave function may be larger than is worth leaving."""
    tried = sorted(seen)
    best = tried.index(max(seen, key=lambda w: seen[w]))
    enough = seen[tried[best]] + max(_LEAST, _PROMISE * seen[tried[best]])
    found = []
    for left in (best - 1, best):
        if 0 <= left < len(tried) - 1:
            low, high = tried[left], tried[left + 1]
            # Its slopes are from 1 - share, where all are refused, down to -share, where none is late.
            rising = _slope(seen, tried[left - 1], low) if left else 1.0 - share
            falling = _slope(seen, high, tried[left + 2]) if left + 2 < len(tried) else -share
            if rising > falling:
                meet = (seen[high] - seen[low] + rising * low - falling * high) / (rising - falling)
                if low < meet < high and seen[low] + rising * (meet - low) > enough:
                    found.append(meet)
    return found


def _slope(seen: Mapping[float, float], low: float, high: float) -> float:
    return (seen[high] - seen[low]) / (high - low)


def _duals(costs: Costs, multipliers: Sequence[float], share: float) -> Floats:
    return costs(multipliers) - np.array(multipliers) * share


def _about(costs: Costs, share: float) -> float:
    """Returns the multiplier where the dual is about largest; 0 where it nowhere is above 0, infinite without end."""
    tried = list(_COARSE)
    duals = _duals(costs, tried, share)
    while (best := int(np.argmax(duals))) == len(tried) - 1:
        if tried[-1] > _HIGHEST:
            return math.inf
        tried = [w * tried[-2] / tried[0] for w in tried]
        duals = _duals(costs, tried, share)
    # It is concave and 0 at 0: where it is not above 0 at the least multiplier, it hardly is anywhere.
    if duals[best] <= 0.0:
        return 0.0
    if best == 0:
        return tried[0]
    low, middle, high = duals[best - 1 : best + 2].tolist()
    bend = low - 2.0 * middle + high
    return float(tried[best] * _RATIO ** (0.5 * (low - high) / bend if bend < 0 else 0.0))
