"""BATCH: everything to functions, with a static batch size, timeout and memory.

Source: Ali, Pinciroli, Yan, Smirni, "BATCH: machine learning inference serving on serverless platforms with adaptive
batching" (SC 2020): a buffer in front of serverless functions whose size B, timeout T and memory (here: tier) are
chosen for the arrival process, cheapest within a latency percentile. It knows no edge. As there, a Markovian process
is fitted to arrival times, here to those of the simulated workload itself, and an analytic model of the buffer, here
the exact planner's, says what every B, T and tier costs and who is late. Like the original it plans for warm functions.
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
_FEWEST_GAPS = 20
"""Fewer do not show a process: they are taken for Poisson."""
_MOST_GAPS = 50_000
"""More are thinned out to stretches from all over the workload: the fit stays within a second or two."""
_STRETCHES = 10
_MOST_ITEMS = 128
"""In a batch: the work on the buffer's law grows with them."""
_TIMEOUTS = 400
"""In an SLO; the coarser they are, the more of it is lost to a batch that must just be in time."""


def best_batch(site: Site, requests: Sequence[Request]) -> FunctionParameters:
    """Returns the cheapest tier, B and T that keep the percentile; single requests to the fastest where none does.

    Parameters:
        site: laws, prices and the uplink.
        requests: whose arrival times the process is fitted to.
    """
    process = _process(np.array([r.arrived_at_s for r in requests if r.class_name not in site.stays]))
    busy = _uplink_load(site, process)
    if process is not None and busy < 1:
        path = FunctionPath(site.mean_bytes_per_s, site.rtt_s, busy, item_bytes=site.model.request_bytes)
        most = min(site.model.max_items, _MOST_ITEMS)
        offer = TierOffer("the site", site.model.tiers, {}, site.function_noise, path, most)
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
    """The process behind the arrivals; None where there are too few, or all at once."""
    gaps_s = np.diff(times_s)
    if not gaps_s.sum() > 0:
        return None
    if len(gaps_s) < _FEWEST_GAPS:
        return poisson_arrivals(len(gaps_s) / float(gaps_s.sum()))
    if len(gaps_s) > _MOST_GAPS:
        starts = np.linspace(0, len(gaps_s) - _MOST_GAPS // _STRETCHES, _STRETCHES).astype(int)
        gaps_s = np.concatenate([gaps_s[start : start + _MOST_GAPS // _STRETCHES] for start in starts])
    return fit_arrivals(gaps_s).process


def _uplink_load(site: Site, process: MarkovianArrivals | None) -> float:
    """Fraction of time that the uplink sends; above 1 where it cannot keep up."""
    sent_bytes_per_s = site.model.request_bytes * (process.rate_rps if process is not None else 0.0)
    return sent_bytes_per_s / site.mean_bytes_per_s if site.mean_bytes_per_s > 0 else math.inf
