"""Prints how many requests a second of processor time the simulator of this interpreter takes.

    python scripts/support/one_simulation.py REQUESTS

The world of `edgeburst simulate --poisson 120 --slo-s 1`. Only what every commit has is imported, so that a run of this
file with PYTHONPATH measures another checkout, and one without it what is installed.
"""

import sys
import time

from scheduler.simulator.scenario import Scenario
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import poisson

RATE_RPS = 120.0

if __name__ == "__main__":
    scenario, requests = Scenario(), int(sys.argv[1])
    arriving = make_requests(scenario, poisson(RATE_RPS, rng=generators(0)[0], requests=requests))
    simulation = make_simulation(scenario, arriving)
    started_s = time.process_time()
    simulation.run()
    print(requests / (time.process_time() - started_s))
