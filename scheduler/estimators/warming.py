"""When a warming call pays: its price against the lateness that it prevents."""

import math
from dataclasses import dataclass

from scheduler.estimators.warm_instances import WarmInstances

LOST = 0.1
"""Probability of being gone from which on an instance counts as one that would be lost. Judgement: a tenth is noticed
where one in a hundred may be late."""
RECLAIM_TIMES = 3.0
"""Without a request for so many times what an instance outlives idle, none is called any more. Judgement: an instance
is called about twice in that time; traffic that has not come back then is no traffic."""
MAX_CALLS = 16
"""Largest number of warming calls at one time. Judgement: later instances are needed too rarely for a call to pay."""


@dataclass(frozen=True, slots=True)
class Warming:
    """What to do about cold instances.

    Attributes:
        calls: warming calls that pay now. They are sent at one time, since one after another would all reach the same
            instance.
        look_again_at_s: when the next call falls due, if no batch is sent or comes back before and the expected traffic
            stays the same; inf for never.
    """

    calls: int
    look_again_at_s: float


def warming_due(
    pool: WarmInstances,
    *,
    now_s: float,
    batches_per_s: float,
    service_s: float,
    call_cost: float,
    lateness_cost: float,
    provisioned: int = 0,
) -> Warming:
    """Returns the warming calls that cost less than the cold starts that they prevent.

    Batches are assumed to leave at random at a rate r, and to keep r * service_s instances busy on average (a Poisson
    number, as in a queue with unlimited servers). The k-th instance is then needed at the rate r_k = r P(at least k - 1
    busy). Calling it every T seconds costs (call_cost + c(T)) / T a second, where c(T) is the cost of batches that need
    it when it is gone. T is chosen to make this least, so that unknown idle times are explored where a mistake is
    cheap. A call that keeps an instance which is due is worth

        lateness_cost * P(cold start if gone) * (1 - exp(-r_k T')),

    the probability that it is needed before it is due again; T' is T without the seconds in which it is expected to be
    gone. The platform gives a call to the instance last used, so the j-th instance is reached only by j calls at one
    time. For an instance that is not due yet, a call saves a part of its next one. The number of calls is the one whose
    worth most exceeds its price.

    Only idle instances that can cool are called, and none that the next batch that needs it, in 1 / r_k seconds, finds.

    Args:
        pool: the tier's instances; warming calls in flight are recorded in it like batches.
        now_s: the present.
        batches_per_s: function batches expected a second.
        service_s: seconds that each batch keeps an instance.
        call_cost: money for one warming call.
        lateness_cost: cost of the lateness of one batch's cold start: requests that it makes late times their price.
        provisioned: instances that are deployed to be always there; more may have been learned of.

    >>> from scheduler.domain.batches import BatchReport
    >>> pool = WarmInstances(prior_idle_s=240.0)
    >>> pool.sent(1, now_s=0.0)
    >>> pool.came_back(1, BatchReport(elapsed_s=3.0, service_s=0.5, cold_start=True), now_s=3.0)
    >>> often = warming_due(pool, now_s=10.0, batches_per_s=0.01, service_s=0.5, call_cost=1e-6, lateness_cost=2e-5)
    >>> often.calls, 40.0 < often.look_again_at_s < 240.0
    (0, True)
    >>> warming_due(pool, now_s=200.0, batches_per_s=0.01, service_s=0.5, call_cost=1e-6, lateness_cost=2e-5).calls
    1
    >>> warming_due(pool, now_s=200.0, batches_per_s=1e-6, service_s=0.5, call_cost=1e-6, lateness_cost=2e-5)
    Warming(calls=0, look_again_at_s=inf)
    """
    risk = lateness_cost * pool.unknown_cold
    idle_since_s, idle_time = pool.idle_since_s(), pool.idle_time
    best, best_gain, gain, look_again_at_s = 0, 0.0, 0.0, math.inf
    lost_s = idle_time.outlived_s(1.0 - LOST)
    rates = _needed_rates(batches_per_s, batches_per_s * service_s, first=pool.busy + 1)
    for calls, rate in enumerate(rates[: len(idle_since_s)], start=1):
        if pool.busy + calls <= max(pool.always_warm, provisioned):
            gain -= call_cost
            continue
        keeps_s = idle_time.refresh_s(call_cost=call_cost, absence_cost_per_s=risk * rate)
        worth = risk * -math.expm1(-rate * (keeps_s - idle_time.absent_s(keeps_s)))
        if worth <= call_cost:
            break
        due_s = idle_since_s[calls - 1] + max(keeps_s, lost_s - 1.0 / rate)
        if due_s > now_s:
            gain -= call_cost * (due_s - now_s) / keeps_s
            look_again_at_s = min(look_again_at_s, due_s)
            continue
        gain += worth - call_cost
        if gain > best_gain:
            best, best_gain = calls, gain
    return Warming(best, look_again_at_s)


def worth_watching(pool: WarmInstances, *, silent_s: float) -> bool:
    """Whether, after so many seconds without a request, instances may still be worth a call."""
    return silent_s <= RECLAIM_TIMES * pool.idle_time.outlived_s(0.5)


def _needed_rates(batches_per_s: float, busy: float, *, first: int) -> list[float]:
    """Returns the rates at which the instances from number `first` on are needed, where `busy` are so on average."""
    rates, chance, at_least = [], math.exp(-busy), 1.0
    for number in range(1, first + MAX_CALLS):
        if number >= first:
            rates.append(batches_per_s * max(0.0, at_least))
        at_least -= chance
        chance *= busy / number
    return rates
