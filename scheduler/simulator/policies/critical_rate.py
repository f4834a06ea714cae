"""Critical rate: edge batches and function batches in turn, with a new plan every 5 s.

Source: the repository serverless-edge-batching (E. Pan, 2023), its planner and its virtual queue. The largest edge
batch b of a fixed list that takes at most half the SLO gives a critical rate 2 b / SLO. Below this rate only the edge
is used, with the largest batch that is in time and whose throughput is sufficient. Above it the edge serves the
critical rate in batches of b, and functions serve the rest, with the batch and the tier of least cost a second among
those in time. A plan is made every 5 s from the rate since the last batches. It is carried out by filling one edge
batch, then one function batch, and so on; each is sent when full or after a timeout of half the SLO (0.4 s for the
default SLO of 0.8 s). No request is dropped.

Three errors of its code are not repeated, since they do not belong to the policy: it pads batches to their full size,
sends empty batches, and crashes if no batch is in time (here the smallest batch is taken).
"""

import math
from dataclasses import dataclass

from scheduler.domain.latency import FunctionTier
from scheduler.domain.messages import PlanAdopted
from scheduler.domain.plans import Plan
from scheduler.domain.requests import Request
from scheduler.simulator.network import seconds_for
from scheduler.simulator.policies.baseline import Baseline, earliest
from scheduler.simulator.policies.site import Site

_EDGE_BATCHES = (1, 5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 100, 200)
_FUNCTION_BATCHES = (1, 2, 3, 4, 5, 10, 15, 20)
_PLAN_EVERY_S = 5.0
_FIRST_EDGE_BATCH, _FIRST_FUNCTION_BATCH = 20, 2


@dataclass(frozen=True, slots=True)
class Alternation:
    """Plan: the sizes of the two batches, and the tier; a function batch of 0 means that functions are not used."""

    edge_batch: int
    function_batch: int
    tier: FunctionTier


def plan(site: Site, *, rate_rps: float, bandwidth_bytes_per_s: float) -> Alternation:
    """Returns the plan for a rate and a bandwidth, both above 0.

    Args:
        site: the edge, the tiers and the SLO.
        rate_rps: requests a second.
        bandwidth_bytes_per_s: bandwidth of the uplink; as in the source, each batch is planned with all of it.
    """
    latency = site.model.edge_latency
    assert latency is not None
    sizes = [size for size in _EDGE_BATCHES if size <= min(latency.max_batch, site.model.max_items)]
    critical = max((size for size in sizes if latency.predict_s(size) <= site.slo_s / 2), default=1)
    critical_rps = 2 * critical / site.slo_s
    if rate_rps <= critical_rps:
        keeping_up = [
            size
            for size in sizes
            if latency.predict_s(size) + size / rate_rps <= site.slo_s and latency.predict_s(size) <= size / rate_rps
        ]
        return Alternation(max(keeping_up, default=1), 0, site.model.tiers[0])
    tier, size = _cheapest(site, rate_rps - critical_rps, bandwidth_bytes_per_s)
    return Alternation(critical, size, tier)


def _cheapest(site: Site, rest_rps: float, bandwidth_bytes_per_s: float) -> tuple[FunctionTier, int]:
    def latency_s(tier: FunctionTier, size: int) -> float:
        gather_s = size / rest_rps if size > 1 else 0.0
        transfer_s = seconds_for(size * site.model.request_bytes, bandwidth_bytes_per_s)
        return tier.latency.predict_s(size) + gather_s + transfer_s

    choices = [
        (tier, size) for tier in site.model.tiers for size in _FUNCTION_BATCHES if size <= site.function_items(tier)
    ]
    in_time = [choice for choice in choices if latency_s(*choice) <= site.slo_s]
    if not in_time:
        return choices[0]
    return min(in_time, key=lambda c: c[0].price.cost(c[0].latency.predict_s(c[1])) * math.ceil(rest_rps / c[1]))


class CriticalRate(Baseline):
    """Policy that fills one batch at a time, for the edge and for functions in turn."""

    def __init__(self, site: Site) -> None:
        """Starts with the default sizes of the source."""
        super().__init__(site)
        self._sizes = Alternation(_FIRST_EDGE_BATCH, _FIRST_FUNCTION_BATCH, site.model.tiers[0])
        self._requests: list[Request] = []
        self._for_edge = True
        self._due_s = math.inf
        self._plan_s = _PLAN_EVERY_S
        self._plans = 0
        self._rate_rps = 0.0
        self._last_arrival_s = 0.0
        self._round_began_s = 0.0
        self._round_arrivals = 0

    def arrived(self, request: Request, now_s: float) -> None:
        """Adds the request to the current batch; the first request of a batch starts the timeout."""
        self._last_arrival_s = now_s
        self._round_arrivals += 1
        if request.class_name in self.site.stays:
            self.send_edge([request], now_s)
            return
        if not self._requests:
            self._due_s = now_s + self.site.slo_s / 2
        self._requests.append(request)
        if len(self._requests) >= self._size():
            self._send_batch(now_s)

    def decide(self, now_s: float) -> None:
        """Sends the current batch after its timeout; makes a new plan every 5 s."""
        if self._due_s <= now_s:
            self._send_batch(now_s)
        if self._plan_s <= now_s:
            self._plan(now_s)

    def next_wakeup_s(self) -> float | None:
        """Returns the earlier of the batch's timeout and the next plan; None while no request waits."""
        return earliest(self._due_s, self._plan_s if self._requests else math.inf)

    def _size(self) -> int:
        return self._sizes.edge_batch if self._for_edge else self._sizes.function_batch

    def _send_batch(self, now_s: float) -> None:
        if self._for_edge:
            self.send_edge(self._requests, now_s)
        else:
            self.send_function(self._requests, self._sizes.tier, now_s)
        self._requests, self._due_s = [], math.inf
        self._for_edge = not self._for_edge or self._sizes.function_batch == 0
        if self._for_edge:
            self._measure_rate()

    def _measure_rate(self) -> None:
        """Measures the rate as the source does: the mean over the gaps since the last edge batch began."""
        if self._last_arrival_s > self._round_began_s:
            self._rate_rps = self._round_arrivals / (self._last_arrival_s - self._round_began_s)
            self._round_began_s, self._round_arrivals = self._last_arrival_s, 0

    def _plan(self, now_s: float) -> None:
        self._plan_s = now_s + _PLAN_EVERY_S
        if self._rate_rps <= 0:
            return
        bandwidth = self.site.bandwidth.rate_at(now_s)
        self._sizes = plan(self.site, rate_rps=self._rate_rps, bandwidth_bytes_per_s=bandwidth)
        if self._sizes.function_batch == 0 and not self._requests:
            self._for_edge = True
        self._plans += 1
        detail = f"{self._rate_rps:.1f} requests a second"
        self.emit(PlanAdopted(Plan(self._plans, now_s, self._plan_s, cause="timer", detail=detail, groups=())))
