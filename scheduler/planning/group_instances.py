"""Proposals of provisioned instances for the groups of a plan of applications."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from scheduler.planner.functions.problem import Application, FunctionGroup, PlanningProblem
from scheduler.planner.functions.provisioning import (
    BatchTraffic,
    InstancePrices,
    Upkeep,
    WarmProblem,
    cheapest,
    map_traffic,
    poisson_traffic,
)
from scheduler.planner.site.warm_instances import COLD_PART, START_SIGMA
from scheduler.planning.warm_instances import HOUR_S

START_S, KEPT_S = 3.0, 240.0
"""Seconds of a start, and idle seconds after which the platform removes an instance ("usually 3 to 5 minutes"), assumed
where nothing is known of the function."""
_MAX_INSTANCES = 1000


@dataclass(frozen=True, slots=True)
class GroupInstances:
    """The provisioned instances that pay for one group.

    Attributes:
        chosen: the number, and what it leads to.
        late: fraction of the requests that are late for want of a warm instance.
        allowed: the fraction that may be.
    """

    chosen: Upkeep
    late: float
    allowed: float

    def as_json(self) -> dict[str, Any]:
        """Returns the proposal as `edgeburst plan --json` shows it."""
        return {
            "instances": self.chosen.count,
            "idle_per_hour": self.chosen.idle_per_s * HOUR_S,
            "starts_per_hour": self.chosen.starts_per_s * HOUR_S,
            "late": self.late,
            "allowed_late": self.allowed,
        }


def group_instances(problem: PlanningProblem, group: FunctionGroup) -> GroupInstances:
    """Returns the number of provisioned instances that costs least and keeps the percentile of a group."""
    apps = [app for app in problem.applications if app.name in group.apps]
    allowed = COLD_PART * (1.0 - max(app.percentile for app in apps))
    rate_rps, function = group.rate_rps, group.function
    price = problem.sheet.tier_price(memory_gb=function.memory_gb, vcpu=function.vcpu, gpu_gb=function.gpu_gb)
    billed_s = max(0.0, group.cost_per_request * group.mean_batch - price.per_call) / price.per_s
    asked = WarmProblem(
        traffic=_traffic(apps, group, billed_s),
        prices=InstancePrices(
            idle_per_s=problem.sheet.idle_per_s(
                memory_gb=function.memory_gb, vcpu=function.vcpu, gpu_gb=function.gpu_gb
            ),
            per_start=price.cost(START_S),
            start_s=START_S,
            kept_s=KEPT_S,
            max_instances=_MAX_INSTANCES,
        ),
        late_if_cold=_late_if_cold(apps, group),
        max_late_per_s=allowed * rate_rps / group.mean_batch,
    )
    chosen = cheapest(asked)
    return GroupInstances(chosen, chosen.late_per_s * group.mean_batch / rate_rps if rate_rps > 0 else 0.0, allowed)


def _traffic(apps: list[Application], group: FunctionGroup, service_s: float) -> BatchTraffic:
    if len(apps) == 1 and apps[0].process is not None:
        return map_traffic(apps[0].process, mean_batch=group.mean_batch, service_s=service_s)
    return poisson_traffic(batches_per_s=group.rate_rps / group.mean_batch, service_s=service_s)


def _late_if_cold(apps: list[Application], group: FunctionGroup) -> float:
    """Returns the probability that a start takes longer than the time that a group's batches have to spare."""
    slack_s = min(
        (app.slo_s - group.latency_s[app.name][1] for app in apps if app.name in group.latency_s), default=0.0
    )
    return 1.0 if slack_s <= 0 else 1.0 - NormalDist().cdf(math.log(slack_s / START_S) / START_SIGMA)
