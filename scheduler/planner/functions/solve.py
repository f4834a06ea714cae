"""Solves planning problems for functions; where an SLO cannot be met, returns the least bad plan and the reason."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from scheduler.planner.catalogue.configurations import Configurations, fastest_s
from scheduler.planner.catalogue.json_fields import PlanInputError
from scheduler.planner.functions.cost_bounds import Space, space_of
from scheduler.planner.functions.grouping import Group, Grouping, best_grouping, segment_bounds
from scheduler.planner.functions.problem import (
    Application,
    FunctionGroup,
    FunctionPlan,
    Infeasibility,
    PlannedFunction,
    PlanningProblem,
)
from scheduler.planner.functions.shared_buffer_search import LATENCY_RESERVES, Choice, percentile, pruned, worst_case
from scheduler.planner.functions.single_application_search import TIMEOUTS, ProcessChoice, ProcessSearch
from scheduler.planner.functions.size_classes import SizeBuffer, best_size_buffers
from scheduler.planner.queueing.map_process import poisson_arrivals
from scheduler.planner.queueing.matrices import Array, Mask
from scheduler.planner.queueing.multi_slo_batching import SharedBuffer
from scheduler.planner.queueing.multi_slo_lateness import SharedWaits

_MANY, _FEWER_LATENCY_RESERVES = 40, 20
"""More applications than 40 use 20 latency reserves instead of 32, none below the service of a full batch. Judgement:
it keeps a plan of 200 applications within the 3 s of scripts/planner_figures; for a dozen applications 16 reserves cost
0.9 % more money than 32."""
_BISECTIONS = 12
"""Bisections of the common factor on all SLOs when the lowest latency within a budget is sought: the factor is exact to
2^-12. Judgement: more steps change an SLO by less than a thousandth."""


def plan_functions(problem: PlanningProblem) -> FunctionPlan:
    """Returns the optimal plan on its grid; where an SLO cannot be met, the least bad one with the reason.

    Raises:
        PlanInputError: the problem contradicts itself; the message names the field.
    """
    problem.check()
    families = problem.profile.tabulated(problem.sheet, kinds=problem.kinds)
    if not families:
        raise PlanInputError(f"the profile has no function of kind {' or '.join(problem.kinds)}; name another")
    planner = _Planner(problem, families)
    if problem.minimise == "latency":
        return planner.fastest()
    plan = planner.cheapest(problem.applications)
    return _within_budget(plan, problem.budget)


def _within_budget(plan: FunctionPlan, budget: float | None) -> FunctionPlan:
    if budget is None or plan.infeasible or plan.total_cost_per_request <= budget * (1 + 1e-9):
        return plan
    cost = f"{plan.total_cost_per_request:.4g} {plan.currency}"
    return replace(
        plan,
        infeasible=Infeasibility(
            f"budget is {budget:.4g} {plan.currency} a request, but the cheapest plan in time costs {cost}",
            f"a budget of at least {cost} a request, or longer SLOs",
        ),
    )


@dataclass(frozen=True, eq=False)
class _Planner:
    """One planning problem with its configurations tabulated."""

    problem: PlanningProblem
    families: tuple[Configurations, ...]

    @cached_property
    def space(self) -> Space:
        """The pairs that applications which may share a function choose from."""
        return space_of(self.families, reserve_full_batch=len(self.problem.applications) > _MANY)

    def cheapest(self, applications: Sequence[Application], *, factor: float = 1.0) -> FunctionPlan:
        """Returns the cheapest plan if all SLOs are multiplied by `factor`."""
        apps = [replace(app, slo_s=app.slo_s * factor) for app in applications]
        late = [app for app in apps if not self._in_time(app)]
        alone = [app for app in apps if app not in late and (app.process or app.sizes)]
        shared = sorted((app for app in apps if app not in late and app not in alone), key=lambda app: app.slo_s)
        groups, total, pruned = self._shared(shared)
        for app in alone:
            groups += self._sized(app) if app.sizes else [self._process(app)]
        groups += [self._least_bad(app) for app in late]
        segments = len(alone) + len(late)
        rate = math.fsum(group.rate_rps for group in groups)
        cost = math.fsum(group.cost_per_request * group.rate_rps for group in groups) / rate
        return FunctionPlan(
            groups=tuple(groups),
            total_cost_per_request=cost,
            currency=self.problem.sheet.currency,
            segments_total=total + segments,
            segments_pruned=pruned,
            infeasible=self._infeasible(late),
        )

    def fastest(self) -> FunctionPlan:
        """Returns the plan with the lowest latencies within the budget.

        For one application it has the lowest latency at the percentile on the grid. For several it has the smallest
        common factor on all SLOs for which the cheapest plan is within the budget.
        """
        apps, budget = self.problem.applications, self.problem.budget
        assert budget is not None
        plan = _within_budget(self.cheapest(apps), budget)
        if plan.infeasible:
            return plan
        if len(apps) == 1 and not apps[0].sizes:
            found = self._search(apps[0]).fastest(budget, slo_s=apps[0].slo_s)
            return plan if found is None else self._alone(apps[0], found, plan)
        low, high = 0.0, 1.0
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            tried = _within_budget(self.cheapest(apps, factor=middle), budget)
            low, high, plan = (middle, high, plan) if tried.infeasible else (low, middle, tried)
        return plan

    def _alone(self, app: Application, found: ProcessChoice, plan: FunctionPlan) -> FunctionPlan:
        group = self._process_group(app, found)
        return replace(plan, groups=(group,), total_cost_per_request=group.cost_per_request)

    def _in_time(self, app: Application) -> bool:
        return self._fastest_s(app) <= app.slo_s

    def _fastest_s(self, app: Application) -> float:
        """Returns the least latency at the application's percentile that a request sent alone can have."""
        if app.sizes:
            problem, largest = self.problem, app.sizes[-1].size_bytes
            families = problem.profile.tabulated_for(largest, problem.sheet, kinds=problem.kinds)
        else:
            families = self.families
        if self.problem.objective == "worst-case":
            return fastest_s(families)
        if not app.sizes:
            return self._alone_at(app.percentile)
        return _fastest_alone_s(families, app.percentile)

    def _alone_at(self, percentile_wanted: float) -> float:
        """Returns the same for requests of any size; cached, since most applications have the same percentile."""
        if percentile_wanted not in self._alone_s:
            self._alone_s[percentile_wanted] = _fastest_alone_s(self.families, percentile_wanted)
        return self._alone_s[percentile_wanted]

    @cached_property
    def _alone_s(self) -> dict[float, float]:
        return {}

    def _shared(self, apps: Sequence[Application]) -> tuple[list[FunctionGroup], int, int]:
        if not apps:
            return [], 0, 0
        slos_s, rates_rps = (np.array([getattr(app, key) for app in apps]) for key in ("slo_s", "rate_rps"))
        grouping = self._grouping(apps, slos_s, rates_rps)
        # Applications that cannot be in time alone were excluded before.
        assert grouping.infeasible_at is None
        groups = [self._group(apps[group.start : group.end], group) for group in grouping.groups]
        return groups, grouping.segments_total, grouping.segments_pruned

    def _grouping(self, apps: Sequence[Application], slos_s: Array, rates_rps: Array) -> Grouping:
        percentiles = np.array([app.percentile for app in apps])
        never_late = self.problem.objective == "worst-case"
        min_reserve_s = self.space.worst_s if never_late else np.minimum(self.space.min_reserve_s, self.space.worst_s)
        single = len(apps) == 1
        bounds = (
            np.zeros((1, 1))
            if single
            else segment_bounds(self.space, slos_s, rates_rps, latency_reserves_s=min_reserve_s)
        )
        if self.problem.grouping == "apart":
            bounds = np.where(np.eye(len(apps), dtype=bool), bounds, np.inf)
        elif self.problem.grouping == "together":
            bounds = np.where(np.arange(len(apps))[:, None] == 0, bounds, np.inf)

        parts = LATENCY_RESERVES if len(apps) <= _MANY else _FEWER_LATENCY_RESERVES
        fractions = np.arange(1, parts + 1) / parts

        warm_start: Choice | None = None

        def search(buffer: SharedBuffer, which: slice, below: float) -> Choice | None:
            nonlocal warm_start
            if never_late:
                return worst_case(self.space, buffer, below=below)
            latency_reserves_s = buffer.strictest_s * fractions
            # Without a plan so far, the best choice of a similar segment is a good start.
            first = warm_start if math.isinf(below) else None
            found = percentile(
                self.space,
                buffer,
                percentiles[which],
                below=below,
                latency_reserves_s=latency_reserves_s,
                warm_start=first,
            )
            warm_start = found or warm_start
            return found

        def buffers(start: int, end: int) -> SharedBuffer:
            return SharedBuffer(slos_s[start:end], rates_rps[start:end])

        def prune(segments: Sequence[SharedBuffer], starts: Sequence[int], below: Array) -> Mask:
            latency_reserves_s = np.array([segment.strictest_s for segment in segments])[:, None] * fractions
            return pruned(self.space, segments, percentiles[starts], below=below, latency_reserves_s=latency_reserves_s)

        return best_grouping(bounds, buffers=buffers, search=search, prune=None if never_late else prune)

    def _group(self, apps: Sequence[Application], group: Group) -> FunctionGroup:
        choice = group.choice
        slos_s, rates_rps = (np.array([getattr(app, key) for app in apps]) for key in ("slo_s", "rate_rps"))
        buffer = SharedBuffer(slos_s, rates_rps)
        distribution = buffer.size_distribution(np.array([choice.latency_reserve_s]), max_batch=choice.cap)
        services = self.families[choice.family].services
        atoms_s, weights = services.atoms_s[choice.index, : choice.cap], services.weights[choice.index, : choice.cap]
        percentiles = np.array([app.percentile for app in apps])
        latencies_s = SharedWaits.of(buffer, distribution, 0).quantiles_s(percentiles, atoms_s, weights)
        return FunctionGroup(
            apps=tuple(app.name for app in apps),
            function=_function(self.families[choice.family], choice.index, choice.cap),
            timeouts_s={app.name: _timeout_s(app, choice) for app in apps},
            cost_per_request=choice.cost,
            mean_batch=float(distribution.mean_sizes()[0, -1]),
            latency_s={app.name: (app.percentile, float(x)) for app, x in zip(apps, latencies_s, strict=True)},
            rate_rps=buffer.rate_rps,
        )

    def _search(self, app: Application) -> ProcessSearch:
        process = app.process or poisson_arrivals(app.rate_rps)
        step_s = app.slo_s / TIMEOUTS
        return ProcessSearch.of(process, self.families, percentile=app.percentile, step_s=step_s)

    def _process(self, app: Application) -> FunctionGroup:
        found = self._search(app).cheapest(app.slo_s, worst_case=self.problem.objective == "worst-case")
        assert found is not None
        return self._process_group(app, found)

    def _process_group(self, app: Application, found: ProcessChoice) -> FunctionGroup:
        return FunctionGroup(
            apps=(app.name,),
            function=_function(self.families[found.family], found.index, found.cap),
            timeouts_s={app.name: found.timeout_s if found.cap > 1 else 0.0},
            cost_per_request=found.cost,
            mean_batch=found.mean_size,
            latency_s={app.name: (app.percentile, found.latency_s)},
            rate_rps=app.rate_rps,
        )

    def _sized(self, app: Application) -> list[FunctionGroup]:
        profile, sheet = self.problem.profile, self.problem.sheet
        buffers = best_size_buffers(
            [profile.tabulated_for(one.size_bytes, sheet, kinds=self.problem.kinds) for one in app.sizes],
            shares=[one.share for one in app.sizes],
            slo_s=app.slo_s,
            rate_rps=app.rate_rps,
            percentile_wanted=app.percentile,
            never_late=self.problem.objective == "worst-case",
        )
        return [self._size_group(app, buffer) for buffer in buffers]

    def _size_group(self, app: Application, buffer: SizeBuffer) -> FunctionGroup:
        return FunctionGroup(
            apps=(app.name,),
            function=_function(buffer.family, buffer.choice.index, buffer.choice.cap),
            timeouts_s={app.name: _timeout_s(app, buffer.choice)},
            cost_per_request=buffer.choice.cost,
            mean_batch=buffer.mean_size,
            latency_s={app.name: (app.percentile, buffer.latency_s)},
            rate_rps=buffer.rate_rps,
            up_to_bytes=app.sizes[buffer.end - 1].size_bytes,
        )

    def _least_bad(self, app: Application) -> FunctionGroup:
        """Returns the fastest configuration for a single request, of equal ones the cheapest, without waits."""
        places = []
        for number, family in enumerate(self.families):
            alone_s = _alone_s(family, app.percentile)
            index = int(np.lexsort((family.per_s[:, 0], alone_s))[0])
            places.append((float(alone_s[index]), family.cost(index, 1)[0], number, index))
        latency_s, cost, number, index = min(places)
        return FunctionGroup(
            apps=(app.name,),
            function=_function(self.families[number], index, 1),
            timeouts_s={app.name: 0.0},
            cost_per_request=float(cost),
            mean_batch=1.0,
            latency_s={app.name: (app.percentile, latency_s)},
            rate_rps=app.rate_rps,
        )

    def _infeasible(self, late: Sequence[Application]) -> Infeasibility | None:
        if not late:
            return None
        needs = [(app, self._fastest_s(app)) for app in late]
        return Infeasibility(
            reason="; ".join(
                f"app {app.name!r}: slo_s is {app.slo_s:g}, below the fastest latency, {needed_s:.4g} s"
                for app, needed_s in needs
            ),
            would_need=", ".join(
                f"slo_s of at least {_rounded_up(needed_s):g} for {app.name!r}" for app, needed_s in needs
            )
            + ", or a faster function in the profile",
        )


def _timeout_s(app: Application, choice: Choice) -> float:
    """Returns the timeout of an application. A batch of one leaves at once, whatever its timeout would be."""
    return app.slo_s - choice.latency_reserve_s if choice.cap > 1 else 0.0


def _rounded_up(seconds: float) -> float:
    return math.ceil(seconds * 1e4) / 1e4


def _function(family: Configurations, index: int, cap: int) -> PlannedFunction:
    return PlannedFunction(
        kind=family.kind,
        vcpu=round(float(family.vcpu[index]), 9),
        memory_gb=round(float(family.memory_gb[index, cap - 1]), 9),
        gpu_gb=round(float(family.gpu_gb[index]), 9),
        batch=cap,
    )


def _fastest_alone_s(families: Sequence[Configurations], percentile_wanted: float) -> float:
    return min(float(_alone_s(family, percentile_wanted).min()) for family in families)


def _alone_s(family: Configurations, percentile_wanted: float) -> Array:
    """Returns the latency at a percentile of a request that is sent alone and at once, shape (n,)."""
    atoms_s, weights = family.services.atoms_s[:, 0], family.services.weights[:, 0]
    reached = (np.cumsum(weights, axis=1) < percentile_wanted - 1e-12).sum(axis=1)
    found: Array = np.take_along_axis(atoms_s, np.minimum(reached, atoms_s.shape[1] - 1)[:, None], axis=1)[:, 0]
    return np.where(family.allowed[:, 0], found, np.inf)
