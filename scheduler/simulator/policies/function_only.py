"""Functions only: one buffer with a fixed size and a timeout that begins with the first request of a batch.

This is the buffer in front of serverless inference in Ali et al., "BATCH: machine learning inference serving on
serverless platforms with adaptive batching" (SC 2020). Its parameters come from a rule of thumb instead of the
optimiser: the cheapest batch that fills within the SLO at the mean rate, and is then answered in time with 99 %.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from scheduler.domain.errors import RefusalKind
from scheduler.domain.latency import FunctionTier
from scheduler.domain.requests import Request
from scheduler.simulator.policies.baseline import Baseline, earliest
from scheduler.simulator.policies.buffers import TimedBuffer
from scheduler.simulator.policies.site import Site

STAYS = "requests of this class are edge-only, and this policy uses no edge"


@dataclass(frozen=True, slots=True)
class FunctionParameters:
    """Parameters of the buffer: the tier, the requests in a full batch, and the longest wait of its first request."""

    tier: FunctionTier
    function_batch: int
    function_timeout_s: float

    def shown(self) -> dict[str, object]:
        """Returns the parameters as entries for the report."""
        return {
            "tier": self.tier.name,
            "function_batch": self.function_batch,
            "function_timeout_s": self.function_timeout_s,
        }


def rule_of_thumb(site: Site) -> FunctionParameters:
    """Returns tier, size and timeout for the mean rate."""
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
    """Policy that sends all requests through one buffer to functions."""

    def __init__(self, site: Site, parameters: FunctionParameters) -> None:
        """Stores its parts."""
        super().__init__(site)
        self._buffer = TimedBuffer(
            self, parameters.tier, size=parameters.function_batch, timeout_s=parameters.function_timeout_s
        )

    def arrived(self, request: Request, now_s: float) -> None:
        """Adds the request to the buffer; refuses it if its class is edge-only."""
        if request.class_name in self.site.stays:
            self.refuse(request, RefusalKind.NO_BACKEND, STAYS)
        else:
            self._buffer.add(request, now_s)

    def decide(self, now_s: float) -> None:
        """Sends the batch after its timeout."""
        self._buffer.send_if_due(now_s)

    def next_wakeup_s(self) -> float | None:
        """Returns the end of the buffer's timeout; None if it is empty."""
        return earliest(self._buffer.due_s)
