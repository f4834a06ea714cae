"""The engine obeys a loaded plan to the letter, and what it plans live costs no more than the exact planner promises.

The oracle of a loaded plan is a buffer walked through request by request, which knows nothing of the engine.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scheduler.domain.batches import Batch
from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.plans import EngineSettings, LoadedBuffer, ModelSettings, ServiceClass
from scheduler.domain.requests import Backend, Request
from scheduler.engine import Engine
from scheduler.estimators.size_effect import SizeEffect
from scheduler.planner.catalogue.function_path import AT_ONCE, FunctionPath
from scheduler.planner.functions.problem import Application, FunctionPlan, PlanningProblem
from scheduler.planner.functions.solve import plan_functions
from scheduler.planner.site.deployed_tiers import TierOffer
from scheduler.simulator.backends import ColdStarts, Outcome, SimulatedEdge, SimulatedFunctions, noise
from scheduler.simulator.faults import Faults
from scheduler.simulator.network import AMPLE, Uplink
from scheduler.simulator.shell import Journal, Simulation

CPU = FunctionTier("cpu", "f", LatencyModel(0.2, 0.06, 8), Price(per_s=1.3e-5, per_call=9e-7))
GPU = FunctionTier("gpu", "g", LatencyModel(0.05, 0.004, 32), Price(per_s=1.7e-4, per_call=9e-7))
CLASSES = (
    ServiceClass("quick", slo_s=0.5, percentile=0.95),
    ServiceClass("normal", slo_s=1.2),
    ServiceClass("patient", slo_s=4.0),
)
RATES = {"quick": 6.0, "normal": 4.0, "patient": 10.0}
LARGE_BYTES = 100_000
SLOWDOWN = 8.0
EDGE = LatencyModel(0.05, 0.03, 16)


def offer(tiers: tuple[FunctionTier, ...], *, sigma: float = 0.0, path: FunctionPath = AT_ONCE) -> TierOffer:
    return TierOffer("tiers", tiers, {}, sigma, path, 64)


def planned(
    classes: Sequence[ServiceClass],
    *,
    objective: str = "percentile",
    functions: TierOffer | None = None,
    grouping: str = "best",
) -> FunctionPlan:
    apps = tuple(Application(c.name, c.slo_s, c.percentile, RATES[c.name]) for c in classes)
    functions = functions or offer((CPU, GPU))
    return plan_functions(PlanningProblem(apps, functions, functions.sheet, objective=objective, grouping=grouping))


def buffers(plan: FunctionPlan) -> tuple[LoadedBuffer, ...]:
    return tuple(
        LoadedBuffer(
            group.apps, group.function.kind, group.function.batch, group.timeouts_s, group.cost_per_request, None
        )
        for group in plan.groups
    )


def arrivals(
    classes: Sequence[ServiceClass], count: int, *, seed: int = 3, scale: float = 1.0, sizes: Sequence[int] = (20_000,)
) -> list[Request]:
    rng = np.random.default_rng(seed)
    rates = np.array([RATES[c.name] * scale for c in classes])
    times = np.cumsum(rng.exponential(1 / rates.sum(), count)).tolist()
    which = rng.choice(len(classes), count, p=rates / rates.sum())
    body_bytes = rng.choice(sizes, count)
    return [
        Request(i, "m", at_s, at_s + classes[k].slo_s, body_bytes=int(size), class_name=classes[k].name)
        for i, (at_s, k, size) in enumerate(zip(times, which, body_bytes, strict=True), start=1)
    ]


class PaddingFunctions(SimulatedFunctions):
    """Batches with an item above LARGE_BYTES take so many times as long, as where all are padded to the largest.

    For a while all batches take SLOWDOWN times as long.
    """

    def __init__(self, large_factor: float, slow: tuple[float, float], **parts: Any) -> None:
        super().__init__(**parts)
        self._slow = slow
        self._factors = parts["noise"]
        self._large_factor = large_factor

    def send(self, batch: Batch, *, now_s: float) -> Outcome:
        factor = self._large_factor if batch.largest_item_bytes > LARGE_BYTES else 1.0
        if self._slow[0] <= now_s < self._slow[1]:
            factor *= SLOWDOWN
        self._noise = iter([next(self._factors) * factor])
        return super().send(batch, now_s=now_s)


def run(
    model: ModelSettings,
    requests: Sequence[Request],
    *,
    sigma: float = 0.0,
    large_factor: float = 1.0,
    slow: tuple[float, float] = (0.0, 0.0),
) -> Journal:
    # The simulated LAN and uplink take no time where nothing else is said: the plan knows of none either.
    settings = EngineSettings(models=(model,), uplink_rtt_s=0.0, edge_overhead_s=0.0, queue_max_bytes=2**40)
    rngs = np.random.default_rng(5).spawn(2)
    functions = PaddingFunctions(
        large_factor,
        slow,
        tiers={tier.name: tier for tier in model.tiers},
        uplink=Uplink(AMPLE, rtt_s=0.0),
        faults=Faults(()),
        noise=noise(sigma, rngs[0]),
        cold_starts=ColdStarts(),
        concurrency=1000,
    )
    edge = None
    if model.edge_latency is not None:
        edge = SimulatedEdge(latencies={"m": model.edge_latency}, faults=Faults(()), noise=noise(0.0, rngs[1]))
    return Simulation(engine=Engine(settings), requests=requests, edge=edge, functions=functions).run()


def walked(requests: Sequence[Request], buffer: LoadedBuffer, *, up_to: float = np.inf, above: float = 0.0) -> set:  # type: ignore[type-arg]
    """The batches of one buffer, as (requests, time of leaving): full, or at the first member's timeout to end."""
    mine = [r for r in requests if r.class_name in buffer.classes and above < r.body_bytes <= up_to]
    batches, gathered, close_s = set(), [], np.inf
    for request in [*mine, None]:
        if gathered and (request is None or request.arrived_at_s > close_s):
            batches.add((tuple(sorted(r.request_id for r in gathered)), round(close_s, 6)))
            gathered, close_s = [], np.inf
        if request is None:
            break
        gathered.append(request)
        close_s = min(close_s, request.arrived_at_s + buffer.timeouts_s[request.class_name])
        if len(gathered) == buffer.target_batch:
            batches.add((tuple(sorted(r.request_id for r in gathered)), round(request.arrived_at_s, 6)))
            gathered, close_s = [], np.inf
    return batches


def sent(journal: Journal, tier: str | None = None) -> set:  # type: ignore[type-arg]
    return {
        (tuple(sorted(one.batch.request_ids)), round(one.batch.sent_at_s, 6))
        for one in journal.batches.values()
        if not one.batch.warming and (tier is None or one.batch.tier == tier)
    }


def within(journal: Journal, service_class: ServiceClass, *, from_s: float = 0.0) -> float:
    ends = [
        journal.ended_at_s[r.request_id] <= r.deadline_s + 1e-9 and r.request_id in journal.answered_by
        for r in journal.requests
        if r.class_name == service_class.name and r.arrived_at_s >= from_s
    ]
    return float(np.mean(ends))


MODEL = ModelSettings("m", max_items=64, classes=CLASSES, tiers=(CPU, GPU))


class TestALoadedPlan:
    def test_every_batch_is_that_of_its_buffer_and_leaves_at_the_planned_moment(self) -> None:
        plan = planned(CLASSES, objective="worst-case", grouping="apart")
        loaded = buffers(plan)
        assert len(loaded) == len(CLASSES)
        requests = arrivals(CLASSES, 3000)
        journal = run(replace(MODEL, buffers=loaded), requests)
        assert sent(journal) == set.union(*(walked(requests, buffer) for buffer in loaded))
        for tier, ids in ((one.batch.tier, one.batch.request_ids) for one in journal.batches.values()):
            classes = {requests[request_id - 1].class_name for request_id in ids}
            # A call without requests only keeps an instance warm.
            assert not ids or [b.tier for b in loaded if classes <= set(b.classes)] == [tier]
        assert all(within(journal, c) == 1.0 for c in CLASSES)

    def test_cost_and_percentiles_are_those_that_were_promised(self) -> None:
        plan = planned(CLASSES, functions=offer((CPU, GPU), sigma=0.1))
        requests = arrivals(CLASSES, 12_000)
        journal = run(replace(MODEL, buffers=buffers(plan)), requests, sigma=0.1)
        assert journal.cost() / len(requests) == pytest.approx(plan.total_cost_per_request, rel=0.03)
        for service_class in CLASSES:
            # Three standard errors of a fraction; neighbours share batches, so half the requests count.
            share = sum(r.class_name == service_class.name for r in requests) / 2
            slack = 3 * (service_class.percentile * (1 - service_class.percentile) / share) ** 0.5
            assert within(journal, service_class) >= service_class.percentile - slack

    def test_requests_go_to_buffers_by_size(self) -> None:
        [normal] = CLASSES[1:2]
        small = LoadedBuffer(("normal",), "cpu", 4, {"normal": 0.3}, 1e-5, 50_000.0)
        large = LoadedBuffer(("normal",), "gpu", 3, {"normal": 0.1}, 1e-5, 400_000.0)
        # The last one takes what is larger than any that was planned for, too.
        requests = arrivals((normal,), 1500, scale=3.0, sizes=(20_000, 50_000, 200_000, 900_000))
        journal = run(replace(MODEL, classes=(normal,), buffers=(small, large)), requests)
        assert sent(journal, "cpu") == walked(requests, small, up_to=50_000)
        assert sent(journal, "gpu") == walked(requests, large, above=50_000)

    def test_whoever_has_less_time_than_the_class_waits_so_much_less(self) -> None:
        [normal] = CLASSES[1:2]
        loaded = LoadedBuffer(("normal",), "cpu", 8, {"normal": 0.5}, 1e-5)
        hurried = Request(1, "m", 1.0, 1.0 + normal.slo_s - 0.3, class_name="normal")
        journal = run(replace(MODEL, classes=(normal,), buffers=(loaded,)), [hurried])
        [(_, sent_at_s)] = sent(journal)
        assert sent_at_s == pytest.approx(1.0 + 0.5 - 0.3)

    def test_functions_slower_than_planned_for_are_allowed_for_once_too_many_are_late(self) -> None:
        """A timeout made for a profile makes everybody late on a function half as fast: the budget corrects it."""
        [normal] = CLASSES[1:2]
        loaded = LoadedBuffer(("normal",), "cpu", 8, {"normal": 0.9}, 1e-5)
        slower = replace(CPU, latency=LatencyModel(0.35, 0.06, 8))
        model = replace(MODEL, classes=(normal,), tiers=(slower,), buffers=(loaded,))
        requests = arrivals((normal,), 3000)
        journal = run(model, requests)
        assert within(journal, normal) >= 0.97

    def test_a_change_of_rate_is_no_reason_to_leave_a_plan_whose_percentiles_hold(self) -> None:
        loaded = buffers(planned(CLASSES, objective="worst-case", grouping="apart"))
        requests = arrivals(CLASSES, 1500)
        shift_s = requests[-1].arrived_at_s
        requests += [
            replace(
                r,
                request_id=r.request_id + 1500,
                arrived_at_s=r.arrived_at_s + shift_s,
                deadline_s=r.deadline_s + shift_s,
            )
            for r in arrivals(CLASSES, 1000, seed=8, scale=0.3)
        ]
        journal = run(replace(MODEL, buffers=loaded), requests)
        assert "rate" in {plan.cause for plan in journal.plans}
        assert sent(journal) == set.union(*(walked(requests, buffer) for buffer in loaded))

    def test_with_an_edge_the_plan_is_for_what_spills(self) -> None:
        loaded = buffers(planned(CLASSES))
        requests = arrivals(CLASSES, 4000, scale=3.0)
        journal = run(replace(MODEL, edge_latency=EDGE, buffers=loaded), requests)
        by_function = [one.batch for one in journal.batches.values() if one.batch.backend is Backend.FUNCTION]
        assert 100 < sum(batch.items for batch in by_function) < 3500
        for batch in by_function:
            if batch.warming:
                continue
            classes = {requests[request_id - 1].class_name for request_id in batch.request_ids}
            [buffer] = [b for b in loaded if classes <= set(b.classes)]
            assert batch.tier == buffer.tier
            assert batch.items <= buffer.target_batch
        assert all(within(journal, c) >= c.percentile for c in CLASSES)


class TestLivePlans:
    @pytest.mark.slow
    def test_they_cost_no_more_than_the_exact_planner_promises_for_the_true_rates(self) -> None:
        for sigma in (0.0, 0.1):
            plan = planned(CLASSES, functions=offer((CPU, GPU), sigma=sigma))
            requests = arrivals(CLASSES, 8000)
            journal = run(MODEL, requests, sigma=sigma)
            # Learning costs a little at the start; waits that follow deadlines save it again on most laws.
            assert journal.cost() / len(requests) <= 1.03 * plan.total_cost_per_request
            assert all(within(journal, c) >= c.percentile - 0.005 for c in CLASSES)

    def test_classes_get_tiers_of_their_own_and_move_between_them_when_the_rate_changes(self) -> None:
        quiet = arrivals(CLASSES[1:2], 400, scale=0.5)
        shift_s = quiet[-1].arrived_at_s
        busy = [
            replace(
                r,
                request_id=r.request_id + len(quiet),
                arrived_at_s=r.arrived_at_s + shift_s,
                deadline_s=r.deadline_s + shift_s,
            )
            for r in arrivals(CLASSES[1:2], 6000, scale=40.0, seed=4)
        ]
        journal = run(replace(MODEL, classes=CLASSES[1:2]), [*quiet, *busy])
        tiers = [(plan.cause, plan.groups[0].buffers[0].tier) for plan in journal.plans]
        assert tiers[:2] == [("start", "cpu"), ("expiry", "cpu")]
        assert ("rate", "gpu") in tiers
        end_s = busy[-1].arrived_at_s
        later = [one.batch for one in journal.batches.values() if not one.batch.warming]
        assert {b.tier for b in later if shift_s + 5.0 < b.sent_at_s < end_s} == {"gpu"}
        assert len(journal.answered_by) == len(quiet) + len(busy)
        assert within(journal, CLASSES[1]) >= 0.99

    @pytest.mark.slow
    @pytest.mark.parametrize(("tiers", "large_factor", "most"), [((CPU,), 3.0, 0.85), ((CPU, GPU), 3.0, 0.85)])
    def test_large_items_that_slow_down_whole_batches_get_batches_of_their_own(
        self, tiers: tuple[FunctionTier, ...], large_factor: float, most: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        [normal] = CLASSES[1:2]
        model = replace(MODEL, classes=(normal,), tiers=tiers)
        requests = arrivals((normal,), 5000, scale=5.0, sizes=(10_000,) * 9 + (300_000,))
        routed = run(model, requests, sigma=0.05, large_factor=large_factor)
        small, large = [plan for plan in routed.plans if plan.made_at_s > 40.0][0].groups[0].buffers
        assert 10_000 <= small.up_to_bytes < 300_000  # type: ignore[operator]
        assert large.up_to_bytes is None
        assert large.size_factor / small.size_factor == pytest.approx(large_factor, rel=0.15)
        assert small.share == pytest.approx(0.9, abs=0.03)
        # Until the plan that tells sizes apart, they look like scatter, by which chance decides how many are refused.
        assert within(routed, normal, from_s=60.0) >= 0.985
        monkeypatch.setattr(SizeEffect, "factors", lambda *_: None)
        mixed = run(model, requests, sigma=0.05, large_factor=large_factor)
        # Money for each answer in time: where sizes are mixed, fewer are.
        each, each_mixed = (journal.cost() / within(journal, normal) for journal in (routed, mixed))
        assert each <= most * each_mixed
        # Beyond the objective a single late request proves nothing.
        assert within(routed, normal, from_s=60.0) >= min(within(mixed, normal, from_s=60.0), normal.percentile)

    def test_items_whose_size_does_not_matter_stay_together(self) -> None:
        [normal] = CLASSES[1:2]
        requests = arrivals((normal,), 3000, scale=5.0, sizes=(10_000,) * 9 + (300_000,))
        journal = run(replace(MODEL, classes=(normal,)), requests, sigma=0.1)
        assert all(len(plan.groups[0].buffers) == 1 for plan in journal.plans)

    def test_no_class_is_refused_for_good_when_the_functions_get_slower_than_the_objective(self) -> None:
        """Requests that are likely to be late are refused while too many are late; some must still be tried."""
        [normal] = CLASSES[1:2]
        requests = arrivals((normal,), 4000, scale=2.0)
        slow_s, again_s = requests[800].arrived_at_s, requests[1200].arrived_at_s
        model = replace(MODEL, classes=(normal,), tiers=(CPU,))
        journal = run(model, requests, sigma=0.1, slow=(slow_s, again_s))
        after = [r for r in requests if r.arrived_at_s > again_s + 60.0]
        answered = [
            r for r in after if journal.ended_at_s[r.request_id] <= r.deadline_s and r.request_id in journal.answered_by
        ]
        assert len(answered) >= 0.95 * len(after)
