"""The clairvoyant bound of a scenario, with one sentence on what it holds for."""

from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.domain.requests import Request
from scheduler.simulator.bound import IGNORES, BoundError, clairvoyant_bound, make_problem
from scheduler.simulator.scenario import Scenario


@dataclass(frozen=True, slots=True)
class NotedBound:
    """A bound and its sentence.

    Attributes:
        cny: the bound; None where there is none, and the note says why.
        note: what it ignores and assumes.
    """

    cny: float | None
    note: str


def noted_bound(scenario: Scenario, requests: Sequence[Request]) -> NotedBound:
    """Returns the bound of a scenario for the requests that it will meet.

    Several SLOs are all taken for the longest, and whoever must stay on the site may leave it: what is left out only
    lowers the bound. Several models would need one recursion over all their queues: there is no bound.
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
        note += f"; takes all {len(slos_s)} SLOs for the longest, {max(slos_s):g} s"
    if any(kind.service_class.edge_only for kind in model.classes):
        note += "; lets requests leave that must stay on the site"
    return NotedBound(cny, note)
