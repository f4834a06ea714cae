"""The SLO budget of one class as an account, whose balance says what a late answer costs."""

import math
from dataclasses import dataclass

SAFETY = 0.95
"""Part of the allowed misses that is paid in: forecasts are never quite right, and rarely too pessimistic. Judgement: a
little below 1, so that the share within stays above the percentile."""
SAFETY_SPENDING = 0.98
"""The same of a class that misses on purpose: it spends only what it has."""
SCALE = 100.0
"""Misses saved that let the multiplier fall e-fold. Judgement: in 20,000 requests of the Twitter trace with noise, mean
of three seeds, 20, 35, 60, 100 and 200 were tried: the fewer, the more the multiplier swings, and the dearer it gets
(1 s x 3: .274, .269, .267, .266, .266); the more, the later a quiet hour is used. At percentiles of 0.9 and 0.999, 20
to 300 cost the same within 2 %."""
SCALE_OVERDRAWN = 15.0
"""Misses overdrawn that let it grow e-fold: what was promised is earned again sooner than savings are spent. Judgement:
15, 25, 50 and 100 cost the same within noise; with 50 and more an edge outage leaves 4 to 9 % outside, with 15 1 to
2 %."""
FOLLOWS = 3000.0
"""Counted ends in which the base multiplier follows a balance of one SCALE e-fold: slower than the balance itself, so
that in the end as many miss as may. Judgement: 1,000, 2,000, 3,000 and 4,000 were tried; the faster, the more it
swings."""
FIRST_MULTIPLIER = 4.0
"""Base multiplier before any request has ended."""
UNHURRIED_BASE = 1.1
"""The same where the first plan with a measured rate spills no more than may miss, and of a class that spends.
Judgement: above the cheapest request, below most others."""
MIN_MULTIPLIER, MAX_MULTIPLIER = 0.3, 60.0
"""Bounds of the multiplier. Judgement: at 0.8 the row with little load costs as much; no row comes near 60."""
MAX_BASE = 20.0
"""Largest base multiplier; the least is that of the multiplier."""
MIN_LOG, MAX_LOG, MAX_LOG_BASE = math.log(MIN_MULTIPLIER), math.log(MAX_MULTIPLIER), math.log(MAX_BASE)
CAUTION = math.log(12.0)
"""Least logarithm of the multiplier after a change: what was learned before it says little."""
CAUTION_FADES = 0.002
"""By how much it falls with each end that is counted: after 1,250 the balance alone decides again."""
MOST_COUNTED = 10_000.0
"""Ends that earn credit: what would be allowed among so many is the most that can be saved."""
REMEMBERED_S = 24 * 3600.0
"""How long an end earns credit: the number of ends fades with this time constant."""
FADES_EVERY_S = 60.0
"""How often that is worked out. A bound of the work for each end."""
EXCEEDED = -3.0
"""Balance at which a plan is not followed any more: a few misses that share a batch may be chance. Judgement: it
concerns fixed plans, which the simulations of scripts.sensitivity lack."""


@dataclass(slots=True)
class SloBudget:
    """One class's objective as an account and a price.

    Every decision compares money plus expected lateness times its price. The price of a late answer is a multiplier
    times the money of a request in the cheapest function batch. Each request that ends pays in what its percentile
    allows, and takes out one if it missed its objective; the multiplier is that of the balance B,

        w = w0 exp(-B / SCALE), with SCALE_OVERDRAWN where B < 0,

    so that what was saved in quiet times is spent where being in time is dearest, and what was overdrawn is earned
    again. The balance is never shifted; it is bounded where the multiplier is, and by what MOST_COUNTED ends allow. The
    base w0 follows the balance slowly (integral control): a base that fits the traffic keeps the balance around 0.

    >>> budget = SloBudget(percentile=0.99)
    >>> budget.count(missed=True, now_s=0.0)
    >>> round(budget.balance, 4), round(budget.multiplier, 3)
    (-0.9905, 4.273)
    """

    percentile: float
    spends: bool = False
    """Whether the class may miss its objective on purpose."""
    feasible: bool = True
    """Whether the plan expects it to be in time at all: if not, its misses say nothing about where requests go."""
    balance: float = 0.0
    """Misses that are still allowed; below 0, misses more than allowed."""
    log_base: float = math.log(FIRST_MULTIPLIER)
    """Logarithm of w0."""
    counted: float = 0.0
    """Ends that earn credit: of the last day, at most MOST_COUNTED."""
    multiplier: float = FIRST_MULTIPLIER
    """Price of a late answer, in requests served by the cheapest function batch."""
    log_multiplier: float = math.log(FIRST_MULTIPLIER)
    caution: float = 0.0
    """Least logarithm of the multiplier for now; 0: none."""
    missed_on_purpose: int = 0
    """Requests that missed their objective on purpose, since the start."""
    saved: float = 0.0
    """Money that being in time would have cost them."""
    _based: bool = False
    """Whether the base has been set once, by a plan or by an earlier process."""
    _faded_at_s: float = -math.inf

    def __post_init__(self) -> None:
        """Starts without haste where misses are spent on purpose: only what was saved is spent."""
        if self.spends:
            self._move(math.log(UNHURRIED_BASE))

    def expect(self, spill_fraction: float) -> None:
        """Sets the base by the first plan whose rate was measured: low where all that is spilled might miss."""
        if not self._based and self.counted > 0.0:
            self._based = True
            if spill_fraction <= 1.0 - self.percentile:
                self._move(math.log(UNHURRIED_BASE))

    def follow(self, *, feasible: bool) -> None:
        """Follows what a plan says of its class: the multiplier of one that cannot be kept is the base."""
        if feasible is not self.feasible:
            self.feasible = feasible
            self._move(self.log_base)

    def raise_caution(self) -> None:
        """Forgets what was saved, as after a change, and takes lateness seriously until some ends tell how it goes."""
        self.balance, self.caution = min(self.balance, 0.0), CAUTION
        self._move(self.log_base)

    def count(self, *, missed: bool, now_s: float) -> None:
        """Counts the end of a request that some side could have answered in time when it arrived."""
        if now_s >= self._faded_at_s + FADES_EVERY_S:
            self.counted *= math.exp((self._faded_at_s - now_s) / REMEMBERED_S)
            self._faded_at_s = now_s
        self.counted = min(self.counted + 1.0, MOST_COUNTED)
        if self.caution > 0.0:
            self.caution -= CAUTION_FADES
        self.balance += (SAFETY_SPENDING if self.spends else SAFETY) * (1.0 - self.percentile) - missed
        self._move(self.log_base - self.balance / (SCALE * FOLLOWS) * self.feasible)

    def spend(self, *, saved: float, now_s: float) -> None:
        """Counts a miss on purpose, and the money that it saves."""
        self.missed_on_purpose += 1
        self.saved += saved
        self.count(missed=True, now_s=now_s)

    def resume(self, *, balance: float, log_base: float, counted: float) -> None:
        """Goes on from where an earlier process was, within the bounds."""
        self._based = True
        self.balance, self.counted = balance, min(max(counted, 0.0), MOST_COUNTED)
        self._move(log_base)

    def _move(self, log_base: float) -> None:
        """Sets the base, and with it the multiplier, within their bounds and those of the balance."""
        self.log_base = log_base = min(max(log_base, MIN_LOG), MAX_LOG_BASE)
        most = min(SCALE * (log_base - MIN_LOG), (1.0 - self.percentile) * self.counted)
        self.balance = balance = min(max(self.balance, SCALE_OVERDRAWN * (log_base - MAX_LOG)), most)
        self.log_multiplier = log_base
        if self.feasible:
            self.log_multiplier -= balance / (SCALE if balance > 0.0 else SCALE_OVERDRAWN)
        if self.feasible and self.caution > 0.0:
            self.log_multiplier = max(self.log_multiplier, self.caution)
        self.multiplier = math.exp(self.log_multiplier)
