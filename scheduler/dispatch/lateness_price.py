"""What a late answer weighs against money, so that a percentile is a budget which is spent where it buys most."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from scheduler.domain.plans import ServiceClass

SAFETY = 0.9
"""Part of the allowed lateness that is aimed at: forecasts are never quite right, and rarely too dark."""
GAIN = 0.07
"""How far one late answer moves the logarithm of the weight."""
FIRST_WEIGHT = 4.0
BRACED_WEIGHT = 12.0
EXCEEDED = 3.0
"""Late answers more than allowed at which a plan is not obeyed any more: a few, who share a batch, may be chance."""
MOST_SAVED, MOST_OVERDRAWN = 20.0, 40.0
"""Bounds of what is remembered of good and of bad times, in late answers."""
LEAST_WEIGHT = 0.8
MOST_WEIGHT = 150.0


@dataclass(slots=True)
class SloBudget:
    """One class's objective as a price.

    Every decision weighs money against expected lateness. The weight of a late answer, in requests served by the
    cheapest function batch, is the multiplier of the constraint 'at most 1 - percentile are late': it rises while more
    are late than allowed and falls while fewer are (dual ascent), so that in the end just as many are late as may be,
    where being in time would have been dearest.
    """

    percentile: float
    log_multiplier: float = math.log(FIRST_WEIGHT)
    overdraft: float = 0.0
    """Late answers more than allowed; below 0, fewer."""

    @property
    def weight(self) -> float:
        """What a late answer weighs, in the cheapest requests."""
        return math.exp(self.log_multiplier)

    def brace(self) -> None:
        """Takes lateness seriously again: what was saved up in quiet times is not spent at once when things change."""
        self.log_multiplier = max(self.log_multiplier, math.log(BRACED_WEIGHT))

    def spend(self, late: bool) -> None:
        """Notes an answer."""
        more = late - SAFETY * (1.0 - self.percentile)
        self.overdraft = min(max(self.overdraft + more, -MOST_SAVED), MOST_OVERDRAWN)
        moved = self.log_multiplier + GAIN * more
        self.log_multiplier = min(max(moved, math.log(LEAST_WEIGHT)), math.log(MOST_WEIGHT))


@dataclass(slots=True)
class LatenessPrice:
    """The weights of a queues's classes, and what follows from them together with the service tables."""

    budgets: dict[str, SloBudget] = field(default_factory=dict)
    unit_cost: float = 0.0
    """Money for a request in the cheapest function batch; 0 without functions."""
    spill_cost: float = 0.0
    """Money, lateness included, of a fresh request that is spilled."""
    seconds_worth: float = 0.0
    """What the edge's seconds for one item would save elsewhere."""
    cut_cost: float = 0.0
    """What it costs to cut a fresh request off an edge batch: most of its place is used by others later."""
    edge_percentile: float = 0.99
    """With this probability the member of an edge batch whose deadline binds shall be in time."""

    def adopt(self, classes: tuple[ServiceClass, ...]) -> None:
        """Follows a plan's classes; what is known of those that stay is kept."""
        self.budgets = {
            c.name: known
            if (known := self.budgets.get(c.name)) is not None and known.percentile == c.percentile
            else SloBudget(c.percentile)
            for c in classes
        }

    def brace(self) -> None:
        """Takes every class's lateness seriously again, as after a change."""
        for budget in self.budgets.values():
            budget.brace()

    def late_cost(self, class_name: str) -> float:
        """Returns the money that one late answer of this class is worth avoiding."""
        budget = self.budgets.get(class_name)
        return self.unit_cost * (FIRST_WEIGHT if budget is None else budget.weight)

    def exceeded(self, class_names: Iterable[str]) -> bool:
        """Whether one of these classes has had more late answers than it may."""
        budgets = (self.budgets.get(name) for name in class_names)
        return any(budget is not None and budget.overdraft > EXCEEDED for budget in budgets)

    def observe(self, class_name: str, late: bool) -> None:
        """Notes that a request of this class was answered."""
        budget = self.budgets.get(class_name)
        if budget is not None:
            budget.spend(late)

    def highest_late_cost(self, class_names: Iterable[str]) -> float:
        """Returns the same for that of these classes which minds most."""
        return max(map(self.late_cost, class_names), default=self.unit_cost * FIRST_WEIGHT)
