"""Compares the function planner with HarmonyBatch's published sets, and measures how long planning takes.

Run with `python -m scripts.planner_figures`. With --traces (or EDGEBURST_TRACES) the folder `vectors` beside the
traces gives HarmonyBatch's 28 sets of applications and its latency coefficients. Without that folder only the times
are measured, with an invented profile. Times are processor time, so that other load on the machine counts less.

With --against COMMIT (or a checkout's folder) planning is timed here and there instead, in turns, each time in a fresh
process; ratios are those of the least times, and the answers are compared.

    python -m scripts.planner_figures --against 843c8b3
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from scheduler.domain.errors import EdgeburstError
from scheduler.planner.catalogue.function_profile import FunctionProfile, parse_profile
from scheduler.planner.catalogue.prices import load_sheet
from scheduler.planner.functions.problem import OBJECTIVES, Application, FunctionPlan, PlanningProblem
from scheduler.planner.functions.solve import plan_functions
from scheduler.planner.queueing.map_batching_grid import buffer_grid
from scheduler.planner.queueing.map_process import MarkovianArrivals, mmpp2
from scheduler.terminal import counted
from scripts.daemon_bench.contenders import checkout_of
from scripts.support.published_figures import harmony_profile, read
from scripts.support.script import run_script

SHEET = "fc2-harmonybatch-cny"
INVENTED = {
    "name": "invented",
    "source": "invented latency models like those of an image classifier",
    "date": "2026-01-01",
    "families": [
        {
            "kind": "cpu",
            "form": "exponential",
            "grid": {"over": "vcpu", "from": 0.05, "to": 16, "step": 0.05},
            "mean": [[1.8 * b**1.1, 0.5, 0.18 * b] for b in range(1, 5)],
            "worst": [[2.6 * b, 0.48, 0.24 * b] for b in range(1, 5)],
            "memory_gb": {"base": 0.8, "per_item": 0.04, "per_vcpu": 1, "step": 0.0625},
        },
        {
            "kind": "gpu",
            "form": "slices",
            "grid": {"over": "gpu_gb", "from": 1, "to": 24, "step": 1},
            "slope_s": 0.0017,
            "constant_s": 0.0021,
            "slice_s": 0.002,
            "card_gb": 24,
            "worst_factor": 1.2,
            "vcpu": {"each": 0.333333333},
            "memory_gb": 0.5,
            "max_batch": 32,
        },
    ],
}
_ASKED_S = {1: 0.02, 12: 0.1, 200: 3.0}
ASKED_AGAINST = {
    "12 applications, percentile": 0.68,
    "12 applications, worst-case": 0.68,
    "one bursty application": 0.71,
    "grid of 4 phases": 0.8,
}
"""Times in parts of those of commit 843c8b3."""
TURNS = 4
ROOT = Path(__file__).resolve().parents[1]
DRIVER = ROOT / "scripts" / "support" / "planning_times.py"
_REPEATS = {1: 5, 12: 3, 200: 1}


def main() -> int:
    """Prints the tables; returns exit status 1 if a plan costs more than the best known plan of its set."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--traces", type=Path, default=Path(os.environ.get("EDGEBURST_TRACES", ".")))
    parser.add_argument("--without-200", action="store_true", help="omit the plans of 200 applications")
    parser.add_argument("--against", metavar="COMMIT", help="time planning here and at a commit or in a folder instead")
    args = parser.parse_args()
    if args.against is not None:
        return against(args.against)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 130)
    vectors = args.traces.resolve().parent / "vectors"
    matched = True
    if vectors.is_dir():
        matched = _print_sets(console, vectors)
    else:
        console.print("no vectors beside the traces: name their folder with --traces or EDGEBURST_TRACES")
    _print_times(console, counts=(1, 12) if args.without_200 else (1, 12, 200))
    return 0 if matched else 1


def against(named: str) -> int:
    """Prints the times here beside those of another checkout; returns 1 if an answer differs."""
    with tempfile.TemporaryDirectory() as folder:
        checkouts = {"there": checkout_of(named, Path(folder)), "here": ROOT}
        runs: dict[str, list[dict[str, tuple[float, float]]]] = {name: [] for name in checkouts}
        for _ in counted(range(TURNS), "planning", "turns"):
            for name, checkout in checkouts.items():
                runs[name].append(_times_in(checkout))
    same = True
    print("| what | there, ms | here, ms | ratio | asked | answers |\n|---|---|---|---|---|---|")
    for what in runs["here"][0]:
        there_s, here_s = (min(run[what][0] for run in runs[name]) for name in ("there", "here"))
        theirs, ours = (runs[name][0][what][1] for name in ("there", "here"))
        equal = abs(ours - theirs) <= 1e-9 * abs(theirs)
        same = same and equal
        asked = ASKED_AGAINST.get(what)
        ratio = f"{here_s / there_s:.2f}{', **missed**' if asked and here_s / there_s > asked else ''}"
        print(
            f"| {what} | {there_s * 1e3:.1f} | {here_s * 1e3:.1f} | {ratio} | {f'≤ {asked}' if asked else ''} "
            f"| {'same' if equal else f'{ours:.9g} for {theirs:.9g}'} |"
        )
    return 0 if same else 1


def _times_in(checkout: Path) -> dict[str, tuple[float, float]]:
    environ = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, str(DRIVER)]
    done = subprocess.run(command, cwd=checkout, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise EdgeburstError(f"planning cannot be timed in {checkout}: {last}")
    found: dict[str, tuple[float, float]] = json.loads(done.stdout)
    return found


def _print_sets(console: Console, vectors: Path) -> bool:
    table = Table(title="HarmonyBatch's sets, CNY a request", title_justify="left")
    for column in ("model", "set", "its own", "best known", "worst-case", "against", "percentile 0.99", "against"):
        table.add_column(column, no_wrap=True)
    matched = True
    for row, ratio in _sets(vectors):
        table.add_row(*row)
        matched = matched and ratio <= 1 + 1e-9
    console.print(table)
    return matched


def _sets(vectors: Path) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yields the table row of each set, and the worst-case plan's cost as a fraction of the best known cost."""
    sets = read(vectors, "harmonybatch-sets.json")
    models = {one["model"] for one in sets}
    profiles = {model: parse_profile(harmony_profile(vectors, model), of=model) for model in models}
    for one in counted(sets, "planning", "sets"):
        costs = [_planned(one, profiles[one["model"]], name).total_cost_per_request for name in OBJECTIVES]
        best = one["best_contiguous_cny_per_request"]
        relaxed, certain = costs
        yield (
            (
                one["model"],
                one["set"],
                f"{one['exact_cny_per_request']['Harmony']:.4g}",
                f"{best:.6g}",
                f"{certain:.6g}",
                f"{certain / best - 1:+.1e}",
                f"{relaxed:.6g}",
                f"{relaxed / best - 1:+.1%}",
            ),
            certain / best,
        )


def _planned(one: dict[str, Any], profile: FunctionProfile, objective: str) -> FunctionPlan:
    apps = tuple(Application(app["name"], app["slo_s"], 0.99, app["rps"]) for app in one["apps"])
    return plan_functions(PlanningProblem(apps, profile, load_sheet(SHEET), objective=objective))


def _print_times(console: Console, *, counts: tuple[int, ...]) -> None:
    table = Table(title="minimum of a few runs, processor seconds", title_justify="left")
    for column in ("what", "asked", "measured", "segments pruned"):
        table.add_column(column)
    profile = parse_profile(INVENTED, of="the invented profile")
    for count in counts:
        for objective in OBJECTIVES:
            taken_s, plan = _timed(profile, count, objective)
            pruned = f"{plan.segments_pruned} of {plan.segments_total}"
            table.add_row(f"{count} applications, {objective}", f"{_ASKED_S[count]:g}", f"{taken_s:.3f}", pruned)
    table.add_row("one bursty application, percentile", "0.02", f"{_bursty_s(profile):.3f}", "")
    table.add_row("4 phases, cap 128, 200 timeouts", "0.05", f"{_grid_s():.3f}", "")
    console.print(table)


def _timed(profile: FunctionProfile, count: int, objective: str) -> tuple[float, FunctionPlan]:
    rng = np.random.default_rng(count)
    slos_s, rates_rps = rng.uniform(0.4, 3.0, count), rng.uniform(0.2, 15, count)
    apps = tuple(Application(f"app{i}", float(slos_s[i]), 0.99, float(rates_rps[i])) for i in range(count))
    question = PlanningProblem(apps, profile, load_sheet(SHEET), objective=objective)
    best_s, plan = np.inf, None
    for _ in range(_REPEATS[count]):
        started_s = process_time()
        plan = plan_functions(question)
        best_s = min(best_s, process_time() - started_s)
    assert plan is not None
    return best_s, plan


def _bursty_s(profile: FunctionProfile) -> float:
    process = mmpp2(rates_rps=(3.0, 25.0), leave_per_s=(0.5, 1.0))
    question = PlanningProblem((Application("one", 1.0, 0.99, process.rate_rps, process),), profile, load_sheet(SHEET))
    return min(_once_s(question) for _ in range(3))


def _once_s(question: PlanningProblem) -> float:
    started_s = process_time()
    plan_functions(question)
    return process_time() - started_s


def _grid_s() -> float:
    pair = mmpp2(rates_rps=(20.0, 90.0), leave_per_s=(0.5, 1.0))
    process: MarkovianArrivals = pair.superposed(mmpp2(rates_rps=(5.0, 40.0), leave_per_s=(2.0, 0.3)))
    best_s = np.inf
    for _ in range(3):
        started_s = process_time()
        grid = buffer_grid(process, max_batch=128, step_s=0.005, steps=200)
        grid.latency_within(1.0, np.linspace(0.1, 0.9, 128, dtype=np.float64))
        best_s = min(best_s, process_time() - started_s)
    return float(best_s)


if __name__ == "__main__":
    sys.exit(run_script("planner_figures", main))
