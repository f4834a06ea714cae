"""What the cap on saved credit does: a quiet time, then an overload, with light and with heavy tails of service times.

    python -m scripts.credit_cap

A class may save as many misses as its percentile allows among so many ends (`MOST_COUNTED`). Each row: law of the
function's noise, that number of ends, cost as a fraction of all by function, and what is late (or refused) of 10,000
requests: in the quiet time, in the overload, and in the worst 1,000 requests in a row.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from scheduler.dispatch import slo_budget
from scheduler.simulator.report import cheapest_per_item
from scheduler.simulator.scenario import Scenario
from scheduler.simulator.shell import Journal
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import steps
from scripts.support.script import run_script

QUIET_RPS, QUIET_S, BUSY_RPS, BUSY_S = 90.0, 240.0, 160.0, 30.0
"""At an SLO of 1 s the edge serves about 115 requests a second with its noise."""
LAWS = (("lognormal, 0.25", {"function_noise": 0.25}), ("pareto:3", {"function_tail": 3.0}))
CAPS = (1_000.0, 10_000.0, math.inf)
ROW = "| {:16} | {:>9} | {:>6} | {:>5} | {:>8} | {:>11} |"
IN_A_ROW = 1_000


def late_of(journal: Journal) -> NDArray[np.bool_]:
    """Returns which requests missed their objective, in the order of arrival."""
    ended_s, refused = journal.ended_at_s, journal.refusals
    return np.array([r.request_id in refused or ended_s[r.request_id] > r.deadline_s for r in journal.requests])


def rows(
    laws: Sequence[tuple[str, dict[str, float]]], caps: Sequence[float], seconds: tuple[float, float]
) -> Iterator[str]:
    """Yields the lines of the table."""
    yield ROW.format("law", "ends", "cost", "quiet", "overload", "worst 1,000")
    yield "|---|---|---|---|---|---|"
    quiet_s, busy_s = seconds
    own = slo_budget.MOST_COUNTED
    try:
        for name, noise in laws:
            scenario = replace(Scenario(), edge_noise=0.1, **noise)  # type: ignore[arg-type]
            workload = steps([(quiet_s, QUIET_RPS), (busy_s, BUSY_RPS)], rng=generators(scenario.seed)[0])
            requests = make_requests(scenario, workload)
            first_busy = sum(request.arrived_at_s < quiet_s for request in requests)
            for cap in caps:
                slo_budget.MOST_COUNTED = cap
                journal = make_simulation(scenario, requests).run()
                late = late_of(journal)
                worst = int(np.convolve(late, np.ones(IN_A_ROW), "valid").max())
                cost = journal.cost() / (cheapest_per_item(scenario.tiers, slo_s=1.0) * len(requests))
                yield ROW.format(
                    name,
                    "no cap" if math.isinf(cap) else f"{cap:,.0f}",
                    f"{cost:.4f}",
                    f"{1e4 * late[:first_busy].mean():.0f}",
                    f"{1e4 * late[first_busy:].mean():.0f}",
                    10 * worst,
                )
    finally:
        slo_budget.MOST_COUNTED = own


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(
        arguments
    )
    for line in rows(LAWS, CAPS, (QUIET_S, BUSY_S)):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run_script("credit_cap", main))
