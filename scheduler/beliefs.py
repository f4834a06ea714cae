"""What the engine believes of the world: rates, service tables, the uplink, outages. Learned, or told by a test."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from scheduler.domain.plans import BufferPlan
from scheduler.domain.requests import EDGE_NAME, FUNCTIONS, Place
from scheduler.domain.service_times import ServiceTimes
from scheduler.domain.statistics import Pace, SharedEdge
from scheduler.domain.uplink import UplinkEstimate
from scheduler.estimates import Estimates
from scheduler.estimators.warm_instances import WarmInstances


@dataclass(frozen=True, slots=True)
class Outages:
    """Backends that are known to be away, other than from failures."""

    edge_back_s: float | None = None
    """When the edge servers will be back that are not in `edges_back_s`; None: they are there."""
    functions_back_s: float = 0.0
    """When the functions answer again; in the past where they answer."""
    edges_back_s: Mapping[str, float | None] = field(default_factory=dict)
    """The same for single edge servers, by name."""

    def edge_back(self, name: str) -> float | None:
        """Returns when an edge server will be back; None: it is there."""
        return self.edges_back_s.get(name, self.edge_back_s)

    def away(self, now_s: float) -> frozenset[Place]:
        """Returns the places that are away; the first edge server stands for those that have no entry of their own."""
        away = {Place.edge(name) for name, back_s in self.edges_back_s.items() if back_s is not None}
        away |= {Place.edge()} if self.edge_back_s is not None else set()
        return frozenset(away | ({FUNCTIONS} if self.functions_back_s > now_s else set()))


class Beliefs(Protocol):
    """The engine's input beside messages."""

    def revision(self, model: str = "") -> int | None:
        """Returns a number that is the same as long as all tables and the uplink are; None where that is not known.

        Args:
            model: of this model's tables alone.
        """

    def recent_rps(self, model: str, now_s: float) -> float:
        """Returns the items a second that arrive just now."""

    def item_bytes(self, model: str) -> float:
        """Returns the bytes of an item on the wire, lately."""

    def edge_times(self, model: str, percentile: float, now_s: float, edge: str = EDGE_NAME) -> ServiceTimes | None:
        """Returns an edge server's tables for a model, with the margin of this percentile; None if it serves none."""

    def function_times(self, model: str, plan: BufferPlan, now_s: float) -> ServiceTimes | None:
        """Returns the service tables of a buffer's tier; None where nothing is known of it."""

    def uplink(self, now_s: float) -> UplinkEstimate:
        """Returns what is known of the way to the functions."""

    def warm_pool(self, model: str, tier: str) -> WarmInstances | None:
        """Returns what is known of a tier's instances; None for a tier that there is not."""

    def outages(self, now_s: float) -> Outages | None:
        """Returns which backends are away; None where that is learned from failures."""


@dataclass(slots=True)
class LearnedBeliefs:
    """Beliefs read from the estimators."""

    estimates: Estimates

    def revision(self, model: str = "") -> int | None:
        """Returns a number that is the same as long as all tables and the uplink are, or those of a model."""
        return self.estimates.models[model].lessons if model else self.estimates.revision

    def recent_rps(self, model: str, now_s: float) -> float:
        """Returns the items a second that arrive just now."""
        return self.estimates.models[model].arrivals.recent_rps(now_s)

    def item_bytes(self, model: str) -> float:
        """Returns the bytes of an item on the wire, lately."""
        return self.estimates.models[model].item_bytes

    def edge_times(
        self,
        model: str,
        percentile: float,
        now_s: float,  # noqa: ARG002
        edge: str = EDGE_NAME,
    ) -> ServiceTimes | None:
        """Returns an edge server's tables for a model, with the margin of this percentile; None if it serves none."""
        return self.estimates.models[model].edge_times(percentile, edge)

    def function_times(self, model: str, plan: BufferPlan, now_s: float) -> ServiceTimes | None:  # noqa: ARG002
        """Returns the service tables of a buffer's tier; None where nothing is known of it."""
        return self.estimates.models[model].function_times(plan)

    def uplink(self, now_s: float) -> UplinkEstimate:  # noqa: ARG002
        """Returns what is known of the way to the functions."""
        return self.estimates.uplink

    def warm_pool(self, model: str, tier: str) -> WarmInstances | None:
        """Returns what is known of a tier's instances; None for a tier that there is not."""
        knowledge = self.estimates.models.get(model)
        return None if knowledge is None else knowledge.warm.get(tier)

    def outages(self, now_s: float) -> Outages | None:  # noqa: ARG002
        """Returns None: outages are learned from failures."""
        return None


def paces(estimates: Estimates) -> tuple[Pace, ...]:
    """Returns how fast each place serves each model, beside its profile."""
    found: list[Pace] = []
    for model, known in estimates.models.items():
        for name, edge in known.edges.items():
            found.append(Pace(model, str(Place.edge(name)), edge.times_profile, edge.lessons))
        for name, function in known.functions.items():
            found.append(Pace(model, str(Place.function(name)), function.times_profile, function.lessons))
    return tuple(found)


def shared_edges(estimates: Estimates) -> tuple[SharedEdge, ...]:
    """Returns where batches wait for those of other daemons."""
    return tuple(
        SharedEdge(model, name, wait.since_s, wait.observed_s, wait.learned_s, wait.trusted, wait.doubt)
        for model, known in estimates.models.items()
        for name, edge in known.edges.items()
        if (wait := edge.others) is not None
    )
