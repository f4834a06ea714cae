"""BATCH: everything to functions, with a static batch size, timeout and memory.

Source: Ali, Pinciroli, Yan, Smirni, "BATCH: machine learning inference serving on serverless platforms with adaptive
batching" (SC 2020): a buffer in front of serverless functions whose size B, timeout T and memory (here: tier) are
chosen for the arrival process, cheapest within a latency percentile. It knows no edge. Its analytic model predicts
the percentile from a fitted arrival process; until the exact planner stands in for it, B, T and tier are found by
static search over the simulated workload itself, which can only be better informed.
"""

from collections.abc import Iterator

from scheduler.simulator.policies.function_only import FunctionParameters, rule_of_thumb
from scheduler.simulator.policies.search import Trial, choose, rank
from scheduler.simulator.policies.site import Site

PLANNER = "static search"
_TIMEOUT_FACTORS = (1.0, 0.9, 0.75, 0.6, 0.45, 0.3, 0.15, 0.05)
"""Of the SLO, less a single request's time."""
_FINALISTS = 6


def best_batch(site: Site, trial: Trial[FunctionParameters]) -> FunctionParameters:
    """Returns tier, B and T: all are tried on a slice of the workload, the best on all of it."""
    target = site.percentile
    grid = [rule_of_thumb(site), *_grid(site)]
    tried = [trial(parameters, whole=False) for parameters in grid]
    # The best of the slice, and the best of those with room to spare: a slice may flatter.
    numbers = {
        number
        for wanted in (target, 1 - (1 - target) / 3)
        for number in sorted(range(len(grid)), key=lambda number: rank(tried[number], wanted))[:_FINALISTS]
    }
    return choose([grid[number] for number in sorted(numbers)], trial, target=target)


def _grid(site: Site) -> Iterator[FunctionParameters]:
    for tier in site.model.tiers:
        yield FunctionParameters(tier, 1, 0.0)
        most_s = site.slo_s - tier.law.predict_s(1) - site.rtt_s
        for items in range(2, site.function_items(tier) + 1):
            for factor in _TIMEOUT_FACTORS if most_s > 0 else ():
                yield FunctionParameters(tier, items, most_s * factor)
