"""Policies by name: how each is set up for a scenario, and the entries that it adds to the report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from scheduler.domain.requests import Request
from scheduler.simulator.policies import batch
from scheduler.simulator.policies.aimd import Aimd
from scheduler.simulator.policies.critical_rate import CriticalRate
from scheduler.simulator.policies.edf import EarliestDeadlineFirst
from scheduler.simulator.policies.edge_only import EdgeOnly
from scheduler.simulator.policies.function_only import FunctionOnly, rule_of_thumb
from scheduler.simulator.policies.search import SLICE, TrialResult
from scheduler.simulator.policies.site import Site, site_of
from scheduler.simulator.policies.slots import Slots
from scheduler.simulator.policies.smdp import Smdp, control_limits
from scheduler.simulator.policies.static import Static, StaticParameters, best_static
from scheduler.simulator.policies.symphony import Symphony
from scheduler.simulator.scenario import Scenario, ScenarioError
from scheduler.simulator.shell import EngineLike


@dataclass(frozen=True, slots=True)
class Chosen:
    """Policy that is ready to run.

    Attributes:
        policy: the policy or the engine.
        facts: entries for the report: how it was planned and with which parameters.
    """

    policy: EngineLike
    facts: Mapping[str, object] = field(default_factory=dict)


class Rehearsal(Protocol):
    """Function that simulates a policy in the given scenario."""

    def __call__(self, policy: EngineLike, requests: Sequence[Request], /) -> TrialResult:
        """Returns the result of the policy with the given requests."""


@dataclass(frozen=True, slots=True)
class _Hindsight:
    """Knowledge of a search with hindsight: the requests that will arrive, and a simulation with them."""

    site: Site
    requests: Sequence[Request]
    rehearse: Rehearsal

    def static(self, parameters: StaticParameters, *, whole: bool) -> TrialResult:
        return self.rehearse(Static(self.site, parameters), self._part(whole))

    def _part(self, whole: bool) -> Sequence[Request]:
        start = max(0, len(self.requests) - SLICE) // 2
        return self.requests if whole else self.requests[start : start + SLICE]


def _edge_only(hindsight: _Hindsight) -> Chosen:
    return Chosen(EdgeOnly(hindsight.site))


def _function_only(hindsight: _Hindsight) -> Chosen:
    parameters = rule_of_thumb(hindsight.site)
    return Chosen(FunctionOnly(hindsight.site, parameters), {"parameters": parameters.shown()})


def _static(hindsight: _Hindsight) -> Chosen:
    parameters = best_static(hindsight.site, hindsight.static)
    return Chosen(Static(hindsight.site, parameters), {"parameters": parameters.shown()})


def _critical_rate(hindsight: _Hindsight) -> Chosen:
    return Chosen(CriticalRate(hindsight.site))


def _batch(hindsight: _Hindsight) -> Chosen:
    parameters = batch.best_batch(hindsight.site, hindsight.requests)
    return Chosen(
        FunctionOnly(hindsight.site, parameters), {"parameters": parameters.shown(), "planner": batch.PLANNER}
    )


def _aimd(hindsight: _Hindsight) -> Chosen:
    return Chosen(Aimd(hindsight.site))


def _edf(hindsight: _Hindsight) -> Chosen:
    return Chosen(EarliestDeadlineFirst(hindsight.site))


def _symphony(hindsight: _Hindsight) -> Chosen:
    return Chosen(Symphony(hindsight.site))


def _smdp(hindsight: _Hindsight) -> Chosen:
    plan = control_limits(hindsight.site)
    return Chosen(Smdp(hindsight.site, plan), {"parameters": plan.shown()})


def _slots(hindsight: _Hindsight) -> Chosen:
    return Chosen(Slots(hindsight.site))


BASELINES: Mapping[str, Callable[[_Hindsight], Chosen]] = {
    "edge-only": _edge_only,
    "function-only": _function_only,
    "static": _static,
    "critical-rate": _critical_rate,
    "batch": _batch,
    "aimd": _aimd,
    "edf": _edf,
    "symphony": _symphony,
    "smdp": _smdp,
    "slots": _slots,
}
NO_FUNCTION = frozenset({"edge-only"})
"""Policies that need no function."""
NO_EDGE = frozenset({"function-only", "batch"})
"""Policies that need no edge."""
ANY_EDGES = frozenset({*NO_EDGE, "slots"})
"""Policies that support several edge servers, or several batches at once."""


def choose(scenario: Scenario, requests: Sequence[Request], rehearse: Rehearsal) -> Chosen:
    """Returns the scenario's policy, one of `BASELINES`.

    Args:
        scenario: names the policy and describes the site.
        requests: the requests that will arrive, in order. Only policies with hindsight use more than their mean rate.
        rehearse: simulates a policy, for those whose parameters are found by search.

    Raises:
        ScenarioError: the policy needs an edge or a function that the scenario lacks, or supports one model only.
    """
    site = site_of(scenario, requests)
    if not scenario.one_edge_slot and scenario.policy not in ANY_EDGES:
        raise ScenarioError(
            f"the policy {scenario.policy} supports one edge server with one batch at a time; "
            "choose edgeburst, separate or slots"
        )
    if site.model.edge_latency is None and scenario.policy not in NO_EDGE:
        raise ScenarioError(f"the policy {scenario.policy} needs an edge; give the scenario's model an edge latency")
    if not site.model.tiers and scenario.policy not in NO_FUNCTION:
        raise ScenarioError(f"the policy {scenario.policy} needs a function; give the scenario a tier")
    return BASELINES[scenario.policy](_Hindsight(site, requests, rehearse))
