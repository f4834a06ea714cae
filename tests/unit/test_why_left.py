"""Every batch says why it left, and it is true: replayed against what was planned and sent."""

from collections import Counter
from dataclasses import replace

import pytest
from support.engine_kit import TIER, arrive, fail, finish, refused, run_until_idle, sent, settings

from scheduler.domain.batches import Batch, FailureKind, WhyLeft
from scheduler.domain.latency import LatencyModel
from scheduler.domain.messages import DrainStarted, LimitsChanged, PlanAdopted, SendBatch
from scheduler.domain.plans import Limits, LoadedBuffer, Plan
from scheduler.domain.requests import Backend, Request
from scheduler.engine import Engine
from scheduler.explain.words import LEFT
from scheduler.simulator.scenario import Scenario
from scheduler.simulator.shell import Journal
from scheduler.simulator.world import make_requests, make_simulation
from scripts.command_hash import scenarios, workload

REQUESTS = 600
OF_THE_EDGE = {WhyLeft.FULL, WhyLeft.IDLE_EDGE, WhyLeft.HEDGE, WhyLeft.HALF, WhyLeft.TRIAL}
CLOSE_S = 1e-6
SEEN: Counter[WhyLeft] = Counter()


def check(batch: Batch, scenario: Scenario, plan: Plan, requests: dict[int, Request]) -> None:
    why, members = batch.why_left, [requests[i] for i in batch.request_ids]
    assert why is not None
    assert (why is WhyLeft.WARMING) == batch.warming
    if batch.backend is Backend.EDGE:
        assert why in OF_THE_EDGE
    last = max(members, key=lambda request: (request.deadline_s, request.priority, request.request_id), default=None)
    model = next(m for m in scenario.engine_settings().models if m.name == batch.model)
    if why is WhyLeft.FULL and last is not None:
        group = next(group for group in plan.groups if group.model == batch.model)
        cap = group.edge_batch_cap
        if batch.tier:
            cap = min(model.tier(batch.tier).latency.max_batch, model.max_items)
        assert batch.items + last.items > cap, f"{batch} is not full at {cap}"
    if why is WhyLeft.DEADLINE:
        assert batch.predicted_finish_s >= batch.deadline_s - CLOSE_S, f"{batch} left too soon"
    if why is WhyLeft.IDLE_EDGE:
        assert not batch.tier


def behind_one_overdue(journal: Journal, batch: Batch) -> bool:
    """Whether a function batch should have been back and was not: the link might have been gone for as long again."""
    for known in journal.batches.values():
        other = known.batch
        if other.tier and other.predicted_finish_s < batch.sent_at_s:
            back_s = [journal.ended_at_s[i] for i in other.request_ids if i in journal.ended_at_s]
            if max(back_s, default=0.0) >= batch.sent_at_s:
                return True
    return False


@pytest.mark.parametrize(("name", "scenario", "rate_rps"), list(scenarios()), ids=[name for name, *_ in scenarios()])
def test_the_reason_is_true_in_simulations(name: str, scenario: Scenario, rate_rps: float) -> None:
    requests = make_requests(scenario, workload(name, scenario, rate_rps, requests=REQUESTS))
    plan, known = None, {request.request_id: request for request in requests}
    journal = make_simulation(scenario, requests, keep_commands=True).run()
    for _, command in journal.commands:
        if isinstance(command, PlanAdopted):
            plan = command.plan
        elif isinstance(command, SendBatch):
            assert plan is not None
            assert command.batch.why_left is not None
            SEEN[command.batch.why_left] += 1
            check(command.batch, scenario, plan, known)
            assert command.batch.why_left is not WhyLeft.LINK or behind_one_overdue(journal, command.batch)


def loaded(**changes: object) -> Engine:
    """Returns an engine that follows a loaded plan: three together, or 0.4 s."""
    wide = replace(TIER, latency=LatencyModel(0.2, 0.02, 8))
    buffer = LoadedBuffer(("default",), "1gb", 3, {"default": 0.4}, 1e-6)
    base = settings(edge=False, slo_s=2.0)
    model = replace(base.models[0], tiers=(wide,), buffers=(buffer,), **changes)  # type: ignore[arg-type]
    return Engine(replace(base, models=(model,), changepoints=False))


def whys(engine: Engine, ids: tuple[int, ...], *, slo_s: float = 2.0) -> list[tuple[WhyLeft | None, float]]:
    commands = run_until_idle(engine, arrive(engine, 0.0, *ids, slo_s=slo_s), 0.0, 10.0)
    assert not refused(commands)
    return [(batch.why_left, round(batch.sent_at_s, 6)) for batch in sent(commands)]


def test_a_batch_of_a_loaded_plan_leaves_full_or_at_its_planned_time() -> None:
    assert whys(loaded(), (1, 2, 3)) == [(WhyLeft.FULL, 0.0)]
    assert whys(loaded(), (1, 2)) == [(WhyLeft.TIMER, 0.4)]


def test_an_operators_window_is_a_timer() -> None:
    engine = Engine(settings(edge=False, slo_s=5.0))
    arrive(engine, 0.0)
    engine.handle([LimitsChanged("m", Limits(window_s=0.0))], 0.0)
    assert whys(engine, (1,), slo_s=5.0) == [(WhyLeft.TIMER, 0.0)]


def test_a_drain_a_half_and_an_idle_edge_say_so() -> None:
    engine = loaded()
    arrive(engine, 0.0, 1, slo_s=2.0)
    assert [b.why_left for b in sent(engine.handle([DrainStarted()], 0.1))] == [WhyLeft.DRAIN]
    engine = Engine(settings(function=False))
    first = sent(arrive(engine, 0.0, 1))[0]
    assert first.why_left is WhyLeft.IDLE_EDGE
    arrive(engine, 0.01, 2, 3)
    second = sent(finish(engine, first, 0.06))[0]
    halves = sent(fail(engine, second, 0.08, FailureKind.REJECTED))
    assert [b.why_left for b in halves] == [WhyLeft.HALF]


def test_every_reason_has_words() -> None:
    assert set(LEFT) == set(WhyLeft)
