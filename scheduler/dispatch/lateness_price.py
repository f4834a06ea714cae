"""What a late answer costs against money: a percentile is a budget of lateness, spent where it buys most."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from scheduler.domain.plans import ServiceClass

SAFETY = 0.9
"""Part of the allowed lateness that is aimed at: forecasts are never quite right, and rarely too pessimistic.
Judgement: in simulations of 3,000 requests halving it changes cost by +2.3 % (in time +0.3 points), 0.95 within
noise."""
GAIN = 0.07
"""By how much one late answer raises the logarithm of the multiplier. Judgement: in simulations of 3,000 requests
halving it changes cost by +0.7 % (in time +0.3 points), doubling it within noise."""
FIRST_MULTIPLIER = 4.0
"""Multiplier before any answer. Judgement: in simulations of 3,000 requests halving it changes cost by -1.4 % (in time
-0.1 points), doubling it by +3.0 % (+0.4 points)."""
CAUTION_FLOOR = 12.0
"""Least multiplier after a change: what was saved in quiet times is not spent at once. Judgement: halved or doubled,
cost and lateness stay within noise."""
EXCEEDED = 3.0
"""Late answers more than allowed at which a plan is not followed any more: a few, that share a batch, may be chance.
Judgement: it concerns fixed plans, which the simulations of scripts.sensitivity lack."""
MAX_SAVED = 20.0
"""Most that is remembered of good times, in late answers. Judgement: as for EXCEEDED."""
MAX_OVERDRAWN = 40.0
"""Most that is remembered of bad times, in late answers. Judgement: as for EXCEEDED."""
MIN_MULTIPLIER = 0.8
"""Least multiplier: 23 late answers, ln(4 / 0.8) / GAIN, bring it back to the first one. At a percentile of 0.99 it
takes 2,600 answers in time to get there. Judgement: in simulations of 3,000 requests cost stays within 0.05 % between
0.4 and 1.6."""
MAX_MULTIPLIER = 150.0
"""Largest multiplier. Judgement: in simulations of 3,000 requests halving it changes cost by +1.0 % (in time +0.3
points), doubling it by +1.1 %."""
MIN_LOG_MULTIPLIER, MAX_LOG_MULTIPLIER = math.log(MIN_MULTIPLIER), math.log(MAX_MULTIPLIER)


@dataclass(slots=True)
class SloBudget:
    """One class's objective as a price.

    Every decision compares money plus expected lateness times its price. The price of a late answer is a multiplier
    times the money of a request in the cheapest function batch. The multiplier is that of the constraint 'at most
    1 - percentile are late': it rises while more are late than allowed and falls while fewer are (dual ascent), so
    that in the end just as many are late as may be, where being in time would have been dearest.

    >>> budget = SloBudget(percentile=0.99)
    >>> budget.record(late=True)
    >>> round(budget.multiplier, 3), round(budget.overdraft, 3)
    (4.287, 0.991)
    """

    percentile: float
    log_multiplier: float = math.log(FIRST_MULTIPLIER)
    multiplier: float = FIRST_MULTIPLIER
    """Price of a late answer, in requests served by the cheapest function batch."""
    overdraft: float = 0.0
    """Late answers more than allowed; below 0, fewer."""

    def raise_caution(self) -> None:
        """Raises the multiplier to its floor after a change."""
        self._move_to(max(self.log_multiplier, math.log(CAUTION_FLOOR)))

    def record(self, late: bool) -> None:
        """Counts an answer."""
        more = late - SAFETY * (1.0 - self.percentile)
        self.overdraft = min(max(self.overdraft + more, -MAX_SAVED), MAX_OVERDRAWN)
        self._move_to(min(max(self.log_multiplier + GAIN * more, MIN_LOG_MULTIPLIER), MAX_LOG_MULTIPLIER))

    def resume(self, log_multiplier: float, overdraft: float) -> None:
        """Goes on from where an earlier process was, within the bounds."""
        self.overdraft = min(max(overdraft, -MAX_SAVED), MAX_OVERDRAWN)
        self._move_to(min(max(log_multiplier, MIN_LOG_MULTIPLIER), MAX_LOG_MULTIPLIER))

    def _move_to(self, log_multiplier: float) -> None:
        self.log_multiplier, self.multiplier = log_multiplier, math.exp(log_multiplier)


@dataclass(frozen=True, slots=True)
class Prices:
    """What follows from service tables, rate and budgets for one model; made anew when one of them has moved enough."""

    unit_cost: float = 0.0
    """Money for a request in the cheapest function batch; 0 without functions."""
    spill_cost: float = 0.0
    """Money, lateness included, of a fresh request that goes to a function."""
    seconds_worth: float = 0.0
    """What the edge's seconds for one item would save elsewhere."""
    risk_leverage: float = 1.0
    """Factor on the risk that a request brings to an edge batch. A saturated edge would use the request's seconds for
    others anyway, so that its place there saves only the rest, for the whole of the risk."""
    cut_cost: float = 0.0
    """What it costs to cut a fresh request off an edge batch: most of its place is used by others later."""
    min_money: float = 0.0
    """Money below which no function serves an item: an offer of the edge that costs less needs no comparison."""
    edge_percentile: float = 0.99
    """With this probability the first member of an edge batch, whose deadline binds, shall be in time."""


@dataclass(frozen=True, slots=True)
class BufferPrices:
    """What follows for one function buffer."""

    costs: tuple[float, ...] = ()
    """Money for a batch of 0, 1, 2, ... items."""
    cheapest_size: int = 1
    """Items at which a batch is cheapest per request, lateness included."""
    spill_cost: float = 0.0
    """Money, lateness included, of a fresh request in such a batch."""


@dataclass(slots=True)
class LatenessPrice:
    """The budgets of a model's classes, and the prices that are in force."""

    budgets: dict[str, SloBudget] = field(default_factory=dict)
    prices: Prices = Prices()

    def adopt(self, classes: tuple[ServiceClass, ...]) -> None:
        """Follows a plan's classes; the budget of a class that stays as it is is kept."""
        self.budgets = {
            c.name: known
            if (known := self.budgets.get(c.name)) is not None and known.percentile == c.percentile
            else SloBudget(c.percentile)
            for c in classes
        }

    def share(self, other: "LatenessPrice") -> None:
        """Has its budgets in common with another lane of the model."""
        self.budgets = other.budgets

    def reprice(self, prices: Prices) -> None:
        """Takes over new prices."""
        self.prices = prices

    def raise_caution(self) -> None:
        """Raises the multiplier of every class to its floor, as after a change."""
        for budget in self.budgets.values():
            budget.raise_caution()

    @property
    def log_multiplier(self) -> float:
        """The highest of all classes; 0 without classes."""
        return max([budget.log_multiplier for budget in self.budgets.values()], default=0.0)

    def multiplier(self, class_name: str) -> float:
        """Returns the multiplier of a class; that of a new budget for a class that is not known."""
        budget = self.budgets.get(class_name)
        return FIRST_MULTIPLIER if budget is None else budget.multiplier

    def late_cost(self, class_name: str) -> float:
        """Returns the price of one late answer of this class, in money."""
        return self.prices.unit_cost * self.multiplier(class_name)

    def highest_multiplier(self, class_names: Iterable[str]) -> float:
        """Returns the highest multiplier among these classes."""
        return max(map(self.multiplier, class_names), default=FIRST_MULTIPLIER)

    def highest_late_cost(self, class_names: Iterable[str]) -> float:
        """Returns the highest price of a late answer among these classes, in money."""
        return self.prices.unit_cost * self.highest_multiplier(class_names)

    def exceeded(self, class_names: Iterable[str]) -> bool:
        """Whether one of these classes has had more late answers than it may."""
        budgets = (self.budgets.get(name) for name in class_names)
        return any(budget is not None and budget.overdraft > EXCEEDED for budget in budgets)

    def record(self, class_name: str, late: bool) -> None:
        """Counts an answer to a request of this class."""
        budget = self.budgets.get(class_name)
        if budget is not None:
            budget.record(late)
