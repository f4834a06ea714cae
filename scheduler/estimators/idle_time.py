"""The idle time after which the platform takes an instance away."""

import math
from bisect import bisect_right
from collections import deque

import numpy as np
import numpy.typing as npt

from scheduler.domain.memory import entries, finite, finites, rows

MIN_IDLE_S = 5.0
"""Shortest idle time that is distinguished. Judgement: no platform takes an instance away within 5 s."""
MAX_IDLE_S = 6 * 3600.0
"""Longest; a mass beyond it stands for "never". Judgement: no platform is known to keep an instance for 6 h."""
BINS = 128
"""Bins of the logarithm of idle time between both ends: each is 7 % of its time wide."""
NEVER = 0.02
"""Prior probability that instances are never taken away, as provisioned ones are. Judgement: a few warm starts after
long gaps raise it; a larger prior would delay warming calls at the start."""
PRIOR_SIGMA = 0.35
"""Prior scatter of the logarithm of seconds. The provider says "usually 3 to 5 minutes", and this puts 68 % between 170
and 340 s around a median of 240 s."""
PRIOR_WEIGHT = 0.3
"""Observations that the prior counts as. Judgement: few, since idle times vary less on one platform than between
platforms; with 1 the first answers would move the estimate half as much."""
REMEMBERED = 64
"""Informative outcomes that are remembered. Judgement: half as many scatter more, twice as many follow a change of the
platform half as fast."""
UNINFORMATIVE = 0.98
"""Probability of an outcome above which it teaches nothing; remembering it would displace outcomes that do."""
ROUNDS = 5
"""Rounds of expectation and maximisation for each observation; they continue from the last estimate. Judgement: the
estimate is close to its fixed point after a few observations; more rounds cost time with every answer."""


class IdleTime:
    """Distribution of the idle time after which an instance is gone.

    Each batch tells about one gap whether an instance outlived it: after a warm start the time is longer than the gap,
    after a cold start it is shorter. From such censored observations the self-consistent estimate is the fixed point of
    "each observation spreads over the times that it allows, in proportion to their weights" (Turnbull 1976), here with
    a lognormal prior. It is a distribution and not one number, because platforms take some instances away earlier than
    others.

    Args:
        prior_s: prior median, seconds.

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
        self._edge_logs: list[float] = self._log_edges.tolist()
        self._allowed: deque[npt.NDArray[np.float64]] = deque(maxlen=REMEMBERED)
        self._outcomes: deque[tuple[float, bool]] = deque(maxlen=REMEMBERED)
        """Gaps, and whether the instance was still there: what is allowed follows from them."""
        self._tabulate()

    def update(self, gap_s: float, *, stayed_warm: bool) -> None:
        """Learns whether an instance was still there after an idle time of `gap_s`."""
        survives = self.survives(gap_s)
        if (survives if stayed_warm else 1.0 - survives) >= UNINFORMATIVE:
            return
        self._note(gap_s, stayed_warm=stayed_warm)
        allowed = np.array(self._allowed)
        for _ in range(ROUNDS):
            spread = allowed * self._mass
            spread /= spread.sum(axis=1, keepdims=True)
            weights = PRIOR_WEIGHT * self._prior + spread.sum(axis=0)
            self._mass = weights / weights.sum()
        self._tabulate()

    def _note(self, gap_s: float, *, stayed_warm: bool) -> None:
        above = self._part_above(gap_s)
        self._allowed.append(above if stayed_warm else 1.0 - above)
        self._outcomes.append((gap_s, stayed_warm))

    def snapshot(self) -> dict[str, object]:
        """Returns what is known, for `restored`."""
        return {"outcomes": [[gap_s, float(stayed)] for gap_s, stayed in self._outcomes], "mass": self._mass.tolist()}

    def restored(self, content: object) -> "IdleTime":
        """Returns the distribution that a snapshot knew: platforms change it seldom, and outcomes soon outweigh it.

        Raises:
            KeyError, TypeError, ValueError: the content is no snapshot.
        """
        given, known = entries(content), IdleTime(prior_s=self._prior_s)
        mass = np.array(finites(given["mass"]))
        if mass.shape != known._mass.shape or mass.min() < 0 or not mass.sum() > 0:
            raise ValueError("a snapshot of other bins")
        for outcome in rows(given["outcomes"]):
            gap_s, stayed = (finite(item) for item in rows(outcome))
            known._note(gap_s, stayed_warm=stayed > 0)
        known._mass = mass / mass.sum()
        known._tabulate()
        return known

    def survives(self, gap_s: float) -> float:
        """Returns the probability that an instance that has been idle for `gap_s` is still there."""
        if gap_s <= MIN_IDLE_S:
            return 1.0
        log_gap, edges, survival = math.log(gap_s), self._edge_logs, self._survivals
        at = bisect_right(edges, log_gap) - 1
        if at >= BINS:
            return survival[-1]
        # As numpy.interp does it; for one value a search in a list is ten times as fast.
        slope = (survival[at + 1] - survival[at]) / (edges[at + 1] - edges[at])
        return slope * (log_gap - edges[at]) + survival[at]

    def outlived_s(self, percentile: float) -> float:
        """Returns the idle time that an instance outlives with this probability (in (0, 1))."""
        outlived_s = self._outlived_s.get(percentile)
        if outlived_s is None:
            outlived_s = float(np.interp(-percentile, -self._survival, self._edges_s))
            self._outlived_s[percentile] = outlived_s
        return outlived_s

    def refresh_s(self, *, call_cost: float, absence_cost_per_s: float) -> float:
        """Returns the idle time at which calling an instance to keep it costs least.

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
        """Computes the probability of outliving each edge, and the seconds gone before it, from the masses."""
        self._survival = np.minimum(np.cumsum(self._mass[::-1])[::-1], 1.0)
        self._survivals: list[float] = self._survival.tolist()
        self._outlived_s: dict[float, float] = {}
        gone = 1.0 - self._survival
        absent_s = np.cumsum(np.diff(self._edges_s) * (gone[1:] + gone[:-1]) / 2)
        self._absent_s = np.append(0.0, absent_s)

    def _part_above(self, gap_s: float) -> npt.NDArray[np.float64]:
        """Returns the part of each bin, and of "never", that is longer than the gap."""
        log_gap, edges = math.log(max(gap_s, MIN_IDLE_S)), self._log_edges
        part = np.clip((edges[1:] - log_gap) / np.diff(edges), 0.0, 1.0)
        # An outcome that contradicts all others is still possible: no observation may exclude every time.
        return np.append(np.clip(part, 1e-6, 1.0 - 1e-6), 1.0 - 1e-6)


def _normal_cdf(z: float) -> float:
    return 0.5 * (1.0 + math.erf(z / math.sqrt(2.0)))
