"""Prints detection delays of changes, the rate of false alarms, and the processor time of an update.

    python -m scripts.changepoint_figures [--steps 100] [--hours 10] [--traces DIR]

Each seeded step is observed by the estimators of the engine. Counts are taken in ticks of 0.25 s. With --traces (or
EDGEBURST_TRACES) the Twitter trace is used as well; no change is known in it.
"""

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from scheduler.domain.latency import LatencyModel
from scheduler.estimators.bandwidth import Bandwidth
from scheduler.estimators.changepoint import MAX_ROWS, Change, Detector, count_detector, level_detector
from scheduler.estimators.densities import GammaPoisson, NormalInverseGamma
from scheduler.estimators.run_length import RunLengthPosterior, constant_hazard
from scheduler.estimators.service_time import ServiceTime

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


def step_kinds() -> list[Step]:
    """Returns all kinds of steps."""
    kinds = [
        Step(f"rate {rps:g} rps x {factor:.3g}", partial(_rate, rps=rps, factor=factor))
        for rps in (20.0, TRACE_RPS, 100.0, 200.0)
        for factor in (1.5, 1 / 1.5)
    ]
    for sigma in (0.2, 0.3):
        kinds.append(Step(f"bandwidth / 2, noise {sigma}", partial(_bandwidth, sigma=sigma)))
    for sigma in (0.1, 0.25):
        kinds.append(Step(f"service time x 1.5, noise {sigma}", partial(_service, sigma=sigma)))
    return kinds


def _rate(rng: np.random.Generator, at: int, *, rps: float, factor: float) -> Stream:
    detector = count_detector()
    counts = np.concatenate((rng.poisson(rps * TICK_S, at), rng.poisson(rps * factor * TICK_S, SEARCHED)))
    return (detector.update(count) for count in counts.tolist())


def _bandwidth(rng: np.random.Generator, at: int, *, sigma: float) -> Stream:
    bandwidth = Bandwidth()
    bandwidth.watch()
    bytes_per_s = np.repeat([4e6, 2e6], [at, SEARCHED]) * rng.lognormal(0.0, sigma, at + SEARCHED)
    sizes = rng.integers(20_000, 400_000, at + SEARCHED)
    for i, (speed, size) in enumerate(zip(bytes_per_s.tolist(), sizes.tolist(), strict=True)):
        yield bandwidth.update(sent_at_s=float(i), upload_end_s=i + size / speed, sent_bytes=size)


def _service(rng: np.random.Generator, at: int, *, sigma: float) -> Stream:
    latency = LatencyModel(alpha_s=0.04234, beta_s=0.008165, max_batch=64)
    service = ServiceTime(latency)
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


def print_steps(runs: int) -> None:
    """Prints the delays. Required: a median of at most 12, and at least 98 % found."""
    print(f"{runs} steps each                   median delay   95 %   found   false before")
    for step in step_kinds():
        median, p95, found, early = step_figures(step, runs)
        print(f"  {step.name:<32} {median:7.1f} {p95:9.1f} {found:7.0%} {early:10d}")


def print_false_alarms(hours: float) -> None:
    """Prints the false alarms without a change. Required: at most one in an hour of Poisson arrivals."""
    print("no change                                    false alarms an hour")
    ticks = int(hours * TICKS_PER_HOUR)
    for rps in (10.0, TRACE_RPS, 200.0):
        counts = np.random.default_rng(1).poisson(rps * TICK_S, ticks).tolist()
        print(f"  Poisson {rps:g} rps, {hours:g} h".ljust(47), f"{alarms(count_detector(), counts) / hours:7.1f}")
    for sigma in (0.1, 0.25):
        values = np.random.default_rng(1).normal(0.0, sigma, TICKS_PER_HOUR).tolist()
        name = f"  lognormal {sigma}, {TICKS_PER_HOUR} samples"
        print(name.ljust(47), f"{alarms(level_detector(), values):7d} in all")


def print_trace(folder: Path) -> None:
    """Prints the changes found in the trace. Required: at most one."""
    path = folder / "arrivals" / "twitter-15h-a.gaps"
    if not path.is_file():
        print(f"no trace: {path} is missing; name the folder with --traces or EDGEBURST_TRACES")
        return
    at_s = np.cumsum(np.loadtxt(path))
    for scale in (1.0, 1.8, 2.4, 3.0, 4.0):
        counts = np.bincount((at_s / scale / TICK_S).astype(int)).tolist()
        print(f"  {path.name}, rate x {scale:g}".ljust(47), f"{alarms(count_detector(), counts):7d} in all")


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
    args = parser.parse_args()
    print_cost()
    print_steps(args.steps)
    print_trace(args.traces)
    print_false_alarms(args.hours)


if __name__ == "__main__":
    main()
