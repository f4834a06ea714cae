"""Planned functions simulated request by request: every percentile is kept, the bill is the expected one."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from support.planning_vectors import harmony_profile, read, vectors

from scheduler.planner.catalogue.function_profile import FunctionProfile, parse_profile
from scheduler.planner.catalogue.prices import load_sheet
from scheduler.planner.functions.problem import Application, FunctionGroup, PlanningProblem
from scheduler.planner.functions.solve import plan_functions
from scheduler.workloads import markovian, read_map

Array = npt.NDArray[np.float64]
SHEET = load_sheet("fc2-harmonybatch-cny")
COUNT = 60_000


def times_of(apps: list[Application], rng: np.random.Generator) -> tuple[Array, npt.NDArray[np.int64]]:
    rates = np.array([app.rate_rps for app in apps])
    if len(apps) == 1 and apps[0].process is not None:
        return markovian(apps[0].process, rng=rng, requests=COUNT).times_s, np.zeros(COUNT, dtype=np.int64)
    times = np.cumsum(rng.exponential(1 / rates.sum(), COUNT))
    return times, rng.choice(len(apps), COUNT, p=rates / rates.sum())


def sliced_s(batches: Array, family: dict[str, float], gpu_gb: float, rng: np.random.Generator) -> Array:
    """Services of batches on a share of a card, walked through its slices from random phases."""
    work_s = family["slope_s"] * batches + family["constant_s"]
    slice_s, period_s = gpu_gb * family["slice_s"], family["card_gb"] * family["slice_s"]
    phase_s = rng.random(len(batches)) * period_s
    on_gpu_s = work_s * family["on_gpu"]
    before_s = np.where(phase_s < slice_s, 0.0, period_s - phase_s)
    first_s = np.where(phase_s < slice_s, slice_s - phase_s, slice_s)
    more = np.maximum(np.ceil((on_gpu_s - first_s) / slice_s - 1e-12), 0)
    return before_s + on_gpu_s + more * (period_s - slice_s) + work_s * family["on_cpu"] / (gpu_gb / 3)


def simulated(group: FunctionGroup, apps: list[Application], profile: dict) -> tuple[Array, Array, float]:  # type: ignore[type-arg]
    """Latency and application of each request, and money a request."""
    rng = np.random.default_rng(7)
    times, of = times_of(apps, rng)
    waits = np.array([group.timeouts_s[app.name] for app in apps])
    limits_s, times_s, function = (times + waits[of]).tolist(), times.tolist(), group.function
    starts, ends, closes = [], [], []
    start = 0
    while start < COUNT:
        close_s, end = limits_s[start], start + 1
        while end < COUNT and end - start < function.batch and times_s[end] < close_s:
            close_s, end = min(close_s, limits_s[end]), end + 1
        closes.append(times_s[end - 1] if end - start == function.batch else close_s)
        starts.append(start)
        ends.append(end)
        start = end
    sizes = np.array(ends) - np.array(starts)
    cpu, gpu = profile["families"]
    price = SHEET.tier_price(memory_gb=function.memory_gb, vcpu=function.vcpu, gpu_gb=function.gpu_gb)
    if function.kind == "gpu":
        service_s = sliced_s(sizes.astype(float), gpu, function.gpu_gb, rng)
        billed_s = np.ceil(service_s)
    else:
        mean, worst = (np.array(cpu[key])[sizes - 1] for key in ("mean", "worst"))
        billed_s = mean[:, 0] * np.exp(-function.vcpu / mean[:, 1]) + mean[:, 2]
        service_s = worst[:, 0] * np.exp(-function.vcpu / worst[:, 1]) + worst[:, 2]
    took_s = np.repeat(np.array(closes) + service_s, sizes) - times
    return took_s, of, float((billed_s * price.per_s + price.per_call).sum() / COUNT)


def check(apps: tuple[Application, ...], profile: dict, parsed: FunctionProfile) -> None:  # type: ignore[type-arg]
    plan = plan_functions(PlanningProblem(apps, parsed, SHEET))
    assert plan.infeasible is None
    for group in plan.groups:
        members = [app for app in apps if app.name in group.apps]
        took_s, of, cost = simulated(group, members, profile)
        # GPU services of one batch are shared by its requests: so many fewer independent ones.
        assert cost == pytest.approx(group.cost_per_request, rel=0.02)
        for number, app in enumerate(members):
            mine = took_s[of == number]
            allowed = 1 - app.percentile
            late = np.mean(mine > app.slo_s + 1e-9)
            assert late <= allowed + 4 * np.sqrt(allowed * group.mean_batch / len(mine))
            predicted = group.latency_s[app.name][1]
            assert np.mean(mine > predicted + 1e-9) <= allowed + 4 * np.sqrt(allowed * group.mean_batch / len(mine))


@pytest.mark.parametrize("number", [0, 4, 14, 21])
def test_every_application_keeps_its_percentile_under_the_plan(number: int) -> None:
    one = read("harmonybatch-sets.json")[number]
    profile = harmony_profile(one["model"], fluid=False)
    apps = tuple(Application(app["name"], app["slo_s"], 0.95, app["rps"]) for app in one["apps"])
    check(apps, profile, parse_profile(profile, of="harmony"))


def test_a_bursty_application_keeps_its_percentile_with_a_function_of_its_own() -> None:
    process = read_map(vectors().parent / "data" / "maps" / "twitter-01.json")
    profile = harmony_profile("VGG19", fluid=False)
    bursty = Application("bursty", 1.0, 0.95, process.rate_rps, process)
    calm = replace(bursty, name="calm", rate_rps=4.0, process=None)
    check((bursty, calm), profile, parse_profile(profile, of="harmony"))
