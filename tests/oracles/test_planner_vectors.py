"""The prototypes' sets: their best plans matched, their exact costs reproduced."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from support.planning_vectors import batch_profile, harmony_profile, read, vectors

from scheduler.planner.catalogue.function_profile import FunctionProfile, parse_profile
from scheduler.planner.catalogue.prices import load_sheet
from scheduler.planner.functions.problem import Application, FunctionPlan, PlanningProblem
from scheduler.planner.functions.single_application_search import ProcessSearch
from scheduler.planner.functions.solve import plan_functions
from scheduler.workloads import read_map

MODELS = ("Bert", "GPT-2", "VGG19", "VideoMAE")


@cache
def profile(model: str, fluid: bool) -> FunctionProfile:
    return parse_profile(harmony_profile(model, fluid=fluid), of=model)


def planned(one: dict[str, Any], objective: str, *, fluid: bool = True) -> FunctionPlan:
    apps = tuple(Application(app["name"], app["slo_s"], 0.99, app["rps"]) for app in one["apps"])
    sheet = load_sheet("fc2-harmonybatch-cny")
    return plan_functions(PlanningProblem(apps, profile(one["model"], fluid), sheet, objective=objective))


@pytest.mark.parametrize("model", MODELS)
def test_the_best_contiguous_plans_are_matched_on_every_set(model: str) -> None:
    for one in read("harmonybatch-sets.json"):
        if one["model"] != model:
            continue
        plan = planned(one, "worst-case")
        assert plan.infeasible is None
        assert plan.total_cost_per_request == pytest.approx(one["best_contiguous_cny_per_request"], rel=1e-9)
        found = [(len(group.apps), group.function.kind, group.function.batch) for group in plan.groups]
        expected = [(g["j"] - g["i"], g["kind"], g["batch"]) for g in one["best_contiguous_groups"]]
        assert found == expected
        for group, theirs in zip(plan.groups, one["best_contiguous_groups"], strict=True):
            assert group.mean_batch == pytest.approx(theirs["mean_batch"], rel=1e-7)


@pytest.mark.parametrize("fluid", [True, False])
def test_a_percentile_never_costs_more_than_certainty(fluid: bool) -> None:
    for one in read("harmonybatch-sets.json")[::3]:
        relaxed, certain = (planned(one, objective, fluid=fluid) for objective in ("percentile", "worst-case"))
        assert relaxed.total_cost_per_request <= certain.total_cost_per_request * (1 + 1e-12)
        for group in relaxed.groups:
            for name, (_, value) in group.latency_s.items():
                slo_s = next(app["slo_s"] for app in one["apps"] if app["name"] == name)
                assert value <= slo_s + 2e-4


@pytest.mark.parametrize("number", range(0, 18, 2))
def test_the_optima_of_one_application_are_matched(number: int) -> None:
    one = read("batch-optima.json")[number]
    process = read_map(vectors().parent / "data" / "maps" / f"{one['trace'].lower()}-{one['hour']:02}.json")
    families = parse_profile(batch_profile(one["model"], max_batch=20), of="batch").tabulated(
        load_sheet("lambda-batch-usd")
    )
    search = ProcessSearch.of(process, families, percentile=0.95, step_s=0.01, steps=49)
    optimum = one["exact_optimum"]
    if one["constraint"] == "latency":
        found = search.cheapest(one["slo"])
        assert found is not None
        assert found.cost <= optimum["mean_cost"] * (1 + 1e-9)
        assert found.latency_s <= one["slo"] + 1e-4
    else:
        found = search.fastest(one["slo"])
        assert found is not None
        assert found.cost <= one["slo"]
        assert found.latency_s <= optimum["p95"] * (1 + 2e-4)


def test_the_cost_of_their_optimum_is_reproduced() -> None:
    one = read("batch-optima.json")[0]
    process = read_map(vectors().parent / "data" / "maps" / "twitter-01.json")
    families = parse_profile(batch_profile(one["model"], max_batch=6), of="batch").tabulated(
        load_sheet("lambda-batch-usd")
    )
    search = ProcessSearch.of(process, families, percentile=0.95, step_s=0.3, steps=1)
    row = int(np.argmin(np.abs(families[0].memory_gb[:, 0] * 1024 - one["exact_optimum"]["M"])))
    assert search.costs[0][1, row, 5] == pytest.approx(one["exact_optimum"]["mean_cost"], rel=1e-8)
