"""Plans for functions: applications with SLOs, percentiles and arrivals in; groups, functions and timeouts out."""

import math
from dataclasses import dataclass
from typing import Protocol

from scheduler.planner.catalogue.configurations import Configurations
from scheduler.planner.catalogue.json_fields import PlanInputError
from scheduler.planner.catalogue.prices import PriceSheet
from scheduler.planner.functions.size_classes import SizeClass
from scheduler.planner.queueing.map_process import MarkovianArrivals


class FunctionOffer(Protocol):
    """Functions to choose from: a profile's grid, or tiers that are deployed."""

    @property
    def name(self) -> str:
        """For messages."""

    def tabulated(self, sheet: PriceSheet, *, kinds: tuple[str, ...]) -> tuple[Configurations, ...]:
        """Returns the configurations of these kinds with services and prices."""

    def tabulated_for(
        self, size_bytes: float, sheet: PriceSheet, *, kinds: tuple[str, ...]
    ) -> tuple[Configurations, ...]:
        """Returns the same as requests of one size find them."""


OBJECTIVES = ("percentile", "worst-case")


@dataclass(frozen=True, slots=True)
class Application:
    """Requests with one objective.

    Attributes:
        name: its name.
        slo_s: its SLO.
        percentile: fraction of its requests that shall be within the SLO.
        rate_rps: its mean rate, above 0.
        process: its arrivals if they are not Poisson; such an application gets a function of its own.
        sizes: its size classes; empty: all requests alike.
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
        apps: their names, by rising SLO.
        function: what serves them.
        timeouts_s: by application: longest that its request waits for others.
        cost_per_request: expected money.
        mean_batch: requests in a batch.
        latency_s: by application: its percentile, and the latency there.
        rate_rps: requests a second.
        up_to_bytes: the largest request of this buffer where requests go to buffers by size; None: any.
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
    """Why no plan keeps every objective, and what would."""

    reason: str
    would_need: str


@dataclass(frozen=True, slots=True)
class FunctionPlan:
    """What is to be deployed.

    Attributes:
        groups: by rising SLO.
        total_cost_per_request: over all applications.
        currency: of all money here.
        segments_total: how many contiguous groups there were to choose from.
        segments_pruned: of these, how many a bound ruled out.
        infeasible: None if every objective holds.
    """

    groups: tuple[FunctionGroup, ...]
    total_cost_per_request: float
    currency: str
    segments_total: int
    segments_pruned: int
    infeasible: Infeasibility | None = None


@dataclass(frozen=True, slots=True)
class PlanningProblem:
    """What is to be planned.

    Attributes:
        applications: at least one, of different names.
        profile: the functions to choose from.
        sheet: their prices.
        objective: "percentile" or "worst-case".
        minimise: "cost" or "latency".
        budget: money a request that may be spent; None: any.
        kinds: which kinds may be used.
        grouping: "best"; "apart", each with a function of its own; "together", all with one.
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
        """Refuses what makes no sense.

        Raises:
            PlanInputError: the message names the field.
        """
        names = [app.name for app in self.applications]
        if not names:
            raise PlanInputError("there is no application; add an [[app]] with name, slo_s and rps")
        for name in names:
            if names.count(name) > 1:
                raise PlanInputError(f"app.name {name!r} is there twice; give every application a name of its own")
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
            raise PlanInputError("budget is missing: the lowest latency costs what it may; give one with --budget")
