"""Runs cases, in this process or in several processes."""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from typing import TypeVar

from scheduler.domain.errors import EdgeburstError
from scheduler.simulator import report
from scheduler.simulator.bound_note import bound_of
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import Workload
from scripts.evaluation import measures
from scripts.evaluation.case import BOUND, Case, Result, Row

T = TypeVar("T")


def run_case(case: Case) -> Result:
    """Returns the result of a case; except for measured times, it is the same on every run.

    Raises:
        EdgeburstError: the case cannot be run; the message names it.
    """
    try:
        workload = case.traffic.workload(generators(case.scenario.seed)[0])
        if case.scenario.policy == BOUND:
            return Result(_identity(case, workload) | _bound(case, workload))
        return _simulated(case, workload)
    except EdgeburstError as error:
        raise EdgeburstError(f"{case.suite}, {case.name}, {case.scenario.policy}: {error}") from error


def _simulated(case: Case, workload: Workload) -> Result:
    requests = make_requests(case.scenario, workload)
    # Policies with hindsight search their parameters here, outside the measured time.
    simulation = make_simulation(case.scenario, requests, rate=workload.rate)
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    journal = simulation.run()
    wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    figures = _flat(report.summarise(journal, case.scenario, wall_s=wall_s))
    rows = list(report.rows(journal))
    row: Row = {
        **figures,
        **_identity(case, workload),
        "cpu_us_per_request": cpu_s / len(requests) * 1e6,
        "lost": len(requests) - len(journal.ended_at_s),
        **measures.split(rows),
        **measures.by_class(rows, case),
        **measures.around_change(rows, case),
        **measures.on_link(journal, rows, case),
        **measures.under_cap(journal, case),
    }
    if not case.keeps_curves:
        return Result(row)
    return Result(row, measures.quantiles_s(rows), measures.timeline(journal, rows))


def _identity(case: Case, workload: Workload) -> Row:
    return {
        "suite": case.suite,
        "case": case.name,
        "policy": case.scenario.policy,
        "variant": case.variant,
        "on_trace": case.on_trace,
        "seed": case.scenario.seed,
        "slo_s": case.scenario.classes[0].service_class.slo_s,
        "scale": case.traffic.scale,
        "rate_rps": workload.mean_rate_rps,
        "request_bytes": case.scenario.request_bytes,
        "requests": len(workload.times_s),
    }


def _bound(case: Case, workload: Workload) -> Row:
    scenario = case.scenario
    started_s = time.perf_counter()
    [model] = scenario.served()
    bound_cny = bound_of(scenario, model, workload.times_s)
    slo_s = max(kind.service_class.slo_s for kind in model.classes)
    all_function_cny = len(workload.times_s) * report.cheapest_per_item(scenario.tiers, slo_s=slo_s)
    return {
        "cost_cny": bound_cny,
        "bound_cny": bound_cny,
        "all_function_cny": all_function_cny,
        "within_slo": 1.0,
        "wall_s": round(time.perf_counter() - started_s, 3),
    }


def _flat(figures: dict[str, object]) -> Row:
    """Returns the figures without nesting: latencies as `latency_p50_s` and so on, counts of causes as a text."""
    row: Row = {}
    for key, value in figures.items():
        if key == "latency_s" and isinstance(value, dict):
            row |= {f"latency_{name}_s": quantile for name, quantile in value.items()}
        elif isinstance(value, dict):
            row[key] = ", ".join(f"{name} {number}" for name, number in value.items())
        else:
            row[key] = value
    return row


def in_processes(tasks: Sequence[Callable[[], T]], *, jobs: int, done: Callable[[], None]) -> list[T]:
    """Returns the results of tasks in their order.

    Args:
        tasks: functions that can be pickled.
        jobs: number of processes; 1 for this process.
        done: called after each task.
    """
    if jobs == 1:
        return [_counted(task(), done) for task in tasks]
    # Spawned, not forked: it works on every platform and does not copy running threads.
    pool = ProcessPoolExecutor(min(jobs, len(tasks) or 1), multiprocessing.get_context("spawn"))
    try:
        futures: dict[Future[T], int] = {pool.submit(task): i for i, task in enumerate(tasks)}
        results = {futures[future]: _counted(future.result(), done) for future in as_completed(futures)}
    finally:
        # After a failure the remaining tasks are not run.
        pool.shutdown(cancel_futures=True)
    return [results[i] for i in range(len(tasks))]


def _counted(result: T, done: Callable[[], None]) -> T:
    done()
    return result


def run_all(tasks: Sequence[Callable[[], Result]], *, jobs: int, done: Callable[[], None]) -> list[Result]:
    """Returns the results of tasks in their order, each with the bound for its traffic if that was computed."""
    results = in_processes(tasks, jobs=jobs, done=done)
    rows = [result.row for result in results]
    bounds = {(r["suite"], r["case"], r["seed"]): r["cost_cny"] for r in rows if r["policy"] == BOUND}
    for row in rows:
        # The bound of a trace is computed once for all seeds.
        bound_cny = bounds.get((row["suite"], row["case"], 0 if row["on_trace"] else row["seed"]))
        if bound_cny is not None:
            row["bound_cny"] = bound_cny
    return results
