"""The terms on which one edge server takes the requests of one model."""

from dataclasses import dataclass

from scheduler.domain.plans import GroupPlan, Limits
from scheduler.domain.requests import EDGE_NAME
from scheduler.domain.service_times import ServiceTimes


@dataclass(slots=True)
class EdgeTerms:
    """How fast an edge server is with a model, and how much it takes at once: the same in each of its slots."""

    name: str = EDGE_NAME
    parallel: int = 1
    """Batches that it serves at once."""
    times: ServiceTimes | None = None
    """None: it does not serve the model."""
    cap: int = 0
    """Most items in a batch; 0 where it does not serve the model."""
    limit: int = 0
    """Most items in one request; 0 where it does not serve the model. A request may be larger than the planned
    batches: its own deadline may be later than its class's."""

    @property
    def known_times(self) -> ServiceTimes:
        """The tables of a server that serves the model; ValueError if it does not."""
        if self.times is None:
            raise ValueError(f"edge {self.name} does not serve this model")
        return self.times

    def follow(self, limits: Limits, plan: GroupPlan) -> None:
        """Works out cap and limit from an operator's limits and the plan."""
        self.cap = self.limit = 0
        if self.times is not None:
            allowed = limits.on_edge(self.name)
            largest = self.times.max_batch if allowed is None else min(allowed, self.times.max_batch)
            self.cap = min(plan.edge_caps.get(self.name, plan.edge_batch_cap), largest)
            self.limit = largest if self.cap else 0
