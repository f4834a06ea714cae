"""The clairvoyant bound and the limit under noise of a scenario, each with a sentence that says what it assumes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scheduler.domain.requests import Request
from scheduler.simulator import limit
from scheduler.simulator.bound import IGNORES, BoundError, Problem, Seconds, make_problem
from scheduler.simulator.machines import Machines, bound_of_machines
from scheduler.simulator.scenario import Scenario, SimulatedModel


@dataclass(frozen=True, slots=True)
class NotedBound:
    """Bound or limit of a scenario and a note on it.

    Attributes:
        cny: the bound in CNY; None if there is none, and the note then says why.
        note: what the bound ignores and assumes.
    """

    cny: float | None
    note: str


def noted_bound(scenario: Scenario, requests: Sequence[Request]) -> NotedBound:
    """Returns the bound of a scenario for given requests.

    With several SLOs every request counts with the longest of them, and edge-only requests may use functions. Both
    simplifications only lower the bound. Several models would need one recursion over all their queues; for these
    scenarios there is no bound.
    """
    models = scenario.served()
    if len(models) > 1:
        return _none_for(models, "bound")
    [model] = models
    try:
        cny = bound_of(scenario, model, [request.arrived_at_s for request in requests])
    except BoundError as error:
        return NotedBound(None, str(error))
    note = f"every request within its SLO; ignores {IGNORES}" + _simplified(model)
    return NotedBound(cny, note if scenario.one_edge_slot else note + "; takes all that the edge does at once for one")


def noted_limit(scenario: Scenario, requests: Sequence[Request]) -> NotedBound:
    """Returns the limit under noise of a scenario for given requests, with the same simplifications as its bound.

    Several classes count with the lowest of their percentiles, too.
    """
    models = scenario.served()
    if len(models) > 1:
        return _none_for(models, "limit")
    if not scenario.one_edge_slot:
        return NotedBound(None, "there is no limit for several edge servers, or several batches at once")
    if scenario.function_tail:
        return NotedBound(None, "there is no limit for Pareto's law: it is worked out for lognormal noise")
    [model] = models
    percentile = min(kind.service_class.percentile for kind in model.classes)
    arrivals_s = np.array([request.arrived_at_s for request in requests])
    problem = limit.NoisyProblem(arrivals_s, noisy_site(scenario, model))
    try:
        found = limit.clairvoyant_limit(problem, percentile)
    except limit.LimitError as error:
        return NotedBound(None, str(error))
    note = f"expected, with {percentile:g} of the requests within their SLO; ignores {limit.IGNORES}"
    if 0 < found.multiplier < math.inf:
        note += f"; one late request more would save {found.multiplier:.3g} CNY"
    return NotedBound(found.cost, note + _simplified(model))


def bound_of(scenario: Scenario, model: SimulatedModel, arrivals_s: Sequence[float] | Seconds) -> float:
    """Returns the bound in CNY for requests of the only model that arrive at these times, on all edge servers.

    Raises:
        BoundError: no schedule serves every request within the SLO.
    """
    beside_s = min(server.lan_s + server.decode_s for server in scenario.edge_servers())
    problem = replace(bound_problem(model, arrivals_s), edge_beside_s=beside_s)
    laws = [(server.latency_of(model), server.parallel) for server in scenario.edge_servers()]
    machines = [Machines(law, parallel) for law, parallel in laws if law is not None]
    return bound_of_machines(problem, machines, max_items=model.max_items)


def bound_problem(model: SimulatedModel, arrivals_s: Sequence[float] | Seconds) -> Problem:
    """Returns the bound's problem for requests of a model that arrive at these times, with one machine as its edge."""
    return make_problem(
        arrivals_s,
        slo_s=_longest_slo_s(model),
        edge_latency=model.edge_latency,
        tiers=model.tiers,
        max_items=model.max_items,
    )


def noisy_site(scenario: Scenario, model: SimulatedModel) -> limit.NoisySite:
    """Returns the limit's site for one of a scenario's models."""
    return limit.make_noisy_site(
        slo_s=_longest_slo_s(model),
        edge_latency=model.edge_latency,
        edge_noise=scenario.edge_noise,
        tiers=model.tiers,
        function_noise=scenario.function_noise,
        max_items=model.max_items,
    )


def _none_for(models: Sequence[SimulatedModel], what: str) -> NotedBound:
    return NotedBound(None, f"there is no {what} for several models on one edge, and the scenario has {len(models)}")


def _longest_slo_s(model: SimulatedModel) -> float:
    return max(kind.service_class.slo_s for kind in model.classes)


def _simplified(model: SimulatedModel) -> str:
    slos_s, note = {kind.service_class.slo_s for kind in model.classes}, ""
    if len(slos_s) > 1:
        note += f"; gives every request the longest of the {len(slos_s)} SLOs, {_longest_slo_s(model):g} s"
    if any(kind.service_class.edge_only for kind in model.classes):
        note += "; lets edge-only requests use functions"
    return note
