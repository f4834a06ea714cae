"""Prints hashes of the engine's commands in seeded simulations: equal hashes before and after a refactoring.

    python -m scripts.command_hash [--log DIR] [--against CHECKOUT]

Each line shows the name of a scenario, the number of commands, and the hash of their contents (time, kind, place,
request ids). With --against the scenarios are also run in another checkout, and the first command that differs is
shown.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from scheduler.domain.latency import FunctionTier, LatencyModel
from scheduler.domain.messages import (
    AnswerRequest,
    BillCorrected,
    Command,
    ComputePlan,
    PlanAdopted,
    QuotaLearned,
    RefuseRequest,
    SendBatch,
    SendProbe,
)
from scheduler.domain.plans import ServiceClass
from scheduler.domain.requests import Backend
from scheduler.simulator.backends import ColdStarts
from scheduler.simulator.faults import Fault
from scheduler.simulator.network import Bandwidth
from scheduler.simulator.scenario import (
    FUNCTION_LATENCY,
    FUNCTION_PRICE,
    Scenario,
    SimulatedClass,
    SimulatedModel,
    SpendCaps,
)
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.terminal import counted
from scheduler.workloads import Workload, poisson, with_bursts
from scripts.support.script import run_script

REQUESTS = 3_000
DIGITS = 9
"""Decimal places of a second to which times are compared."""

NOISY = Scenario(edge_noise=0.1, function_noise=0.25)
FAST_LATENCY = LatencyModel(0.05, 0.02, 16)
TWO_TIERS = (
    FunctionTier("small", "f", FUNCTION_LATENCY, FUNCTION_PRICE, max_in_flight=40),
    FunctionTier("large", "g", LatencyModel(0.12, 0.06, 8), replace(FUNCTION_PRICE, per_s=3e-5), max_in_flight=20),
)
CLASSES = (
    SimulatedClass(ServiceClass("high", slo_s=0.6), priority=1),
    SimulatedClass(ServiceClass("low", serve_late=True), priority=3),
    SimulatedClass(ServiceClass("local", edge_only=True), share=0.5),
    SimulatedClass(ServiceClass("patient", slo_s=5.0, deferrable=True), share=0.5),
)
ROUGH_EDGE = (Fault("slow", 4.0, 6.0, 4.0), Fault("down", 9.0, 11.0))
ROUGH_FUNCTIONS = (Fault("throttle", 12.0, 13.0), Fault("slow", 15.0, 17.0, 8.0), Fault("down", 19.0, 20.0))
COLD = ColdStarts(start_s=1.5, idle_s=20.0)


def _models() -> tuple[SimulatedModel, ...]:
    light = SimulatedModel("light", 2.0, CLASSES[:1], FAST_LATENCY, TWO_TIERS[:1], 8_000, 16)
    heavy = SimulatedModel("heavy", 1.0, CLASSES[1:2], LatencyModel(0.08, 0.02, 32), TWO_TIERS[1:], 60_000, 32)
    return light, heavy


def scenarios() -> Iterator[tuple[str, Scenario, float]]:
    """Yields (name, scenario, requests a second), with all kinds of loads, labels, limits and faults of the engine."""
    half_s = replace(NOISY, classes=(SimulatedClass(ServiceClass(slo_s=0.6)),))
    slow_link = Bandwidth((0.0,), (1.2e6,))
    steps = Bandwidth((0.0, 8.0, 14.0), (6e6, 5e5, 6e6))
    yield "light load", Scenario(), 40.0
    yield "near saturation", Scenario(seed=1), 110.0
    yield "overload", Scenario(seed=2), 187.0
    yield "overload with noise", replace(NOISY, seed=3), 180.0
    yield "short deadline with noise", replace(half_s, seed=4), 112.0
    yield "short deadline, overload", replace(half_s, seed=5), 160.0
    yield "functions only", replace(NOISY, models=(_only(edge=False),), seed=6), 60.0
    yield "edge only", replace(NOISY, tiers=(), seed=7), 120.0
    yield "slow uplink", replace(NOISY, bandwidth=slow_link, rtt_s=0.03, seed=8), 160.0
    yield "bandwidth steps", replace(NOISY, bandwidth=steps, rtt_s=0.02, request_bytes=60_000, seed=9), 150.0
    yield "cold starts", replace(NOISY, cold_starts=COLD, rtt_s=0.02, seed=10), 140.0
    yield "sparse and cold", replace(NOISY, models=(_only(edge=False),), cold_starts=COLD, seed=11), 0.5
    yield "faults", replace(NOISY, edge_faults=ROUGH_EDGE, function_faults=ROUGH_FUNCTIONS, seed=12), 90.0
    yield "classes", replace(NOISY, classes=CLASSES, seed=13), 130.0
    yield "classes with faults", _rough(14), 70.0
    yield "cap, edge only", replace(NOISY, caps=SpendCaps(2e-4), seed=15), 150.0
    yield "cap, serve late", replace(NOISY, classes=CLASSES, caps=SpendCaps(2e-4, None, "serve-late"), seed=16), 140.0
    yield "cap, low priority", replace(_rough(17), caps=SpendCaps(4e-4, None, "refuse-low-priority")), 120.0
    yield "two models", replace(NOISY, models=_models(), rtt_s=0.02, seed=18), 120.0
    yield "two tiers, few slots", replace(NOISY, classes=CLASSES, tiers=TWO_TIERS, concurrency=12, seed=19), 170.0


def _rough(seed: int) -> Scenario:
    return replace(
        NOISY, classes=CLASSES, rtt_s=0.02, edge_faults=ROUGH_EDGE, function_faults=ROUGH_FUNCTIONS, seed=seed
    )


def _only(*, edge: bool) -> SimulatedModel:
    base = Scenario()
    return SimulatedModel(
        "only", 1.0, base.classes, base.edge_latency if edge else None, () if edge else base.tiers, 24_000, 128
    )


def workload(name: str, scenario: Scenario, rate_rps: float, *, requests: int = REQUESTS) -> Workload:
    """Returns the arrivals of a scenario, the same for the same name, seed and number of requests."""
    arrivals, _, _, _, bursts, *_ = generators(scenario.seed)
    drawn = poisson(rate_rps, rng=arrivals, requests=min(200, requests) if rate_rps < 1.0 else requests)
    if name == "light load":
        return with_bursts(drawn, [(20.0, 6.0, 120.0)], rng=bursts)
    return drawn


def lines(commands: Sequence[tuple[float, Command]]) -> Iterator[str]:
    """Yields a line for each command: time, kind, place and request ids. What only corrects the books is left out."""
    for now_s, command in commands:
        if not isinstance(command, BillCorrected):
            yield f"{now_s:.{DIGITS}f} {_said(command)}"


def _said(command: Command) -> str:
    match command:
        case SendBatch(batch):
            members = " ".join(map(str, batch.request_ids))
            place = "edge" if batch.backend is Backend.EDGE else f"function:{batch.tier}"
            return f"send {place} [{members}]"
        case AnswerRequest(request_id, _):
            return f"answer [{request_id}]"
        case RefuseRequest(request_id, refusal):
            return f"refuse {refusal.status} [{request_id}]"
        case ComputePlan():
            return "plan"
        case SendProbe(place):
            return f"probe {place.backend.value}"
        case PlanAdopted():
            return "adopt"
        case QuotaLearned(model, tier, granted):
            return f"quota {model} {tier} {granted}"
    raise ValueError(f"a command of an unknown kind: {command!r}")


def run(name: str, scenario: Scenario, rate_rps: float) -> list[str]:
    """Returns the lines of the commands of one simulation."""
    requests = make_requests(scenario, workload(name, scenario, rate_rps))
    return list(lines(make_simulation(scenario, requests, keep_commands=True).run().commands))


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the hashes; returns 1 if the commands of another checkout differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--log", type=Path, metavar="DIR", help="write the commands of each scenario to a file in DIR")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="compare with the commands of this checkout")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        other = None if options.against is None else start_other(options.against.resolve(), Path(folder))
        logs = {}
        for name, scenario, rate_rps in counted(list(scenarios()), "simulating", "scenarios"):
            logs[name] = run(name, scenario, rate_rps)
            if options.log is not None:
                options.log.mkdir(parents=True, exist_ok=True)
                file_of(options.log, name).write_text("\n".join(logs[name]) + "\n")
            print(f"{name:28} {len(logs[name]):7} {_hash(logs[name])}", flush=True)
        print(f"{'all':28} {sum(map(len, logs.values())):7} {_hash([line for log in logs.values() for line in log])}")
        return 0 if other is None else compare(other, Path(folder), logs)


def start_other(checkout: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Starts this script in another checkout, whose sources come before what is installed; its logs go to `folder`."""
    command = [sys.executable, "-m", "scripts.command_hash", "--log", str(folder)]
    environ = {**os.environ, "PYTHONPATH": str(checkout)}
    return subprocess.Popen(command, cwd=checkout, env=environ, stdout=subprocess.DEVNULL)


def compare(other: subprocess.Popen[bytes], folder: Path, logs: dict[str, list[str]]) -> int:
    """Prints the first difference of each scenario; returns 1 if there is any, or if the other checkout failed."""
    if other.wait() != 0:
        print("the other checkout's run failed", file=sys.stderr)
        return 1
    differing = 0
    for name, log in logs.items():
        file = file_of(folder, name)
        theirs = file.read_text().splitlines() if file.exists() else []
        if theirs == log:
            continue
        differing += 1
        at = next((i for i, (a, b) in enumerate(zip(log, theirs, strict=False)) if a != b), min(len(log), len(theirs)))
        here, there = (side[at] if at < len(side) else "nothing more" for side in (log, theirs))
        print(f"{name}: command {at + 1} differs\n  here:  {here}\n  there: {there}")
    print(f"{len(logs) - differing} of {len(logs)} scenarios have identical commands")
    return 1 if differing else 0


def file_of(folder: Path, name: str) -> Path:
    """Returns the log file of a scenario."""
    return folder / f"{name.replace(',', '').replace(' ', '-')}.log"


def _hash(log: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(log).encode()).hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(run_script("command_hash", main))
