"""Delays and false alarms of change detection, as rows of the evaluation; see scripts.changepoint_figures."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from scheduler.estimators.changepoint import count_detector
from scheduler.workloads import read_gaps
from scripts.changepoint_figures import TICK_S, TICKS_PER_HOUR, TRACE_RPS, Step, alarms, step_figures, step_kinds
from scripts.evaluation.case import Result, Row
from scripts.evaluation.tables import Table, number

STEADY_RPS = (10.0, TRACE_RPS, 200.0)
TRACE_SCALES = (1.0, 2.4, 4.0)


def tasks(*, runs: int, hours: float, traces: Sequence[Path]) -> Iterator[Callable[[], Result]]:
    """Yields the tasks.

    Args:
        runs: number of seeded steps of each kind.
        hours: hours of Poisson arrivals without a change.
        traces: files of real arrivals.
    """
    for step in step_kinds():
        yield partial(_found, step, runs)
    for rps in STEADY_RPS:
        yield partial(_false_alarms, rps, hours)
    for trace in traces:
        for scale in TRACE_SCALES:
            yield partial(_alarms_on, trace, scale)


def _row(name: str, *, on_trace: bool = False, **figures: float) -> Result:
    identity: Row = {
        **{"suite": "changepoints", "case": name, "policy": "detector", "variant": "", "on_trace": on_trace, "seed": 0}
    }
    return Result({**identity, **figures})


def _found(step: Step, runs: int) -> Result:
    median, p95, found, early = step_figures(step, runs)
    return _row(step.name, delay_median=median, delay_p95=p95, found=found, alarms_before=float(early))


def _false_alarms(rps: float, hours: float) -> Result:
    counts = np.random.default_rng(1).poisson(rps * TICK_S, int(hours * TICKS_PER_HOUR)).tolist()
    return _row(f"Poisson {rps:g}/s, {hours:g} h", alarms_per_hour=alarms(count_detector(), counts) / hours)


def _alarms_on(trace: Path, scale: float) -> Result:
    times_s = read_gaps(trace).faster(scale).times_s
    counts = np.bincount((times_s / TICK_S).astype(np.int64)).tolist()
    found = alarms(count_detector(), counts)
    return _row(f"{trace.stem}, rate x {scale:g}", on_trace=True, alarms=float(found))


def table(rows: Sequence[Row]) -> Table:
    """Returns the table of the detectors."""
    columns = ("delay_median", "delay_p95", "found", "alarms_before", "alarms_per_hour", "alarms")
    header = ("case", "median delay", "95 %", "found", "alarms before", "false alarms an hour", "alarms in all")
    lines = tuple(
        (str(row["case"]), *(f"{number(row, column):g}" if column in row else "" for column in columns)) for row in rows
    )
    note = "Delays in ticks of 0.25 s for rates, in samples for the rest."
    return Table("Changepoints", note, header, lines)
