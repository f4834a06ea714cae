"""Counts the records that contradict themselves, over the seeded simulations of `scripts.command_hash`.

    python -m scripts.contradictions

A line a scenario: its name, and how many decisions were recorded, in how many of them offers were compared, and how
many records do not lead to the choice that they say was made. Only the JSON of the explanations is read.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import islice

from scheduler.explain.json_lines import to_json
from scheduler.simulator.explanations import explanations, whole_ring
from scheduler.simulator.scenario import Scenario
from scheduler.simulator.world import make_requests, make_simulation
from scheduler.terminal import counted
from scripts.command_hash import scenarios, workload
from scripts.support.replay_records import Replay
from scripts.support.script import run_script

SHOWN = 5
"""Contradictions of a scenario that are printed."""


def replay(name: str, scenario: Scenario, rate_rps: float) -> Replay:
    """Simulates a scenario and replays its choices from the explanations of its requests."""
    requests = make_requests(scenario, workload(name, scenario, rate_rps))
    ring, replayed = whole_ring(len(requests)), Replay()
    make_simulation(scenario, requests, ring=ring).run()
    replayed.add(json.loads(to_json(explanation)) for explanation in explanations(ring, requests))
    return replayed


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the counts; returns 1 if there is a contradiction."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(
        arguments
    )
    decisions = compared = contradictions = 0
    print(f"{'scenario':28} {'decisions':>9} {'compared':>9} {'contradictions':>14}")
    for name, scenario, rate_rps in counted(list(scenarios()), "simulating", "scenarios"):
        found = replay(name, scenario, rate_rps)
        _print(name, found.decisions, found.compared, len(found.contradictions))
        for sentence in islice(found.contradictions, SHOWN):
            print(f"  {sentence}")
        decisions, compared = decisions + found.decisions, compared + found.compared
        contradictions += len(found.contradictions)
    _print("all", decisions, compared, contradictions)
    return 1 if contradictions else 0


def _print(name: str, decisions: int, compared: int, contradictions: int) -> None:
    print(f"{name:28} {decisions:9} {compared:9} {contradictions:14}", flush=True)


if __name__ == "__main__":
    sys.exit(run_script("contradictions", main))
