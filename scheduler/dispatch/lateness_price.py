"""What a late answer costs against money: a percentile is a budget of lateness, spent where it buys most."""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from scheduler.dispatch.slo_budget import EXCEEDED, FIRST_MULTIPLIER, SloBudget
from scheduler.domain.plans import ClassOutlook, ServiceClass
from scheduler.domain.statistics import BudgetStatistics

LIKELY_LATE = 0.9
"""Probability of being late above which a function batch is not made to save money, however little lateness weighs: its
members would be late on purpose, and paid for all the same. Judgement: with 0.5 the row of
little load in the noise suite costs a tenth more; with 0.98 it is the same."""
LEAST_IF_LIKELY = 2.0
"""Least multiplier there: more than a request of its own costs."""
HOPELESS = 0.5
"""Share in time that a plan expects of a class below which it is no reason to pay, or to hurry others. Judgement: one
that misses its percentile by little is worth all effort, one of which hardly any request is in time is worth none; the
simulated classes are either near 1 or at 0."""


def multiplier_at(multiplier: float, late: float) -> float:
    """Returns the multiplier for a function batch that is late with this probability."""
    return max(multiplier, LEAST_IF_LIKELY) if late > LIKELY_LATE else multiplier


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
    hopeless: frozenset[str] = frozenset()
    """Classes that cannot be kept."""

    def adopt(
        self, classes: tuple[ServiceClass, ...], spill_fraction: float, outlooks: Iterable[ClassOutlook] = ()
    ) -> None:
        """Follows a plan's classes; the budget of a class that stays as it is is kept.

        Args:
            classes: of the model.
            spill_fraction: that the plan expects.
            outlooks: what it expects of each class.
        """
        self.hopeless = frozenset(o.name for o in outlooks if not o.feasible and o.expected_within_slo < HOPELESS)
        self.budgets = {
            c.name: known
            if (known := self.budgets.get(c.name)) is not None
            and (known.percentile, known.spends) == (c.percentile, c.spends)
            else SloBudget(c.percentile, c.spends)
            for c in classes
        }
        for name, budget in self.budgets.items():
            budget.expect(spill_fraction)
            budget.follow(feasible=name not in self.hopeless)

    def share(self, other: "LatenessPrice") -> None:
        """Has its budgets in common with another lane of the model."""
        self.budgets, self.hopeless = other.budgets, other.hopeless

    def reprice(self, prices: Prices) -> None:
        """Takes over new prices."""
        self.prices = prices

    def raise_caution(self) -> None:
        """Forgets what the classes have saved, as after a change."""
        for budget in self.budgets.values():
            budget.raise_caution()

    @property
    def log_multiplier(self) -> float:
        """The highest of all classes that can be kept, or of all; 0 without classes."""
        if self.hopeless:
            return max([self.budgets[name].log_multiplier for name in self.that_count(self.budgets)], default=0.0)
        highest = -math.inf
        for budget in self.budgets.values():
            if budget.log_multiplier > highest:
                highest = budget.log_multiplier
        return highest if highest > -math.inf else 0.0

    def multiplier(self, class_name: str) -> float:
        """Returns the multiplier of a class; that of a new budget for a class that is not known."""
        budget = self.budgets.get(class_name)
        return FIRST_MULTIPLIER if budget is None else budget.multiplier

    def late_cost(self, class_name: str) -> float:
        """Returns the price of one late answer of this class, in money."""
        budget = self.budgets.get(class_name)
        return self.prices.unit_cost * (FIRST_MULTIPLIER if budget is None else budget.multiplier)

    def late_cost_at(self, class_name: str, late: float) -> float:
        """Returns the price of one late answer of a function, in money, where it is late with this probability."""
        budget = self.budgets.get(class_name)
        multiplier = FIRST_MULTIPLIER if budget is None else budget.multiplier
        if late > LIKELY_LATE and multiplier < LEAST_IF_LIKELY:
            multiplier = LEAST_IF_LIKELY
        return self.prices.unit_cost * multiplier

    def highest_multiplier(self, class_names: Collection[str]) -> float:
        """Returns the highest multiplier among these classes: among those that count."""
        return max(map(self.multiplier, self.that_count(class_names)), default=FIRST_MULTIPLIER)

    def that_count(self, class_names: Collection[str]) -> Collection[str]:
        """Returns those of these classes that can be kept, for whose sake others are hurried; all if none can."""
        hopeless = self.hopeless
        if not hopeless:
            return class_names
        return [name for name in class_names if name not in hopeless] or class_names

    def highest_late_cost(self, class_names: Collection[str]) -> float:
        """Returns the highest price of a late answer among these classes, in money."""
        return self.prices.unit_cost * self.highest_multiplier(class_names)

    def exceeded(self, class_names: Iterable[str]) -> bool:
        """Whether one of these classes has missed its objective more often than it may."""
        budgets = (self.budgets.get(name) for name in class_names)
        return any(budget is not None and budget.balance < EXCEEDED for budget in budgets)

    def figures(self, model: str) -> list[BudgetStatistics]:
        """Returns the budget of each class, as the engine's statistics show it."""
        return [
            BudgetStatistics(model, name, b.balance, b.multiplier, b.missed_on_purpose, b.saved)
            for name, b in self.budgets.items()
        ]

    def affords_miss(self, class_name: str) -> bool:
        """Whether the class may spend a miss on purpose now: only what it has saved."""
        budget = self.budgets.get(class_name)
        return budget is not None and budget.balance > 0.0 and self.prices.unit_cost > 0.0

    def spend(self, class_name: str, *, saved: float, now_s: float) -> None:
        """Counts a miss on purpose, and the money that it saves."""
        budget = self.budgets.get(class_name)
        if budget is not None:
            budget.spend(saved=saved, now_s=now_s)

    def count(self, class_name: str, *, missed: bool, now_s: float) -> None:
        """Counts the end of a request of this class that some side could have answered in time when it arrived."""
        budget = self.budgets.get(class_name)
        if budget is not None:
            budget.count(missed=missed, now_s=now_s)
