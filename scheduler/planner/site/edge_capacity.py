"""What the edge keeps: its largest batch in time, the fluid limit of its throughput, and the fraction that spills."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.domain.latency import LatencyModel

BUFFERED_SLOS = 3.0
"""Length of the window, in SLOs, over which load fluctuates before the queue cannot smooth it any more. With 3 the
spill fractions of a simulated dispatcher that fills only the next batch are within 2.5 points of the formula, on the
Twitter trace at SLOs of 0.6 and 1 s, from near saturation to 1.8 times the capacity of the edge
(tests/oracles/test_fluid_limit.py)."""


@dataclass(frozen=True, slots=True)
class EdgeShare:
    """The edge's share of one model's traffic.

    Attributes:
        batch_cap: largest batch in time, items; 0 without an edge.
        batch: typical batch at this rate, items (not an integer).
        capacity_rps: items a second that the edge can answer in time.
        spill_fraction: fraction of the items that the edge cannot keep.
    """

    batch_cap: int
    batch: float
    capacity_rps: float
    spill_fraction: float


NO_EDGE = EdgeShare(batch_cap=0, batch=0.0, capacity_rps=0.0, spill_fraction=1.0)


def tabulate(latency: LatencyModel, *, max_batch: int) -> tuple[float, ...]:
    """Returns the seconds of a batch of 1, 2, ... `max_batch` items, never less for more items."""
    seconds: list[float] = []
    for items in range(1, max_batch + 1):
        seconds.append(max(latency.predict_s(items), seconds[-1] if seconds else 0.0))
    return tuple(seconds)


def largest_in_time(services_s: Sequence[float], *, slo_s: float, margin: float) -> int:
    """Returns the largest batch whose service times `margin` fits the SLO; 0 if not even one item fits."""
    return sum(service_s * margin <= slo_s for service_s in services_s)


def fluid_batch(services_s: Sequence[float], *, rate_rps: float, slo_s: float, margin: float) -> float:
    """Returns the batch b of an overloaded edge: margin L(b) + b / rate = slo.

    The edge is always busy and each time serves the newest b requests, the oldest of which has waited while they
    gathered. For L(b) = alpha + beta b this is (slo - alpha) / (beta + 1 / rate), which is also what a clairvoyant
    scheduler does. The table is linear between its rows, and its end bounds the batch.

    With services of 0.1 + 0.1 b seconds, 10 items a second and an SLO of 1 s, b is (1 - 0.1) / (0.1 + 0.1) = 4.5:

    >>> fluid_batch([0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], rate_rps=10.0, slo_s=1.0, margin=1.0)
    4.5
    """
    if rate_rps <= 0:
        return float(min(1, len(services_s)))
    below, below_s = 0.0, 0.0
    for items, service_s in enumerate(services_s, start=1):
        needs_s = margin * service_s + items / rate_rps
        if needs_s > slo_s:
            if items == 1:
                # A single item that is served at once may be in time, even if items arrive less often than that.
                return float(margin * service_s <= slo_s)
            return below + (slo_s - below_s) / (needs_s - below_s)
        below, below_s = float(items), needs_s
    return below


def edge_share(
    services_s: Sequence[float],
    *,
    rate_rps: float,
    dispersion: float,
    slo_s: float,
    margin: float,
    share: float = 1.0,
    machines: float = 1.0,
    lead_s: float = 0.0,
) -> EdgeShare:
    """Returns what the edge keeps of a model's traffic.

    Args:
        services_s: expected seconds of a batch of 1, 2, ... items, up to the largest allowed batch.
        rate_rps: items a second.
        dispersion: variance over mean of arrivals counted in equal times; 1 for Poisson.
        slo_s: the deadline that binds.
        margin: factor on a service at which the percentile holds.
        share: fraction of the edge's time that this model gets.
        machines: how many such edges there are. Each batch gathers at the whole rate while it is the next to start.
        lead_s: seconds of each service in which the device serves another batch; 0 where none is sent ahead.

    In the case of `fluid_batch` a batch of 4.5 takes 0.55 s, so the edge answers 4.5 / 0.55 = 8.18 of 10 items a
    second. Without fluctuation 18 % spill. Within 3 s a Poisson number of 30 items has the standard deviation 5.48. The
    capacity of 24.5 items is 0.996 standard deviations below the mean, which is exceeded by 5.91 items on average, 19.7
    %:

    >>> services_s = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    >>> for dispersion in (0.0, 1.0):
    ...     edge = edge_share(services_s, rate_rps=10.0, dispersion=dispersion, slo_s=1.0, margin=1.0)
    ...     edge.batch_cap, edge.batch, round(edge.capacity_rps, 2), round(edge.spill_fraction, 3)
    (7, 4.5, 8.18, 0.182)
    (7, 4.5, 8.18, 0.197)
    """
    cap = largest_in_time(services_s, slo_s=slo_s, margin=margin)
    if cap == 0 or share <= 0:
        return NO_EDGE
    usable_s = services_s[:cap]
    saturated = max(1.0, fluid_batch(usable_s, rate_rps=rate_rps, slo_s=slo_s, margin=margin))
    devices_s = devices(usable_s, lead_s)
    capacity_rps = share * machines * _best_throughput(devices_s, saturated)
    spill = _spill_fraction(rate_rps=rate_rps, capacity_rps=capacity_rps, dispersion=dispersion, slo_s=slo_s)
    return EdgeShare(cap, min(saturated, _calm_batch(devices_s, rate_rps / machines)), capacity_rps, spill)


def devices(services_s: Sequence[float], lead_s: float) -> Sequence[float]:
    """Returns the seconds for which batches keep the device, of a batch that takes so long with its way and decoding.

    Two batches are in flight at most, so that each keeps it for half of its own seconds at least, whatever the lead.

    >>> devices([0.1, 0.5], 0.0625)
    [0.05, 0.4375]
    """
    return [max(service_s - lead_s, 0.5 * service_s) for service_s in services_s] if lead_s > 0.0 else services_s


def _best_throughput(services_s: Sequence[float], largest: float) -> float:
    whole = int(largest)
    best = max(items / services_s[items - 1] for items in range(1, whole + 1))
    if largest > whole:
        low_s, high_s = services_s[whole - 1], services_s[whole]
        best = max(best, largest / (low_s + (high_s - low_s) * (largest - whole)))
    return best


def _calm_batch(services_s: Sequence[float], rate_rps: float) -> float:
    """Returns the batch that gathers while a batch of its own size is served: b = rate L(b)."""
    for items, service_s in enumerate(services_s, start=1):
        if rate_rps * service_s <= items:
            return float(items)
    return float(len(services_s))


def _spill_fraction(*, rate_rps: float, capacity_rps: float, dispersion: float, slo_s: float) -> float:
    """Returns the mean excess of a normal number of arrivals over the capacity in the same time, as a fraction."""
    if rate_rps <= 0:
        return 0.0
    expected = rate_rps * BUFFERED_SLOS * slo_s
    sigma = math.sqrt(max(dispersion, 1e-9) * expected)
    if sigma <= 0:
        return 0.0
    z = (capacity_rps / rate_rps - 1.0) * expected / sigma
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    above = math.erfc(z / math.sqrt(2)) / 2
    return min(1.0, max(0.0, sigma * (density - z * above) / expected))
