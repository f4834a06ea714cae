"""Cost against latency: a picture of the cheapest plans for looser and stricter SLOs."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from scheduler.planner.catalogue.json_fields import PlanInputError
from scheduler.planner.functions.problem import OBJECTIVES, FunctionPlan, PlanningProblem
from scheduler.planner.functions.solve import plan_functions
from scheduler.plotting import new_figure
from scheduler.terminal import counted

_FACTORS = np.geomspace(0.4, 2.5, 13)
"""Factors on all SLOs. Judgement: two fifths to two and a half times show where the curve bends; each is a plan."""


def plot_frontier(problem: PlanningProblem, plan: FunctionPlan, path: Path) -> None:
    """Draws the cost of a request if all SLOs are shorter or longer.

    Args:
        problem: what is planned for.
        plan: its plan.
        path: file for the picture; its suffix gives the format.

    Raises:
        EdgeburstError: matplotlib is missing, or the file cannot be written.
    """
    figure = new_figure("--plot", width_in=7, height_in=4.5)
    axes = figure.subplots()
    for objective in OBJECTIVES:
        points = _frontier(replace(problem, objective=objective, minimise="cost", budget=None))
        axes.plot(*zip(*points, strict=True), "o-", label=objective) if points else None
    axes.plot([_promised_s(problem)], [plan.total_cost_per_request], "*", markersize=14, label="this plan")
    axes.set(xlabel="latency that is kept (mean SLO), s", ylabel=f"{plan.currency} a request", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise PlanInputError(f"--plot: cannot write {path}: {error.strerror}; name a file in a folder") from error
    except ValueError as error:
        raise PlanInputError(f"--plot: cannot draw to {path}: {error}") from error


def _frontier(problem: PlanningProblem) -> list[tuple[float, float]]:
    """Returns mean SLO and cost of the cheapest plans with all SLOs multiplied, without those that are not in time."""
    points = []
    for factor in counted(_FACTORS.tolist(), f"drawing, {problem.objective}", "plans"):
        apps = tuple(replace(app, slo_s=app.slo_s * factor) for app in problem.applications)
        plan = plan_functions(replace(problem, applications=apps))
        if not plan.infeasible:
            points.append((_promised_s(problem) * factor, plan.total_cost_per_request))
    return points


def _promised_s(problem: PlanningProblem) -> float:
    """Returns the mean SLO over applications."""
    return sum(app.slo_s for app in problem.applications) / len(problem.applications)
