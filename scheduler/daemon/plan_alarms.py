"""Service classes whose percentile the present plan cannot keep, as log lines."""

import logging
from collections.abc import Mapping, Sequence

from scheduler.daemon.logs import log
from scheduler.domain.plans import ModelSettings, Plan


class PlanAlarms:
    """The classes that the last plan cannot serve; writes a line when a class becomes one of them or ceases to be.

    >>> PlanAlarms().infeasible
    {}
    """

    def __init__(self) -> None:
        """Starts without a plan."""
        self.infeasible: Mapping[tuple[str, str], str] = {}
        """The reason by model and class."""

    def adopted(self, plan: Plan, models: Sequence[ModelSettings] = ()) -> None:
        """Takes over a plan's infeasible classes and logs what has changed.

        Args:
            plan: the plan.
            models: settings; of a model without a place as yet, because the edge is to be measured, nothing is said.
        """
        unplaced = {model.name for model in models if model.edge_latency is None and not model.tiers}
        found = {key: reason for key, reason in _infeasible(plan).items() if key[0] not in unplaced}
        before, self.infeasible = self.infeasible, found
        for (model, name), reason in self.infeasible.items():
            if (model, name) not in before:
                log(logging.WARNING, "plan_infeasible", plan_id=plan.plan_id, model=model, slo_class=name, why=reason)
        for model, name in before:
            if (model, name) not in self.infeasible:
                log(logging.INFO, "plan_feasible_again", plan_id=plan.plan_id, model=model, slo_class=name)


def _infeasible(plan: Plan) -> dict[tuple[str, str], str]:
    return {
        (group.model, each.name): each.reason for group in plan.groups for each in group.outlooks if not each.feasible
    }
