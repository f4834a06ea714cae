"""Makes the prices of a model from its service tables, its rate and its budgets."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

from scheduler.dispatch.batch_economics import BatchEconomics, batch_costs, unit_cost
from scheduler.dispatch.edge_terms import EdgeTerms
from scheduler.dispatch.lateness_price import BufferPrices, Prices
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.domain.service_times import ServiceTimes

UNSATURATED = 0.9
"""Load up to which the edge's time is worth nothing: it will be idle. Judgement: halved or doubled, cost and lateness
stay within noise."""
MIN_LATE = 0.002
"""Least probability with which the member that binds may be late. Judgement: halved or doubled, cost and lateness stay
within noise."""
MAX_LATE = 0.5
"""The largest: more would ask for services faster than the median. Judgement: halved, within noise."""
BINDS_RARELY = 3.0
"""A batch's first deadline binds in about one batch of so many. Judgement: in simulations of 3,000 requests halving it
changes cost by +1.0 % (in time +0.2 points), doubling it by +1.2 % (+0.2 points)."""
LEAST_REST = 0.01
"""Least part of what a request saves on a saturated edge that its seconds would not save anyway; in a batch of one item
there is none. Judgement: so small that it bounds nothing where batches are larger."""
WORTH_NEW_TABLES = 0.15
"""Change of the logarithm of the allowed lateness that is worth new service tables. Judgement: halved or doubled, cost
and lateness stay within noise."""


def make_prices(queues: ModelQueues, economics: BatchEconomics) -> tuple[Prices, list[BufferPrices]]:
    """Returns the prices of a model and of each of its buffers.

    Args:
        queues: of the model, with service tables, rate and budgets; nothing is changed.
        economics: of function batches behind the present uplink.
    """
    prices, lateness = queues.lateness.prices, queues.lateness
    costs = [batch_costs(buffer) for buffer in queues.buffers]
    # One unit for all buffers: the same late answer has the same price whichever it comes from.
    units = [unit_cost(own, buffer.cap) for buffer, own in zip(queues.buffers, costs, strict=True) if buffer.cap]
    unit = min(units, default=prices.unit_cost)
    of_buffers = [
        economics.price(buffer, own, multiplier=lateness.highest_multiplier(buffer.slos_s), unit=unit)
        if own
        else buffer.prices
        for buffer, own in zip(queues.buffers, costs, strict=True)
    ]
    if units:
        spill_cost = _mean_spill_cost(queues, of_buffers)
        prices = replace(prices, unit_cost=unit, min_money=unit, spill_cost=spill_cost)
    if queues.has_edge:
        prices = _with_edge(queues, prices)
    return prices, of_buffers


def _mean_spill_cost(queues: ModelQueues, of_buffers: Sequence[BufferPrices]) -> float:
    """Returns the mean over the buffers that take batches, weighted by their planned shares."""
    both = [pair for pair in zip(queues.buffers, of_buffers, strict=True) if pair[0].cap]
    shares = [buffer.plan.share for buffer, _ in both]
    weights = shares if math.fsum(shares) > 0 else [1.0] * len(shares)
    spilled = math.fsum([w * made.spill_cost for w, (_, made) in zip(weights, both, strict=True)])
    return spilled / math.fsum(weights)


def _with_edge(queues: ModelQueues, prices: Prices) -> Prices:
    """Adds what the edge's time is worth, and how safe its batches are to be.

    The member whose deadline binds is late with probability r; one request more delays all members by the edge's
    seconds an item, which makes rate x seconds-an-item x r more of them late. A request more is worth that as long as
    it costs less than the request saves. While the edge is saturated its time is worth what it saves elsewhere, and
    most of what a request saves is what its seconds would save anyway.
    """
    late_cost = prices.unit_cost * queues.lateness.highest_multiplier(queues.lateness.budgets)
    loads = [load_on(queues, terms) for terms in queues.edges if terms.times is not None and terms.cap]
    if late_cost <= 0 or not math.isfinite(prices.spill_cost) or not loads:
        return replace(prices, edge_percentile=queues.plan.percentile)
    # The server that serves most stands for all; the load is what all of them have together.
    load, items, terms = loads[0]
    if len(loads) > 1 and queues.rate_rps > 0.0:
        load, items, terms = min(loads, key=lambda each: each[0])
        load = 1.0 / math.fsum([1.0 / each for each, *_ in loads])
    times = terms.known_times
    slope_s = edge_slope_s(times, terms.cap)
    saturated = min(max((load - UNSATURATED) / (1.0 - UNSATURATED), 0.0), 1.0)
    part = min(slope_s * items / times.median_s[items], 1.0)
    seconds_worth = prices.spill_cost * saturated * part
    late = (prices.spill_cost - seconds_worth) / (late_cost * (1.0 + queues.rate_rps * slope_s))
    wanted = 1.0 - min(max(BINDS_RARELY * late, MIN_LATE), MAX_LATE)
    moved = abs(math.log((1.0 - wanted) / (1.0 - prices.edge_percentile)))
    return replace(
        prices,
        seconds_worth=seconds_worth,
        risk_leverage=1.0 / max(1.0 - saturated * part, LEAST_REST),
        cut_cost=prices.spill_cost * (1.0 - part),
        edge_percentile=wanted if moved > WORTH_NEW_TABLES else prices.edge_percentile,
    )


def edge_slope_s(times: ServiceTimes, cap: int) -> float:
    """Returns the edge's seconds for one item more, in batches of at most `cap` (at least 1) items."""
    return (times.median_s[cap] - times.median_s[1]) / (cap - 1) if cap > 1 else times.median_s[1]


def load_on(queues: ModelQueues, terms: EdgeTerms) -> tuple[float, int, EdgeTerms]:
    """Returns the load of an edge server if all requests of a model go there, its items in a batch then, and itself.

    The load is its arrivals over what it can serve in the same time.
    """
    times = terms.known_times
    items = _items_when_saturated(queues, times, terms.cap)
    return queues.rate_rps * times.median_s[items] / items / terms.parallel, items, terms


def _items_when_saturated(queues: ModelQueues, times: ServiceTimes, cap: int) -> int:
    """Items in a batch of a saturated edge: as many as arrive in what the deadline leaves beside their service."""
    slo_s = queues.tightest_slo_s()
    if queues.rate_rps <= 0:
        return 1
    return max(1, bisect_right(range(1, cap + 1), slo_s, key=lambda n: times.median_s[n] + n / queues.rate_rps))
