"""BATCH: sends all requests to functions, with a static batch size, timeout and memory.

Source: Ali, Pinciroli, Yan, Smirni, "BATCH: machine learning inference serving on serverless platforms with adaptive
batching" (SC 2020). A buffer in front of serverless functions has a batch size B, a timeout T and a memory size (here:
a tier) that are chosen for the arrival process: the cheapest ones that keep a latency percentile. There is no edge. As
in the source, a Markovian arrival process is fitted to arrival times, here to those of the simulated workload itself,
and an analytic model of the buffer gives cost and latency percentile of every B, T and tier; here it is the planner's
exact model. Like the original, it assumes warm functions.
"""

import math
from collections.abc import Sequence

import numpy as np

from scheduler.domain.requests import Request
from scheduler.planner.catalogue.function_path import FunctionPath
from scheduler.planner.functions.single_application_search import ProcessSearch
from scheduler.planner.queueing.map_fit import fit_arrivals
from scheduler.planner.queueing.map_process import MarkovianArrivals, poisson_arrivals
from scheduler.planner.queueing.matrices import Array
from scheduler.planner.site.deployed_tiers import TierOffer
from scheduler.simulator.policies.function_only import FunctionParameters
from scheduler.simulator.policies.site import Site

PLANNER = "exact"
_MIN_GAPS = 20
"""With fewer gaps no process is fitted; the arrivals count as Poisson."""
_MAX_GAPS = 50_000
"""With more gaps, stretches spread over the whole workload are used, so that the fit takes at most two seconds."""
_STRETCHES = 10
_MAX_ITEMS = 128
"""Limit of the batch size: the work of the buffer's model grows with it."""
_TIMEOUTS = 400
"""Steps of the timeout in one SLO. With coarser steps a batch has to be sent earlier than necessary."""


def best_batch(site: Site, requests: Sequence[Request]) -> FunctionParameters:
    """Returns the cheapest tier, B and T that keep the percentile; if none does, single requests to the fastest tier.

    Args:
        site: latency models, prices and the uplink.
        requests: the requests to whose arrival times the process is fitted.
    """
    process = _process(np.array([r.arrived_at_s for r in requests if r.class_name not in site.stays]))
    busy = _uplink_load(site, process)
    if process is not None and busy < 1:
        path = FunctionPath(site.mean_bytes_per_s, site.rtt_s, busy, item_bytes=site.model.request_bytes)
        max_items = min(site.model.max_items, _MAX_ITEMS)
        offer = TierOffer("the site", site.model.tiers, {}, site.function_noise, path, max_items)
        families = offer.tabulated(offer.sheet)
        search = ProcessSearch.of(
            process, families, percentile=site.percentile, step_s=site.slo_s / _TIMEOUTS, steps=_TIMEOUTS
        )
        found = search.cheapest(site.slo_s)
        if found is not None:
            timeout_s = found.timeout_s if found.cap > 1 else 0.0
            return FunctionParameters(site.model.tiers[found.family], found.cap, timeout_s)
    tier, _ = site.cheapest_function(0.0)
    return FunctionParameters(tier, 1, 0.0)


def _process(times_s: Array) -> MarkovianArrivals | None:
    """Returns a process fitted to arrival times; None if all requests arrive at once or there are fewer than two."""
    gaps_s = np.diff(times_s)
    if not gaps_s.sum() > 0:
        return None
    if len(gaps_s) < _MIN_GAPS:
        return poisson_arrivals(len(gaps_s) / float(gaps_s.sum()))
    if len(gaps_s) > _MAX_GAPS:
        starts = np.linspace(0, len(gaps_s) - _MAX_GAPS // _STRETCHES, _STRETCHES).astype(int)
        gaps_s = np.concatenate([gaps_s[start : start + _MAX_GAPS // _STRETCHES] for start in starts])
    return fit_arrivals(gaps_s).process


def _uplink_load(site: Site, process: MarkovianArrivals | None) -> float:
    """Returns the utilisation of the uplink, above 1 if it is overloaded."""
    sent_bytes_per_s = site.model.request_bytes * (process.rate_rps if process is not None else 0.0)
    return sent_bytes_per_s / site.mean_bytes_per_s if site.mean_bytes_per_s > 0 else math.inf
