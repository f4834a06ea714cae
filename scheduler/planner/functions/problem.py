"""Planning problems and plans for functions: applications with SLOs and arrivals; groups, functions and timeouts."""

import math
from dataclasses import dataclass
from typing import Protocol

from scheduler.planner.catalogue.configurations import Configurations
from scheduler.planner.catalogue.json_fields import PlanInputError
from scheduler.planner.catalogue.prices import PriceSheet
from scheduler.planner.functions.size_classes import SizeClass
from scheduler.planner.queueing.map_process import MarkovianArrivals


class FunctionOffer(Protocol):
    """Functions to choose from: the grid of a profile, or deployed tiers."""

    @property
    def name(self) -> str:
        """Name of the offer in messages."""

    def tabulated(self, sheet: PriceSheet, *, kinds: tuple[str, ...]) -> tuple[Configurations, ...]:
        """Returns the configurations of these kinds with services and prices."""

    def tabulated_for(
        self, size_bytes: float, sheet: PriceSheet, *, kinds: tuple[str, ...]
    ) -> tuple[Configurations, ...]:
        """Returns the same with the services of requests of one size."""


OBJECTIVES = ("percentile", "worst-case")


@dataclass(frozen=True, slots=True)
class Application:
    """Requests with one SLO.

    Attributes:
        name: its name.
        slo_s: its SLO.
        percentile: fraction of its requests that must meet the SLO.
        rate_rps: mean requests a second, above 0.
        process: arrival process, if it is not Poisson; such an application gets a function of its own.
        sizes: its size classes; empty: all requests have the same size.
    """

    name: str
    slo_s: float
    percentile: float
    rate_rps: float
    process: MarkovianArrivals | None = None
    sizes: tuple[SizeClass, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedFunction:
    """A function configuration and its cap.

    Attributes:
        kind: "cpu" or "gpu".
        vcpu: vCPUs.
        memory_gb: memory, GB.
        gpu_gb: GPU memory, GB; 0 without a GPU.
        batch: requests at which a batch leaves at once.
    """

    kind: str
    vcpu: float
    memory_gb: float
    gpu_gb: float
    batch: int


@dataclass(frozen=True, slots=True)
class FunctionGroup:
    """Applications that share a buffer, and its function.

    Attributes:
        apps: names of the applications, by ascending SLO.
        function: the function that serves them.
        timeouts_s: longest wait of a request for others, by application.
        cost_per_request: expected money.
        mean_batch: mean requests in a batch.
        latency_s: percentile and latency at it, by application.
        rate_rps: requests a second.
        up_to_bytes: largest request of this buffer, where requests go to buffers by size; None: any.
    """

    apps: tuple[str, ...]
    function: PlannedFunction
    timeouts_s: dict[str, float]
    cost_per_request: float
    mean_batch: float
    latency_s: dict[str, tuple[float, float]]
    rate_rps: float
    up_to_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class Infeasibility:
    """The reason why no plan meets every SLO, and what would be needed."""

    reason: str
    would_need: str


@dataclass(frozen=True, slots=True)
class FunctionPlan:
    """A plan: what to deploy.

    Attributes:
        groups: the groups, by ascending SLO.
        total_cost_per_request: expected money, over all applications.
        currency: currency of all money in the plan.
        segments_total: number of contiguous groups to choose from.
        segments_pruned: number of those that a bound excluded.
        infeasible: None if every SLO is met.
    """

    groups: tuple[FunctionGroup, ...]
    total_cost_per_request: float
    currency: str
    segments_total: int
    segments_pruned: int
    infeasible: Infeasibility | None = None


@dataclass(frozen=True, slots=True)
class PlanningProblem:
    """A planning problem.

    Attributes:
        applications: at least one, with different names.
        profile: functions to choose from.
        sheet: their prices.
        objective: "percentile" or "worst-case".
        minimise: "cost" or "latency".
        budget: largest money a request; None: no limit.
        kinds: kinds of functions to use.
        grouping: "best"; "apart": a function for each application; "together": one function for all.
    """

    applications: tuple[Application, ...]
    profile: FunctionOffer
    sheet: PriceSheet
    objective: str = "percentile"
    minimise: str = "cost"
    budget: float | None = None
    kinds: tuple[str, ...] = ("cpu", "gpu")
    grouping: str = "best"

    def check(self) -> None:
        """Checks that the problem makes sense.

        Raises:
            PlanInputError: it does not; the message names the field.
        """
        names = [app.name for app in self.applications]
        if not names:
            raise PlanInputError("there is no application; add an [[app]] with name, slo_s and rps")
        for name in names:
            if names.count(name) > 1:
                raise PlanInputError(f"app.name {name!r} occurs twice; names must differ")
        for app in self.applications:
            for field_name, value in (("slo_s", app.slo_s), ("rps", app.rate_rps)):
                if not (math.isfinite(value) and value > 0):
                    raise PlanInputError(f"app {app.name!r}: {field_name} must be above 0, not {value:g}")
            if not 0 < app.percentile < 1:
                raise PlanInputError(
                    f"app {app.name!r}: percentile must be above 0 and below 1, not {app.percentile:g}"
                )
        if self.budget is not None and not self.budget > 0:
            raise PlanInputError(f"budget must be above 0, not {self.budget:g}")
        if self.minimise == "latency" and self.budget is None:
            raise PlanInputError("budget is missing; the lowest latency needs one, give it with --budget")
