"""The clairvoyant bound of a scenario, with a sentence that says what it assumes."""

from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.domain.requests import Request
from scheduler.simulator.bound import IGNORES, BoundError, clairvoyant_bound, make_problem
from scheduler.simulator.scenario import Scenario


@dataclass(frozen=True, slots=True)
class NotedBound:
    """Bound of a scenario and a note on it.

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
        return NotedBound(None, f"there is no bound for several models on one edge, and the scenario has {len(models)}")
    [model] = models
    slos_s = {kind.service_class.slo_s for kind in model.classes}
    problem = make_problem(
        [request.arrived_at_s for request in requests],
        slo_s=max(slos_s),
        edge_latency=model.edge_latency,
        tiers=model.tiers,
        max_items=model.max_items,
    )
    try:
        cny = clairvoyant_bound(problem)
    except BoundError as error:
        return NotedBound(None, str(error))
    note = f"every request within its SLO; ignores {IGNORES}"
    if len(slos_s) > 1:
        note += f"; gives every request the longest of the {len(slos_s)} SLOs, {max(slos_s):g} s"
    if any(kind.service_class.edge_only for kind in model.classes):
        note += "; lets edge-only requests use functions"
    return NotedBound(cny, note)
