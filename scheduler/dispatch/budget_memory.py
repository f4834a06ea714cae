"""The SLO budgets of classes, for the next process: what a late answer costs is learned from late answers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.slo_budget import FIRST_MULTIPLIER
from scheduler.domain.memory import Remembered, entries, finites, part_known

VERSION = 2


@dataclass(slots=True)
class BudgetMemory:
    """Budgets of an earlier process, until the queues of their models are there."""

    waiting: dict[str, dict[str, tuple[float, float, float, float]]] = field(default_factory=dict)
    """By model and class: percentile, balance, logarithm of the base multiplier, ends that earn credit."""

    def part(self, all_queues: Mapping[str, ModelQueues]) -> Remembered:
        """Returns the budgets as a part of what is remembered."""

        def snapshot(now_s: float) -> object:  # noqa: ARG001
            return {
                model: {
                    name: [budget.percentile, budget.balance, budget.log_base, budget.counted]
                    for name, budget in queues.lateness.budgets.items()
                }
                for model, queues in all_queues.items()
            }

        def restore(content: object, age_s: float, now_s: float) -> None:  # noqa: ARG001
            kept, first = part_known(age_s), math.log(FIRST_MULTIPLIER)
            found: dict[str, dict[str, tuple[float, float, float, float]]] = {}
            for model, classes in entries(content).items():
                for name, values in entries(classes).items():
                    percentile, balance, log_base, counted = finites(values)
                    moved = first + kept * (log_base - first)
                    found.setdefault(model, {})[name] = percentile, kept * balance, moved, kept * counted
            self.waiting = found

        return Remembered("budgets", VERSION, "", snapshot, restore)

    def take_up(self, all_queues: Mapping[str, ModelQueues]) -> None:
        """Gives each class its budget back, where its percentile is the same; once for each model."""
        for model in [model for model in self.waiting if model in all_queues]:
            for name, (percentile, balance, log_base, counted) in self.waiting.pop(model).items():
                budget = all_queues[model].lateness.budgets.get(name)
                if budget is not None and budget.percentile == percentile:
                    budget.resume(balance=balance, log_base=log_base, counted=counted)
