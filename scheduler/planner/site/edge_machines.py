"""The edge servers that serve a model, as a plan counts them: one of them is planned with, and is worth so many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scheduler.domain.plans import EdgeEstimate, Limits, ModelSettings, Snapshot
from scheduler.planner.site.edge_capacity import devices, largest_in_time, tabulate
from scheduler.planner.site.service_margin import margin_at


@dataclass(frozen=True, slots=True)
class EdgeMachines:
    """The edge servers of one model.

    Attributes:
        services_s: seconds of a batch of 1, 2, ... items on the one that is planned with, the first that answers; empty
            without an edge.
        factors: of that one, by percentile: observed / predicted service.
        margin: factor on its services at the percentile that binds.
        slo_s: the SLO that binds on it.
        count: how many of it they are worth together, each with all batches that it serves at once.
        caps: by edge server, its largest batch in time.
        lead_s: of that one: seconds of a batch in which its device serves another one.
    """

    services_s: tuple[float, ...] = ()
    factors: Mapping[float, float] = field(default_factory=dict)
    margin: float = 1.0
    slo_s: float = 0.0
    count: float = 1.0
    caps: Mapping[str, int] = field(default_factory=dict)
    lead_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Machine:
    name: str
    services_s: tuple[float, ...]
    factors: Mapping[float, float]
    margin: float
    slo_s: float
    parallel: int
    lead_s: float

    @property
    def cap(self) -> int:
        """The largest batch in time; if there is none, the largest in time without margin, or the largest allowed.

        Capacity matters most where deadlines cannot be met, and a class may be served late.
        """
        for margin in (self.margin, 1.0):
            cap = largest_in_time(self.services_s, slo_s=self.slo_s, margin=margin)
            if cap:
                return cap
        return len(self.services_s)

    @property
    def rps(self) -> float:
        """Items a second of all its batches at once, each as large as its deadline allows."""
        devices_s = devices(self.services_s[: self.cap], self.lead_s)
        return self.parallel * max([items / s for items, s in enumerate(devices_s, 1)], default=0.0)


def edge_machines(settings: ModelSettings, snapshot: Snapshot, limits: Limits, percentile: float) -> EdgeMachines:
    """Returns the edge servers of a model.

    Args:
        settings: of the model.
        snapshot: what is known.
        limits: an operator's.
        percentile: that of the strictest class.
    """
    estimates = snapshot.models[settings.name]
    known = dict(estimates.edges)
    if not known and estimates.edge_latency is not None:
        first = EdgeEstimate(estimates.edge_latency, estimates.edge_quantile_factor)
        known = {snapshot.settings.edges[0].name: first}
    parallel = {edge.name: edge.parallel or 1 for edge in snapshot.settings.edges} | dict(snapshot.edge_parallel)
    found = []
    for name, edge in known.items():
        takes = snapshot.edge_takes.get((settings.name, name))
        allowed = [edge.latency.max_batch, settings.max_items, limits.edge_batch_cap, takes]
        services_s = tabulate(edge.latency, max_batch=min([most for most in allowed if most is not None]))
        margin = margin_at(percentile, edge.quantile_factor)
        slo_s = binding_slo_s(settings, services_s[0] * margin if services_s else 0.0)
        at_once, lead_s = parallel.get(name, 1), snapshot.edge_leads_s.get(name, 0.0)
        found.append(_Machine(name, services_s, edge.quantile_factor, margin, slo_s, at_once, lead_s))
    if not found:
        return EdgeMachines((), estimates.edge_quantile_factor, margin_at(percentile, estimates.edge_quantile_factor))
    there = [machine for machine in found if machine.name not in snapshot.edges_away and machine.services_s] or found[
        :1
    ]
    first_of = there[0]
    return EdgeMachines(
        first_of.services_s,
        first_of.factors,
        first_of.margin,
        first_of.slo_s,
        _worth(there),
        {machine.name: machine.cap for machine in found},
        first_of.lead_s,
    )


def _worth(there: Sequence[_Machine]) -> float:
    """Returns how many of the first machine they are worth, by what they serve a second at full batches."""
    first = there[0]
    if len(there) == 1 or first.rps <= 0.0:
        return float(first.parallel)
    return first.parallel * sum([machine.rps for machine in there]) / first.rps


def binding_slo_s(settings: ModelSettings, fastest_s: float) -> float:
    """Returns the tightest SLO that the backend can meet at all; the loosest one if it meets none."""
    slos_s = [c.slo_s for c in settings.classes]
    return min((slo_s for slo_s in slos_s if slo_s >= fastest_s), default=max(slos_s))
