"""What the engine believes of the world: rates, service tables, the uplink, outages. Learned, or told by a test."""

from dataclasses import dataclass
from typing import Protocol

from scheduler.domain.plans import BufferPlan
from scheduler.domain.service_times import ServiceTimes
from scheduler.domain.uplink import UplinkEstimate
from scheduler.estimates import Estimates
from scheduler.estimators.warm_instances import WarmInstances


@dataclass(frozen=True, slots=True)
class Outages:
    """Backends that are known to be away, other than from failures."""

    edge_back_s: float | None = None
    """When the edge will be back; None: it is there."""
    functions_back_s: float = 0.0
    """When the functions answer again; in the past where they answer."""

    def up(self, now_s: float) -> tuple[bool, bool]:
        """Returns whether the edge and the functions are there."""
        return self.edge_back_s is None, self.functions_back_s <= now_s


class Beliefs(Protocol):
    """The engine's input beside messages."""

    def revision(self) -> int | None:
        """Returns a number that is the same as long as tables and uplink are; None where that is not known."""

    def recent_rps(self, model: str, now_s: float) -> float:
        """Returns the items a second that arrive just now."""

    def item_bytes(self, model: str) -> float:
        """Returns the bytes of an item on the wire, lately."""

    def edge_times(self, model: str, percentile: float, now_s: float) -> ServiceTimes | None:
        """Returns the edge's service tables for a model, with the margin of this percentile; None without an edge."""

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

    def revision(self) -> int | None:
        """Returns a number that is the same as long as tables and uplink are."""
        return self.estimates.revision

    def recent_rps(self, model: str, now_s: float) -> float:
        """Returns the items a second that arrive just now."""
        return self.estimates.models[model].arrivals.recent_rps(now_s)

    def item_bytes(self, model: str) -> float:
        """Returns the bytes of an item on the wire, lately."""
        return self.estimates.models[model].item_bytes

    def edge_times(self, model: str, percentile: float, now_s: float) -> ServiceTimes | None:  # noqa: ARG002
        """Returns the edge's service tables for a model, with the margin of this percentile; None without an edge."""
        return self.estimates.models[model].edge_times(percentile)

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
