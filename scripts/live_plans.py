"""Compares the simulated cost of function buffers with the cost predicted by the exact planner; without an edge.

Run with `python -m scripts.live_plans`. For each site the exact planner makes a plan for the true rates. One simulation
follows this plan (`function_plan`); in another one the engine plans from its estimates. Costs are fractions of the
predicted cost. The number in brackets is the fraction within the SLO minus the percentile, for the worst class.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.plans import EngineSettings, LoadedBuffer, ModelSettings, ServiceClass
from scheduler.domain.requests import Request
from scheduler.engine import Engine
from scheduler.planner.catalogue.function_path import AT_ONCE
from scheduler.planner.functions.problem import Application, FunctionPlan, PlanningProblem
from scheduler.planner.functions.solve import plan_functions
from scheduler.planner.site.deployed_tiers import TierOffer
from scheduler.simulator.backends import ColdStarts, SimulatedFunctions, noise
from scheduler.simulator.faults import Faults
from scheduler.simulator.network import AMPLE, Uplink
from scheduler.simulator.shell import TOLERANCE_S, Journal, Simulation
from scheduler.terminal import counted
from scripts.support.script import run_script

STEEP = FunctionTier("steep", "f", LatencyModel(0.2, 0.06, 8), Price(per_s=1.3e-5, per_call=9e-7))
FLAT = FunctionTier("flat", "g", LatencyModel(0.05, 0.004, 32), Price(per_s=1.2e-4, per_call=9e-7))
QUICK = ServiceClass("quick", slo_s=0.5, percentile=0.95)
NORMAL = ServiceClass("normal", slo_s=1.2)
PATIENT = ServiceClass("patient", slo_s=4.0)


@dataclass(frozen=True, slots=True)
class Site:
    """Site: classes with their rates, tiers, and the noise of service times."""

    rates_rps: tuple[tuple[ServiceClass, float], ...]
    tiers: tuple[FunctionTier, ...]
    sigma: float

    @property
    def classes(self) -> tuple[ServiceClass, ...]:
        """Service classes without their rates."""
        return tuple(service_class for service_class, _ in self.rates_rps)

    def predicted_plan(self) -> FunctionPlan:
        """Returns the exact plan for the true rates."""
        offer = TierOffer("the site's tiers", self.tiers, {}, self.sigma, AT_ONCE, 64)
        apps = tuple(Application(c.name, c.slo_s, c.percentile, rate) for c, rate in self.rates_rps)
        return plan_functions(PlanningProblem(apps, offer, offer.sheet))

    def requests(self, count: int, seed: int) -> list[Request]:
        """Returns Poisson arrivals of all classes."""
        rng = np.random.default_rng(seed)
        rates = np.array([rate for _, rate in self.rates_rps])
        times = np.cumsum(rng.exponential(1 / rates.sum(), count)).tolist()
        which = rng.choice(len(rates), count, p=rates / rates.sum()).tolist()
        return [
            Request(i, "m", at_s, at_s + self.classes[k].slo_s, body_bytes=20_000, class_name=self.classes[k].name)
            for i, (at_s, k) in enumerate(zip(times, which, strict=True), start=1)
        ]

    def run(self, requests: Sequence[Request], buffers: tuple[LoadedBuffer, ...], seed: int) -> Journal:
        """Returns the journal of a simulation that follows the given buffers; without buffers the engine plans."""
        model = ModelSettings("m", classes=self.classes, tiers=self.tiers, buffers=buffers)
        functions = SimulatedFunctions(
            tiers={tier.name: tier for tier in self.tiers},
            uplink=Uplink(AMPLE, rtt_s=0.0),
            faults=Faults(()),
            noise=noise(self.sigma, np.random.default_rng([seed, 1])),
            cold_starts=ColdStarts(),
            concurrency=1000,
        )
        settings = EngineSettings(models=(model,), uplink_rtt_s=0.0, queue_max_bytes=2**40)
        return Simulation(engine=Engine(settings), requests=requests, edge=None, functions=functions).run()


SITES = tuple(
    Site(rates, tiers, sigma)
    for sigma in (0.0, 0.1)
    for rates, tiers in (
        *(
            (((service_class, rate),), (tier,))
            for tier in (STEEP, FLAT)
            for service_class, rate in ((QUICK, 30.0), (NORMAL, 10.0), (PATIENT, 10.0))
        ),
        (((QUICK, 6.0), (NORMAL, 4.0), (PATIENT, 10.0)), (STEEP, FLAT)),
    )
)


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--requests", type=int, default=6000, metavar="N", help="requests of each site (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=3, metavar="S", help="seed of arrivals and noise (default: %(default)s)"
    )
    args = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 130)
    table = Table(title="cost as a fraction of the cost predicted for the true rates", title_justify="left")
    for column in ("classes, requests/s", "tiers", "noise", "predicted a request", "fixed plan", "live plans"):
        table.add_column(column)
    for site in counted(SITES, "planning live", "sites"):
        table.add_row(*_row(site, args.requests, args.seed))
    console.print(table)
    return 0


def _row(site: Site, count: int, seed: int) -> tuple[str, ...]:
    plan, requests = site.predicted_plan(), site.requests(count, seed)
    loaded = tuple(
        LoadedBuffer(g.apps, g.function.kind, g.function.batch, g.timeouts_s, g.cost_per_request) for g in plan.groups
    )
    cells = []
    for buffers in (loaded, ()):
        journal = site.run(requests, buffers, seed)
        ratio = journal.cost() / count / plan.total_cost_per_request
        cells.append(f"{ratio:.3f} [{min(_above(journal, c) for c in site.classes):+.3f}]")
    return (
        ", ".join(f"{c.name} {rate:g}" for c, rate in site.rates_rps),
        ", ".join(tier.name for tier in site.tiers),
        f"{site.sigma:g}",
        f"{plan.total_cost_per_request:.3g} {plan.currency}",
        *cells,
    )


def _above(journal: Journal, service_class: ServiceClass) -> float:
    """Returns the fraction of a class within its SLO minus its percentile."""
    ours = [r for r in journal.requests if r.class_name == service_class.name]
    good = [r for r in ours if journal.ended_at_s[r.request_id] <= r.deadline_s + TOLERANCE_S]
    return sum(r.request_id in journal.answered_by for r in good) / len(ours) - service_class.percentile


if __name__ == "__main__":
    sys.exit(run_script("live_plans", main))
