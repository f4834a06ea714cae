"""A function plan as JSON and as a table, beside the cost of alternatives."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scheduler.domain.errors import EdgeburstError
from scheduler.planner.functions.problem import FunctionGroup, FunctionPlan, PlanningProblem
from scheduler.planner.functions.solve import plan_functions
from scheduler.planning.group_instances import group_instances
from scheduler.planning.warm_instances import HOUR_S
from scheduler.terminal import progress

_FEW = 40
"""Applications above which only quick alternatives are computed. Judgement: the others search the same space again and
would take seconds each."""


def as_json(problem: PlanningProblem, plan: FunctionPlan, *, planning_s: float) -> dict[str, Any]:
    """Returns a plan as the object that `--json` prints.

    Args:
        problem: what was planned for.
        plan: the plan.
        planning_s: seconds that planning took.
    """
    answer = {
        "total_cost_per_request": plan.total_cost_per_request,
        "currency": plan.currency,
        "planning_s": planning_s,
        "groups": [
            {**_group(group), "provisioned": group_instances(problem, group).as_json()} for group in plan.groups
        ],
        "segments_total": plan.segments_total,
        "segments_pruned": plan.segments_pruned,
    }
    if plan.infeasible:
        answer["infeasible"] = {"reason": plan.infeasible.reason, "would_need": plan.infeasible.would_need}
    return answer


def _group(group: FunctionGroup) -> dict[str, Any]:
    function = group.function
    answer: dict[str, Any] = {
        "apps": list(group.apps),
        "kind": function.kind,
        "vcpu": function.vcpu,
        "memory_gb": function.memory_gb,
        "gpu_gb": function.gpu_gb,
        "batch": function.batch,
        "timeouts_s": group.timeouts_s,
        "cost_per_request": group.cost_per_request,
        "mean_batch": group.mean_batch,
        "latency_s": {name: {"percentile": p, "value": value} for name, (p, value) in group.latency_s.items()},
    }
    if group.up_to_bytes is not None:
        answer["up_to_bytes"] = group.up_to_bytes
    return answer


def print_answer(problem: PlanningProblem, plan: FunctionPlan, *, planning_s: float) -> None:
    """Prints the groups of a plan, and the alternatives.

    Args:
        problem: what was planned for.
        plan: the plan.
        planning_s: seconds that planning took.
    """
    console = Console(highlight=False)
    groups = Table(title="groups", title_justify="left")
    for column in (
        "apps",
        "function",
        "batch",
        "mean",
        "longest waits",
        "latency",
        f"{plan.currency} a request",
        "warm",
    ):
        groups.add_column(column)
    idle_per_hour = 0.0
    for group in plan.groups:
        found = group_instances(problem, group)
        groups.add_row(*(escape(words) for words in _row(group)), str(found.chosen.count))
        idle_per_hour += found.chosen.idle_per_s * HOUR_S
    console.print(groups)
    if idle_per_hour:
        console.print(f"the warm (provisioned) instances cost {idle_per_hour:.4g} {plan.currency} an hour while idle")
    console.print(
        f"{plan.total_cost_per_request:.4g} {plan.currency} a request in all; planned in {planning_s * 1e3:.0f} ms, "
        f"{plan.segments_pruned} of {plan.segments_total} segments pruned"
    )
    alternatives = Table(title="what else it would cost", title_justify="left")
    for column in ("way", f"{plan.currency} a request", "against this plan"):
        alternatives.add_column(column)
    with progress("planning alternatives", unit="plans") as work:
        for way, alternative in _alternatives(problem):
            alternatives.add_row(way, *_compared(alternative, plan))
            work.advance()
    console.print(alternatives)


def _row(group: FunctionGroup) -> tuple[str, ...]:
    function = group.function
    given = f"{function.gpu_gb:g} GB GPU, " if function.gpu_gb else ""
    size = "" if group.up_to_bytes is None else f" up to {group.up_to_bytes:g} bytes"
    waits = ", ".join(f"{seconds:.3f}" for seconds in group.timeouts_s.values())
    latency = ", ".join(f"p{100 * p:g} {value:.3f}" for p, value in group.latency_s.values())
    return (
        ", ".join(group.apps) + size,
        f"{function.kind}: {given}{function.vcpu:.3g} vCPU, {function.memory_gb:.3g} GB",
        str(function.batch),
        f"{group.mean_batch:.2f}",
        f"{waits} s",
        f"{latency} s",
        f"{group.cost_per_request:.4g}",
    )


def _alternatives(problem: PlanningProblem) -> Iterator[tuple[str, PlanningProblem]]:
    cheapest = replace(problem, minimise="cost", budget=None)
    certain = replace(cheapest, objective="worst-case")
    yield "no grouping: a function for each", replace(cheapest, grouping="apart")
    yield "HarmonyBatch's rule: timeout = SLO - longest service, grouped", certain
    yield "BATCH's rule: that, a CPU function for each", replace(certain, grouping="apart", kinds=("cpu",))
    if len(problem.applications) <= _FEW:
        yield "MBS's rule: one function for all", replace(cheapest, grouping="together")
        yield "CPU functions only", replace(cheapest, kinds=("cpu",))
        yield "GPU functions only", replace(cheapest, kinds=("gpu",))


def _compared(alternative: PlanningProblem, plan: FunctionPlan) -> tuple[str, str]:
    try:
        other = plan_functions(alternative)
    except EdgeburstError:
        return "-", "the profile has no such function"
    if other.infeasible or not other.groups:
        return "-", "not in time"
    more = other.total_cost_per_request / plan.total_cost_per_request - 1
    return f"{other.total_cost_per_request:.4g}", f"{more:+.1%}"
