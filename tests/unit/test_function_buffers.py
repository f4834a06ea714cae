"""What several function buffers of one model must not do to each other, and what reloads must not forget."""

from dataclasses import replace

import pytest
from support.engine_kit import finish, refused, sent

from scheduler.dispatch.decision_ring import DecisionRing
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.outbox import Outbox, Sending
from scheduler.dispatch.queue import Admission, QueuedRequest
from scheduler.domain.batches import BatchReport
from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.messages import BatchFinished, RequestArrived, SettingsChanged
from scheduler.domain.plans import (
    BufferPlan,
    EngineSettings,
    GroupPlan,
    LoadedBuffer,
    ModelEstimates,
    ModelSettings,
    ServiceClass,
    SizeFactors,
    SizeShare,
    Snapshot,
)
from scheduler.domain.requests import Place, Request
from scheduler.domain.service_times import service_times
from scheduler.engine import Engine
from scheduler.planner.site.plan import best_plan

CPU = FunctionTier("cpu", "f", LatencyModel(0.2, 0.06, 8), Price(1.3e-5, 9e-7))
GPU = FunctionTier("gpu", "g", LatencyModel(0.2, 0.02, 8), Price(1.3e-4, 9e-7))
CLASSES = (ServiceClass("quick", slo_s=1.5), ServiceClass("patient", slo_s=30.0))
BUFFERS = (
    LoadedBuffer(("quick",), "cpu", 1, {"quick": 0.0}, 1e-6),
    LoadedBuffer(("patient",), "gpu", 4, {"patient": 20.0}, 1e-6),
)
MODEL = ModelSettings("m", classes=CLASSES, tiers=(CPU, GPU), buffers=BUFFERS)


def engine(model: ModelSettings, **settings: object) -> Engine:
    return Engine(EngineSettings(models=(model,), **settings))  # type: ignore[arg-type]


def asked(number: int, at_s: float, kind: str, slo_s: float, *, items: int = 1) -> RequestArrived:
    return RequestArrived(Request(number, "m", at_s, at_s + slo_s, items, 20_000 * items, kind))


@pytest.mark.parametrize("order", [BUFFERS, BUFFERS[::-1]])
def test_a_cold_start_on_one_tier_is_no_reason_to_take_the_way_to_another_for_dead(
    order: tuple[LoadedBuffer, ...],
) -> None:
    one = engine(replace(MODEL, buffers=order), uplink_bytes_per_s=1e6)
    at_s = 0.0
    for number in range(1, 20):
        at_s = 3.0 * number
        [batch] = sent(one.handle([asked(number, at_s, "quick", 1.5)], at_s))
        report = BatchReport(0.35, service_s=0.26, billed_duration_s=0.26, rtt_s=0.02, cold_start=False)
        one.handle([BatchFinished(batch.batch_id, report)], at_s + 0.35)
        one.handle([], at_s + 0.35)
    # Four fill the patient ones' batch; their instance takes longer to start than anybody would guess.
    four = [asked(100 + i, at_s + 1.0, "patient", 30.0) for i in range(4)]
    [_] = sent(one.handle(four, at_s + 1.0))
    for number in range(20, 28):
        at_s += 3.0
        commands = one.handle([asked(number, at_s, "quick", 1.5)], at_s)
        assert not refused(commands)
        [batch] = sent(commands)
        report = BatchReport(0.35, service_s=0.26, billed_duration_s=0.26, rtt_s=0.02, cold_start=False)
        one.handle([BatchFinished(batch.batch_id, report)], at_s + 0.35)


def test_slots_are_counted_by_tier_and_in_all() -> None:
    narrow = replace(MODEL, tiers=(replace(CPU, max_in_flight=2), GPU))
    one = engine(narrow, max_function_in_flight=3)
    commands = one.handle([asked(i, 0.0, "quick", 1.5) for i in range(4)], 0.0)
    assert len(sent(commands)) == 2
    # The other tier has room, and then all slots are taken.
    commands = one.handle([asked(10 + i, 0.1, "patient", 30.0) for i in range(8)], 0.1)
    assert [batch.tier for batch in sent(commands)] == ["gpu"]


def test_a_request_whose_class_a_reload_took_away_is_not_held_for_ever() -> None:
    one = engine(MODEL)
    one.handle([asked(1, 0.0, "patient", 30.0)], 0.0)
    gathering = replace(BUFFERS[0], target_batch=3, timeouts_s={"quick": 0.3})
    left = replace(MODEL, classes=CLASSES[:1], buffers=(gathering,))
    commands = one.handle([SettingsChanged(EngineSettings(models=(left,)))], 1.0)
    assert [batch.request_ids for batch in sent(commands)] == [(1,)]


def test_another_plan_for_its_functions_does_not_make_a_model_forget_what_it_has_learned() -> None:
    one = engine(replace(MODEL, buffers=(replace(BUFFERS[0], target_batch=2), BUFFERS[1])))
    for number in range(60):
        at_s = 0.5 * number
        for batch in sent(one.handle([asked(number, at_s, "quick", 1.5)], at_s)):
            slow_s = 2.0 * CPU.latency.predict_s(batch.items)
            report = BatchReport(slow_s + 0.02, service_s=slow_s, billed_duration_s=slow_s, rtt_s=0.02)
            one.handle([BatchFinished(batch.batch_id, report)], at_s + 0.4)
            one.handle([], at_s + 0.4)

    def known() -> ModelEstimates:
        return one._snapshot(30.0).models["m"]

    one.handle([], 30.0)
    before = known()
    assert before.function_latencies["cpu"].predict_s(1) > 0.4
    one.handle([SettingsChanged(EngineSettings(models=(MODEL,)))], 30.0)
    assert known() == before
    assert one._queues["m"].buffers[0].plan.target_batch == 1


def test_a_new_grouping_knows_at_once_how_many_come_and_how_large_they_are() -> None:
    one = engine(replace(MODEL, buffers=()))
    for number in range(100):
        at_s = 0.05 * number
        for batch in sent(one.handle([asked(number, at_s, CLASSES[number % 2].name, 30.0)], at_s)):
            finish(one, batch, at_s)
    one.handle([SettingsChanged(EngineSettings(models=(MODEL,)))], 5.0)
    queues = one._queues["m"]
    assert [buffer.rate_rps for buffer in queues.buffers] == pytest.approx([10.0, 10.0], rel=0.1)
    assert [buffer.item_bytes for buffer in queues.buffers] == pytest.approx([20_000.0, 20_000.0])


@pytest.mark.parametrize(
    ("slo_s", "rate_rps", "dispersion"), [(3600.0, 60.0, 30.0), (60.0, 200.0, 1e6), (2.0, 900.0, 40.0)]
)
def test_no_objective_and_no_burst_is_too_much_for_a_plan(slo_s: float, rate_rps: float, dispersion: float) -> None:
    """With bursty arrivals the exact distribution of a wait of a minute takes minutes to compute, an hour fails."""
    model = ModelSettings("m", classes=(ServiceClass(slo_s=slo_s),), tiers=(CPU, GPU))
    estimates = ModelEstimates(rate_rps, dispersion, 1e4, None, {}, {}, {})
    snapshot = Snapshot(0.0, EngineSettings(models=(model,)), {"m": estimates}, None, 0.02)
    [buffer] = best_plan(snapshot, plan_id=1, cause="rate", detail="").groups[0].buffers
    assert buffer.tier in ("cpu", "gpu")


def test_requests_larger_than_the_planned_batch_go_alone() -> None:
    fixed = replace(MODEL, classes=CLASSES[1:], buffers=(LoadedBuffer(("patient",), "gpu", 3, {"patient": 5.0}, 1e-6),))
    one = engine(fixed)
    first = sent(one.handle([asked(1, 0.0, "patient", 30.0, items=2), asked(2, 0.0, "patient", 30.0, items=7)], 0.0))
    assert [(batch.request_ids, batch.items) for batch in first] == [((1,), 2), ((2,), 7)]


def routed(kept_factor: float) -> tuple[BufferPlan, ...]:
    """Buffers where large items take so many times as long; only one tier has shown it."""
    model = ModelSettings("m", classes=(ServiceClass(slo_s=2.0),), tiers=(CPU, GPU))
    sizes = (SizeShare(16_384.0, 10_000.0, 0.9), SizeShare(524_288.0, 400_000.0, 0.1))
    factors = {"cpu": SizeFactors((0.8, 0.8 * kept_factor), 0.05)}
    estimates = ModelEstimates(20.0, 1.0, 49_000.0, None, {}, {}, {}, item_sizes=sizes, size_factors=factors)
    snapshot = Snapshot(0.0, EngineSettings(models=(model,)), {"m": estimates}, None, 0.02)
    return best_plan(snapshot, plan_id=1, cause="rate", detail="").groups[0].buffers


def test_a_tier_that_has_not_shown_what_sizes_make_of_it_is_taken_to_be_like_the_others() -> None:
    small, large = routed(4.0)
    assert (small.up_to_bytes, large.up_to_bytes) == (16_384.0, None)
    assert (small.size_factor, large.size_factor) == pytest.approx((0.8, 3.2))
    assert (small.share, large.share) == pytest.approx((0.9, 0.1))


def test_sizes_that_no_tier_answers_in_time_do_not_keep_the_others_from_batches() -> None:
    """Large ones take 2.5 s and more, whatever is done."""
    small, large = routed(14.0)
    assert small.target_batch > 1
    assert large.target_batch == 1
    assert large.up_to_bytes is None


def test_a_batch_in_flight_is_judged_by_the_tables_of_its_tier_and_size() -> None:
    """A hedging weighs how late a batch will be: one of large items is not overdue when one of small ones would be."""
    model = replace(MODEL, buffers=(), classes=CLASSES[1:])
    plans = [
        BufferPlan(("patient",), "cpu", 1, {"patient": 1.0}, {"patient": 1.0}, 0.99, 0.5, 1e4, size_factor=0.5),
        BufferPlan(("patient",), "cpu", 1, {"patient": 1.0}, {"patient": 1.0}, 0.99, 0.5, size_factor=2.0),
    ]
    queues = ModelQueues(model, GroupPlan("m", ("patient",), 0, {}, 0.99, tuple(plans), 0.0, 1.0, 1.0))
    queues.adopt(model, queues.plan, lambda _: None)
    queues.learn([None], [service_times([factor * 0.3], margin=1.0) for factor in (0.5, 2.0)])
    members = [
        QueuedRequest(Request(i, "m", 0.0, 9.0, body_bytes=size, class_name="patient"))
        for i, size in ((1, 5_000), (2, 90_000))
    ]
    assert [queues.buffer_of(queued) for queued in members] == list(queues.buffers)
    outbox = Outbox(Admission(9, 10**6), DecisionRing(9))
    for buffer, queued, factor in zip(queues.buffers, members, (0.5, 2.0), strict=True):
        sending = Sending(Place.function("cpu"), 0.0, finish_s=1.0, service_s=0.3, give_up_at_s=9.0, size_factor=factor)
        batch = outbox.send([queued], sending)
        assert queues.times_of(batch) is buffer.times
        assert batch.largest_item_bytes == queued.request.body_bytes
    # Of an earlier plan's size: the tier's tables are the nearest there are.
    assert queues.times_of(replace(batch, size_factor=1.0)) is queues.buffers[0].times
    assert queues.times_of(replace(batch, place=Place.function("gone"))) is None
