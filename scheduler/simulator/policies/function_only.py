"""Functions only: one buffer with a fixed size and timeout, the timer armed by the first request of the batch.

This is the buffer in front of serverless inference in Ali et al., "BATCH: machine learning inference serving on
serverless platforms with adaptive batching" (SC 2020), with parameters from a rule of thumb instead of its optimiser:
the cheapest batch that at the mean rate gathers, and 99 % of the time is answered, within the SLO.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from scheduler.domain.errors import RefusalKind
from scheduler.domain.latency import FunctionTier
from scheduler.domain.requests import Request
from scheduler.simulator.policies.baseline import Baseline, earliest
from scheduler.simulator.policies.buffers import TimedBuffer
from scheduler.simulator.policies.site import Site

STAYS = "requests of this class must not leave the site, and this policy has no edge"


@dataclass(frozen=True, slots=True)
class FunctionParameters:
    """Where batches go, how many requests make one, and how long its first one waits at most."""

    tier: FunctionTier
    function_batch: int
    function_timeout_s: float

    def shown(self) -> dict[str, object]:
        """Returns them as the report shows them."""
        return {
            "tier": self.tier.name,
            "function_batch": self.function_batch,
            "function_timeout_s": self.function_timeout_s,
        }


def rule_of_thumb(site: Site) -> FunctionParameters:
    """Returns size and timeout for the mean rate."""
    in_time = list(_in_time(site))
    if not in_time:
        tier, _ = site.cheapest_function(0.0)
        return FunctionParameters(tier, 1, 0.0)
    return min(in_time, key=lambda p: p.tier.price.cost(p.tier.latency.predict_s(p.function_batch)) / p.function_batch)


def _in_time(site: Site) -> Iterator[FunctionParameters]:
    for tier in site.model.tiers:
        for items in range(1, site.function_items(tier) + 1):
            timeout_s = site.slo_s - site.function_s(tier, items)
            if timeout_s >= 0 and items - 1 <= site.mean_rate_rps * timeout_s:
                yield FunctionParameters(tier, items, timeout_s if items > 1 else 0.0)


class FunctionOnly(Baseline):
    """Everybody goes through one buffer."""

    def __init__(self, site: Site, parameters: FunctionParameters) -> None:
        """Stores its parts."""
        super().__init__(site)
        self._buffer = TimedBuffer(
            self, parameters.tier, size=parameters.function_batch, timeout_s=parameters.function_timeout_s
        )

    def arrived(self, request: Request, now_s: float) -> None:
        """Lets it join the batch that gathers."""
        if request.class_name in self.site.stays:
            self.refuse(request, RefusalKind.NO_BACKEND, STAYS)
        else:
            self._buffer.add(request, now_s)

    def decide(self, now_s: float) -> None:
        """Sends what has waited long enough."""
        self._buffer.leave_if_due(now_s)

    def next_wakeup_s(self) -> float | None:
        """Returns the buffer's time."""
        return earliest(self._buffer.due_s)
