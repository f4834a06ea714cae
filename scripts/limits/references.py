"""The references for one case: what a policy must pay that knows every arrival, and one that knows laws and rates.

Costs are fractions of serving everything by function at the cheapest batch; a multiplier is the cost of a late request
in units of the price of one request there. So "cost + multiplier x (late - allowed)" compares policies at equal
lateness.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from scheduler.simulator.bound_note import noisy_site
from scheduler.simulator.lagrange_dual import largest
from scheduler.simulator.limit import STEPS, NoisyProblem, NoisySite, clairvoyant_limit
from scheduler.simulator.report import cheapest_per_item
from scheduler.simulator.scenario import Scenario
from scripts.limits import causal
from scripts.limits.causal import CausalProblem, CausalProcess

Floats = npt.NDArray[np.float64]

WINDOW_S = 5.0
"""Length of the windows that local rates are counted in: shorter than bursts of traffic, longer than an SLO."""
GROUPS = 3
"""Local rates that a workload is described by."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Reference of one case: the cost, and the multiplier w* where lateness is worth its share; 0 where it is free."""

    cost: float
    multiplier: float


def local_rates(arrivals_s: Floats, *, window_s: float = WINDOW_S, groups: int = GROUPS) -> list[tuple[float, float]]:
    """Returns (requests a second, share of the requests) of the parts of a workload, by ascending rate.

    Counts in windows scatter more than rates: so much of their variance as a Poisson process has is taken out.
    """
    whole = int((arrivals_s[-1] - arrivals_s[0]) / window_s) if len(arrivals_s) else 0
    if whole < 2:
        duration_s = float(arrivals_s[-1] - arrivals_s[0]) if len(arrivals_s) > 1 else 1.0
        return [(max(len(arrivals_s) - 1, 1) / max(duration_s, 1e-9), 1.0)]
    edges_s = arrivals_s[0] + window_s * np.arange(whole + 1)
    counts = np.histogram(arrivals_s, edges_s)[0].astype(np.float64)
    mean, variance = float(counts.mean()), float(counts.var(ddof=1))
    if variance <= mean:
        return [(mean / window_s, 1.0)]
    kept = (1.0 - mean / variance) ** 0.5
    rates = np.sort(mean + kept * (counts - mean)) / window_s
    parts = np.array_split(rates, min(groups, whole))
    return [(float(part.mean()), float(part.sum() / rates.sum())) for part in parts if part.sum() > 0]


def clairvoyant_reference(scenario: Scenario, arrivals_s: Floats, *, steps: int = STEPS) -> Reference:
    """Returns what a policy must pay that knows every arrival, but no service time.

    Raises:
        LimitError: no policy keeps the percentile.
    """
    site, unit_cny = _site(scenario)
    limit = clairvoyant_limit(NoisyProblem(arrivals_s, site, steps), _percentile(scenario))
    return Reference(limit.cost / (unit_cny * len(arrivals_s)), limit.multiplier / unit_cny)


def causal_reference(
    scenario: Scenario, rates: Sequence[tuple[float, float]], *, steps: int = causal.STEPS
) -> Reference:
    """Returns what a policy must pay that knows the laws and the present rate, but no arrival and no service time.

    Args:
        scenario: with one model, one class, an edge and functions.
        rates: (requests a second, share of the requests), as of `local_rates`; each part is in a steady state, and all
            share one multiplier.
        steps: steps of time in an SLO.

    Raises:
        CausalError: value iteration has not converged.
    """
    site, unit_cny = _site(scenario)
    site = replace(site, functions=tuple(replace(batch, cost=batch.cost / unit_cny) for batch in site.functions))
    parts = [(CausalProcess(CausalProblem(rate_rps, site, steps)), share) for rate_rps, share in rates]
    mean_rps = 1.0 / sum(share / rate_rps for rate_rps, share in rates)
    middle = CausalProcess(CausalProblem(mean_rps, site, max(steps // 2, 20)))

    def costs(multipliers: Sequence[float]) -> Floats:
        return np.array([sum(share * part.solve(w) for part, share in parts) for w in multipliers])

    def rough(multipliers: Sequence[float]) -> Floats:
        return np.array([middle.solve(w) for w in multipliers])

    return Reference(*largest(costs, 1.0 - _percentile(scenario), rough=rough))


def _percentile(scenario: Scenario) -> float:
    [kind] = scenario.classes
    return kind.service_class.percentile


def _site(scenario: Scenario) -> tuple[NoisySite, float]:
    """Returns the site of a scenario, and the price of a request by function, CNY."""
    [model] = scenario.served()
    site = noisy_site(scenario, model)
    return site, cheapest_per_item(model.tiers, slo_s=site.slo_s)
