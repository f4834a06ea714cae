"""Prints detection delays of changes, the rate of false alarms, and the processor time of an update.

    python -m scripts.changepoint_figures [--steps 100] [--hours 10] [--traces DIR] [--only NAME]

Two detectors are compared: "native", and "package", which has the densities and the hazard of the package
bayesian-changepoint-detection (left out where that is not installed). Each seeded step is observed by the estimators of
the engine. Counts are taken in ticks of 0.25 s. With --traces (or EDGEBURST_TRACES) the Twitter trace is used as well;
no change is known in it.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from scheduler.domain.errors import EdgeburstError
from scheduler.domain.latency import LatencyModel
from scheduler.estimators.bandwidth import Bandwidth
from scheduler.estimators.changepoint import MAX_ROWS, NATIVE, Change, Detector, Detectors
from scheduler.estimators.densities import GammaPoisson, NormalInverseGamma
from scheduler.estimators.package_changepoint import package_detectors
from scheduler.estimators.run_length import RunLengthPosterior, constant_hazard
from scheduler.estimators.service_time import ServiceTime
from scripts.support.script import run_script

TICK_S = 0.25
TICKS_PER_HOUR = 14400
TRACE_RPS = 46.15
SEARCHED = 60
"""Observations after which a step that is not detected counts as missed."""

Stream = Iterator[Change | None]
"""Whether the detector reports a change, for each observation."""


@dataclass(frozen=True)
class Step:
    """Kind of step: its name, and a function that yields the detector's results around a step at an observation."""

    name: str
    verdicts: Callable[[np.random.Generator, int], Stream]


def kinds_of_detectors(only: str | None = None) -> dict[str, Detectors]:
    """Returns the detectors to compare by name; the package's only where it is installed."""
    found = {"native": NATIVE}
    try:
        found["package"] = package_detectors()
    except EdgeburstError as error:
        print(f"only native: {error}")
    return {name: detectors for name, detectors in found.items() if only in (None, name)}


def step_kinds(detectors: Detectors = NATIVE) -> list[Step]:
    """Returns all kinds of steps, as these detectors see them."""
    kinds = [
        Step(f"rate {rps:g} rps x {factor:.3g}", partial(_rate, detectors, rps=rps, factor=factor))
        for rps in (20.0, TRACE_RPS, 100.0, 200.0)
        for factor in (1.5, 1 / 1.5)
    ]
    for sigma in (0.2, 0.3):
        kinds.append(Step(f"bandwidth / 2, noise {sigma}", partial(_bandwidth, detectors, sigma=sigma)))
    for sigma in (0.1, 0.25):
        kinds.append(Step(f"service time x 1.5, noise {sigma}", partial(_service, detectors, sigma=sigma)))
    return kinds


def _rate(detectors: Detectors, rng: np.random.Generator, at: int, *, rps: float, factor: float) -> Stream:
    detector = detectors.counts()
    counts = np.concatenate((rng.poisson(rps * TICK_S, at), rng.poisson(rps * factor * TICK_S, SEARCHED)))
    return (detector.update(count) for count in counts.tolist())


def _bandwidth(detectors: Detectors, rng: np.random.Generator, at: int, *, sigma: float) -> Stream:
    bandwidth = Bandwidth(detectors)
    bandwidth.watch()
    bytes_per_s = np.repeat([4e6, 2e6], [at, SEARCHED]) * rng.lognormal(0.0, sigma, at + SEARCHED)
    sizes = rng.integers(20_000, 400_000, at + SEARCHED)
    for i, (speed, size) in enumerate(zip(bytes_per_s.tolist(), sizes.tolist(), strict=True)):
        yield bandwidth.update(sent_at_s=float(i), upload_end_s=i + size / speed, sent_bytes=size)


def _service(detectors: Detectors, rng: np.random.Generator, at: int, *, sigma: float) -> Stream:
    latency = LatencyModel(alpha_s=0.04234, beta_s=0.008165, max_batch=64)
    service = ServiceTime(latency, detectors=detectors)
    factors = np.repeat([1.0, 1.5], [at, SEARCHED]) * rng.lognormal(0.0, sigma, at + SEARCHED)
    batches = rng.integers(1, 65, at + SEARCHED)
    for items, factor in zip(batches.tolist(), factors.tolist(), strict=True):
        yield service.update(items, factor * latency.predict_s(items))


def step_figures(step: Step, runs: int) -> tuple[float, float, float, int]:
    """Returns median and 95th percentile of the delay, the share of steps found, and the alarms before the step."""
    delays, early = [], 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        at = int(rng.integers(100, 400))
        alarms = [i for i, change in enumerate(step.verdicts(rng, at)) if change is not None]
        early += sum(i < at for i in alarms)
        delays += [i - at + 1 for i in alarms if i >= at][:1]
    median, p95 = np.percentile(delays, [50, 95]) if delays else (math.inf, math.inf)
    return float(median), float(p95), len(delays) / runs, early


def alarms(detector: Detector, values: list[float]) -> int:
    """Returns the number of changes that a detector reports."""
    return sum(detector.update(value) is not None for value in values)


def update_us(posterior: RunLengthPosterior, values: list[float]) -> float:
    """Returns the median microseconds of an update with all rows in use."""
    costs = []
    for value in values:
        started_s = time.perf_counter()
        posterior.update(value)
        costs.append(time.perf_counter() - started_s)
    return float(np.median(costs[MAX_ROWS:])) * 1e6


def print_steps(kinds: Mapping[str, Detectors], runs: int) -> None:
    """Prints the delays. Required: a median of at most 12, and at least 98 % found."""
    print(f"{runs} steps each                   median delay   95 %   found   false before")
    for name, detectors in kinds.items():
        for step in step_kinds(detectors):
            median, p95, found, early = step_figures(step, runs)
            print(f"  {step.name:<32} {median:7.1f} {p95:9.1f} {found:7.0%} {early:10d}   {name}")


def print_false_alarms(kinds: Mapping[str, Detectors], hours: float) -> None:
    """Prints the false alarms without a change. Required: at most one in an hour of Poisson arrivals."""
    print(_columns("no change: false alarms", kinds))
    ticks = int(hours * TICKS_PER_HOUR)
    for rps in (10.0, TRACE_RPS, 200.0):
        counts = np.random.default_rng(1).poisson(rps * TICK_S, ticks).tolist()
        found = [f"{alarms(each.counts(), counts) / hours:.1f}" for each in kinds.values()]
        print(_columns(f"  Poisson {rps:g} rps, {hours:g} h; an hour", found))
    for sigma in (0.1, 0.25):
        values = np.random.default_rng(1).normal(0.0, sigma, TICKS_PER_HOUR).tolist()
        found = [str(alarms(each.levels(), values)) for each in kinds.values()]
        print(_columns(f"  lognormal {sigma}, {TICKS_PER_HOUR} samples; in all", found))


def print_trace(kinds: Mapping[str, Detectors], folder: Path) -> None:
    """Prints the changes found in the trace. Required: at most one."""
    path = folder / "arrivals" / "twitter-15h-a.gaps"
    if not path.is_file():
        print(f"no trace: {path} is missing; name the folder with --traces or EDGEBURST_TRACES")
        return
    at_s = np.cumsum(np.loadtxt(path))
    for scale in (1.0, 1.8, 2.4, 3.0, 4.0):
        counts = np.bincount((at_s / scale / TICK_S).astype(int)).tolist()
        found = [str(alarms(each.counts(), counts)) for each in kinds.values()]
        print(_columns(f"  {path.name}, rate x {scale:g}; in all", found))


def _columns(what: str, values: Iterable[str]) -> str:
    return what.ljust(47) + "".join(f"{value:>10}" for value in values)


def update_costs_us() -> dict[str, float]:
    """Returns the median microseconds of an update by kind of detector, with all rows in use."""
    hazard = partial(constant_hazard, 500.0)
    rng = np.random.default_rng(1)
    counts, levels = rng.poisson(12.0, 1000).tolist(), rng.normal(0.0, 0.1, 1000).tolist()
    rate, level = (
        GammaPoisson(shape=0.5, rate=0.005, bursty=True),
        NormalInverseGamma(alpha=2.0, beta=0.08, kappa=0.05, mu=0.0),
    )
    return {
        "counts": update_us(RunLengthPosterior(rate, hazard, max_rows=MAX_ROWS), counts),
        "levels": update_us(RunLengthPosterior(level, hazard, max_rows=MAX_ROWS), levels),
    }


def print_cost() -> None:
    """Prints the time of an update. Required: at most 150 us with 200 run lengths."""
    print(f"median update at {MAX_ROWS} run lengths, us")
    for name, cost_us in update_costs_us().items():
        print(f"  {name} {cost_us:6.0f}")


def main() -> None:
    """Prints all figures."""
    parser = argparse.ArgumentParser(
        description="Prints detection delays of changes, the rate of false alarms, and the time of an update."
    )
    parser.add_argument("--steps", type=int, default=100, help="number of steps of each kind (default: 100)")
    parser.add_argument("--hours", type=float, default=10.0, help="hours of Poisson arrivals (default: 10)")
    parser.add_argument(
        "--traces", type=Path, default=Path(os.environ.get("EDGEBURST_TRACES", ".")), help="folder of the traces"
    )
    parser.add_argument("--only", choices=("native", "package"), help="one of the two detectors (default: both)")
    args = parser.parse_args()
    kinds = kinds_of_detectors(args.only)
    print_cost()
    print_steps(kinds, args.steps)
    print_trace(kinds, args.traces)
    print_false_alarms(kinds, args.hours)


if __name__ == "__main__":
    sys.exit(run_script("changepoint_figures", main))
