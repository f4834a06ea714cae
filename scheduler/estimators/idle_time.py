"""After how long without a request the platform takes an instance away."""

import math
from collections import deque

import numpy as np
import numpy.typing as npt

MIN_IDLE_S, MAX_IDLE_S = 5.0, 6 * 3600.0
"""Idle times looked at; a mass beyond the longest stands for "never"."""
BINS = 128
NEVER = 0.02
"""Prior probability that nothing is taken away, as from provisioned instances."""
PRIOR_SIGMA = 0.35
"""The provider says "usually 3 to 5 minutes": of log seconds, so that seven in ten lie between 170 and 340 s."""
PRIOR_WEIGHT = 0.3
"""Observations that the prior counts as: few, as idle times vary less on one platform than between platforms."""
REMEMBERED = 64
CERTAIN = 0.98
"""An outcome that was as probable as this teaches nothing, and would push out those that do."""
ROUNDS = 5
"""Rounds of expectation and maximisation for each observation; they go on from where the last ones ended."""


class IdleTime:
    """Distribution of the idle time after which an instance is gone.

    Each batch says of one gap whether an instance outlived it: a warm start that the time is longer, a cold start that
    it is shorter. From such censored observations the self-consistent estimate is the fixed point of "each observation
    spreads over the times that it allows, in proportion to what they weigh" (Turnbull 1976), here with a lognormal
    prior. It is a distribution and not one number, because platforms take some instances away earlier than others.

    Args:
        prior_s: median taken for granted before anything is seen.

    >>> idle = IdleTime(prior_s=240.0)
    >>> for gap_s in (100.0, 300.0, 500.0, 590.0, 610.0, 700.0) * 5:
    ...     idle.update(gap_s, stayed_warm=gap_s < 600.0)
    >>> idle.survives(560.0) > 0.9, idle.survives(660.0) < 0.1
    (True, True)
    >>> 500.0 < idle.refresh_s(call_cost=1.0, absence_cost_per_s=0.01) < 600.0
    True
    """

    def __init__(self, *, prior_s: float = 240.0) -> None:
        """Stores the parameter."""
        self._prior_s = prior_s
        self._reset()

    def _reset(self) -> None:
        self._log_edges = np.linspace(math.log(MIN_IDLE_S), math.log(MAX_IDLE_S), BINS + 1)
        below = [_normal_cdf((edge - math.log(self._prior_s)) / PRIOR_SIGMA) for edge in self._log_edges.tolist()]
        mass = np.diff([0.0, *below[1:-1], 1.0])
        self._prior: npt.NDArray[np.float64] = np.append(mass * (1.0 - NEVER), NEVER)
        self._mass = self._prior.copy()
        self._edges_s = np.exp(self._log_edges)
        self._allowed: deque[npt.NDArray[np.float64]] = deque(maxlen=REMEMBERED)
        self._tabulate()

    def update(self, gap_s: float, *, stayed_warm: bool) -> None:
        """Learns whether an instance was still there after so many idle seconds."""
        survives = self.survives(gap_s)
        if (survives if stayed_warm else 1.0 - survives) >= CERTAIN:
            return
        above = self._part_above(gap_s)
        self._allowed.append(above if stayed_warm else 1.0 - above)
        allowed = np.array(self._allowed)
        for _ in range(ROUNDS):
            spread = allowed * self._mass
            spread /= spread.sum(axis=1, keepdims=True)
            weights = PRIOR_WEIGHT * self._prior + spread.sum(axis=0)
            self._mass = weights / weights.sum()
        self._tabulate()

    def survives(self, gap_s: float) -> float:
        """Returns the probability that an instance that has been idle for `gap_s` is still there."""
        if gap_s <= MIN_IDLE_S:
            return 1.0
        return float(np.interp(math.log(gap_s), self._log_edges, self._survival))

    def refresh_s(self, *, call_cost: float, absence_cost_per_s: float) -> float:
        """Returns the idle time at which an instance is best called to keep it: often enough, and not too often.

        Args:
            call_cost: money for the call.
            absence_cost_per_s: money that each second without the instance costs.
        """
        cost_per_s = (call_cost + absence_cost_per_s * self._absent_s) / self._edges_s
        return float(self._edges_s[np.argmin(cost_per_s)])

    def absent_s(self, gap_s: float) -> float:
        """Returns the expected seconds of a gap during which the instance is gone."""
        return float(np.interp(gap_s, self._edges_s, self._absent_s))

    def _tabulate(self) -> None:
        """Takes from the masses the probability to outlive each edge, and the seconds gone before it."""
        self._survival = np.minimum(np.cumsum(self._mass[::-1])[::-1], 1.0)
        gone = 1.0 - self._survival
        absent_s = np.cumsum(np.diff(self._edges_s) * (gone[1:] + gone[:-1]) / 2)
        self._absent_s = np.append(0.0, absent_s)

    def _part_above(self, gap_s: float) -> npt.NDArray[np.float64]:
        """Of each bin, and of "never", the part that is longer than the gap."""
        log_gap, edges = math.log(max(gap_s, MIN_IDLE_S)), self._log_edges
        part = np.clip((edges[1:] - log_gap) / np.diff(edges), 0.0, 1.0)
        # What contradicts everything else is possible all the same: no observation may allow nothing.
        return np.append(np.clip(part, 1e-6, 1.0 - 1e-6), 1.0 - 1e-6)


def _normal_cdf(z: float) -> float:
    return 0.5 * (1.0 + math.erf(z / math.sqrt(2.0)))
