"""The engine's work for a request, counted without a clock: calls of functions, and bytes that stay.

The number of calls is the same on every machine, and differs between versions of Python, which count comprehensions
differently. A change that needs more on purpose raises the bound in the same commit and says why;
`PYTHONPATH=. python tests/unit/test_engine_work.py` prints the calls of one version.
"""

import gc
import sys
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace

import pytest

from scheduler import engine
from scheduler.domain.messages import Command, Message, RequestArrived
from scheduler.engine import Engine
from scheduler.simulator.shell import Simulation
from scheduler.simulator.world import make_backends, make_requests
from scripts import bench_engine
from scripts.command_hash import scenarios, workload
from scripts.support.steady_queue import CASES, SteadyQueue, calls_a_request, counted_calls

WARM_UP = 200
"""Requests that end before calls are counted."""
COUNTED = {"overdue": 1500}
"""Requests that end while calls are counted, where that is not 200: those that may be late go in bursts."""
pytestmark = pytest.mark.skipif(
    not (engine.__file__ or "").endswith(".py"), reason="a compiled engine calls no functions"
)

ROOM = 1.05
"""Part of the expected calls that is allowed."""
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
EXPECTED = {
    "edge only": {"3.10": 95.0, "3.11": 95.0, "3.12": 94.0, "3.13": 94.1},
    "edge only, sizes and priorities": {"3.10": 380.9, "3.11": 380.9, "3.12": 375.3, "3.13": 375.5},
    "edge-only class beside functions": {"3.10": 101.5, "3.11": 101.5, "3.12": 98.3, "3.13": 98.4},
    "functions only": {"3.10": 325.9, "3.11": 325.9, "3.12": 318.8, "3.13": 318.6},
    "edge and functions": {"3.10": 113.5, "3.11": 113.5, "3.12": 110.3, "3.13": 110.4},
    "overdue": {"3.10": 236.6, "3.11": 236.6, "3.12": 228.2, "3.13": 228.2},
    "deferrable": {"3.10": 147.2, "3.11": 147.2, "3.12": 143.8, "3.13": 143.9},
    "single requests": {"3.10": 509.4, "3.11": 509.4, "3.12": 470.2, "3.13": 469.4},
    "sixteen slots": {"3.10": 214.6, "3.11": 214.6, "3.12": 194.1, "3.13": 194.3},
    "four edge servers": {"3.10": 246.1, "3.11": 246.1, "3.12": 225.9, "3.13": 226.1},
    "overload with noise": {"3.10": 257.7, "3.11": 257.7, "3.12": 251.4, "3.13": 251.5},
    "classes with faults": {"3.10": 467.2, "3.11": 467.2, "3.12": 449.6, "3.13": 449.4},
    "two tiers, few slots": {"3.10": 324.8, "3.11": 324.8, "3.12": 317.2, "3.13": 317.2},
}
"""Calls a request with 64 waiting, and in simulations: by case, and by version of Python."""
LONGEST, SHORTEST = 4_000, 64
ASKED_RATIO = 3.0
"""Of the calls with 4,000 waiting to those with 64."""
SLOTS_RATIO = 1.3
"""Of the calls with 16 slots to those with one."""
KEPT_BYTES = 36.0
"""Of each request, once what is bounded is full: a number that is kept and the reference to it take 40."""
SIMULATED = ("overload with noise", "classes with faults", "two tiers, few slots")


class CountingEngine:
    """An engine whose calls are counted."""

    def __init__(self, counted: Engine) -> None:
        self.engine, self.arrived, self.calls = counted, 0, 0

    def handle(self, messages: Sequence[Message], now_s: float) -> list[Command]:
        commands, calls = counted_calls(lambda: self.engine.handle(messages, now_s))
        self.calls += calls
        self.arrived += sum(isinstance(message, RequestArrived) for message in messages)
        return commands

    def next_wakeup_s(self) -> float | None:
        wakeup_s, calls = counted_calls(self.engine.next_wakeup_s)
        self.calls += calls
        return wakeup_s


def calls_in_simulation(wanted: str, *, parallel: int = 1) -> float:
    name, scenario, rate_rps = next(each for each in scenarios() if each[0] == wanted)
    scenario = replace(scenario, edge_parallel=parallel)
    settings = replace(scenario.engine_settings(), explain_ring=256)
    counting = CountingEngine(Engine(settings))
    edge, functions = make_backends(scenario, settings)
    requests = make_requests(scenario, workload(name, scenario, rate_rps * parallel, requests=400 * parallel))
    Simulation(engine=counting, requests=requests, edge=edge, functions=functions).run()
    return counting.calls / counting.arrived


def calls_at(case: str, waiting: int) -> float:
    queue = SteadyQueue(CASES[case], waiting)
    queue.serve(WARM_UP)
    return calls_a_request(queue, COUNTED.get(case, 200))


def expected(case: str) -> float:
    """Returns the expected calls a request; of a Python that is not in the table, the most of any."""
    return EXPECTED[case].get(VERSION, max(EXPECTED[case].values()))


def measured() -> dict[str, float]:
    """Returns the calls of this Python."""
    return {**{case: calls_at(case, SHORTEST) for case in CASES}, **{s: calls_in_simulation(s) for s in SIMULATED}}


@pytest.mark.parametrize("case", CASES)
def test_a_queue_of_thousands_costs_little_more_than_one_of_64(case: str) -> None:
    short, long = calls_at(case, SHORTEST), calls_at(case, LONGEST)
    bound = expected(case)
    assert short <= ROOM * bound, f"{short:.1f} calls a request, expected were {bound}"
    assert long <= ASKED_RATIO * short, (
        f"{long:.1f} calls a request with {LONGEST} waiting, {short:.1f} with {SHORTEST}"
    )


@pytest.mark.parametrize("name", SIMULATED)
def test_a_request_of_a_simulation_takes_no_more_calls_than_it_did(name: str) -> None:
    calls, bound = calls_in_simulation(name), expected(name)
    assert calls <= ROOM * bound, f"{calls:.1f} calls a request, expected were {bound}"


@pytest.mark.parametrize("case", ["edge and functions", "functions only"])
def test_nothing_is_kept_of_requests_that_have_ended(case: str) -> None:
    queue = SteadyQueue(CASES[case], SHORTEST)
    queue.serve(2_000)
    tracemalloc.start()
    try:
        # Long enough for what is replaced in windows of batches to have been noted once.
        queue.serve(4_600)
        gc.collect()
        ended, before = queue.ended, tracemalloc.get_traced_memory()[0]
        queue.serve(2_000)
        gc.collect()
        kept = (tracemalloc.get_traced_memory()[0] - before) / (queue.ended - ended)
    finally:
        tracemalloc.stop()
    assert kept <= KEPT_BYTES, f"{kept:.1f} bytes a request"


if __name__ == "__main__":
    print(VERSION, {case: round(calls, 1) for case, calls in measured().items()})


@pytest.mark.parametrize("name", ["near saturation", "overload"])
def test_sixteen_slots_take_little_more_than_one(name: str) -> None:
    """At the same load each. Which slot comes next is found without asking all of them."""
    one, sixteen = calls_in_simulation(name), calls_in_simulation(name, parallel=16)
    assert sixteen <= SLOTS_RATIO * one, f"{sixteen:.1f} calls a request, {one:.1f} with one slot"


def test_slots_are_measured_beside_one_slot(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_engine, "REQUESTS", 100)
    monkeypatch.setattr(bench_engine, "TURNS", 1)
    assert bench_engine.main(["--slots", "2"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert "2 slots" in head
    assert [row[:20].strip() for row in rows] == list(bench_engine.SLOTS_AT)
    assert all(float(row.split()[-1]) > 0.0 for row in rows)
    with pytest.raises(SystemExit):
        bench_engine.main(["--slots", "1"])
