"""The runner on virtual time, with a scripted engine and fake backends: it performs, and loses nothing."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.engine_kit import endpoint_of
from support.explained import explanations_of
from support.fake_backend import FakeBackend
from support.scripted_engine import BatchEachArrival, ScriptedEngine
from support.virtual_loop import NothingLeft, run_virtual

from scheduler.daemon.backends.batch_send import BatchSend, Reply, SendFailed
from scheduler.daemon.calls import Answer, InferenceCall, Refused
from scheduler.daemon.in_flight import LATE_LIMIT_S
from scheduler.daemon.model_trials import ModelTrials
from scheduler.daemon.records import BatchRing
from scheduler.daemon.runner import ITEMS_BEFORE_ANSWERS, Runner
from scheduler.daemon.status import PlanHistory
from scheduler.domain.batches import Batch, BatchReport, Failure, FailureKind
from scheduler.domain.errors import Refusal, RefusalKind
from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.messages import (
    BatchFailed,
    BatchFinished,
    BillArrived,
    Command,
    ComputePlan,
    DrainStarted,
    LimitsChanged,
    Message,
    PlanAdopted,
    PlanComputed,
    ProbeMeasured,
    RefuseRequest,
    RequestArrived,
    RequestCancelled,
    RequestSpend,
    ReturnSpend,
    SendBatch,
    SendProbe,
    SettingsChanged,
    SpendGranted,
)
from scheduler.domain.plans import EngineSettings, Limits, ModelSettings, Plan, ServiceClass, Snapshot
from scheduler.domain.requests import FUNCTIONS, Backend, Place
from scheduler.wire import InferRequest, Tensor
from scheduler.wire.trace_context import TraceContext

T = TypeVar("T")

TIER = FunctionTier("1gb", "digits", LatencyModel(0.2, 0.1, 8), Price(per_s=2.0, per_call=0.5))
SETTINGS = EngineSettings(
    models=(ModelSettings("digits", classes=(ServiceClass(), ServiceClass("slow", slo_s=9.0)), tiers=(TIER,)),)
)
LIMITS = LimitsChanged("digits", Limits(edge_batch_cap=4))


def a_call(*pictures: bytes, **changes: Any) -> InferenceCall:
    tensor = Tensor.from_elements("image", list(pictures))
    fields: dict[str, Any] = {"model": "digits", "inputs": (tensor,), "items": len(pictures), "body_bytes": 1000}
    return InferenceCall(**{**fields, "received_at_s": asyncio.get_running_loop().time(), **changes})


def a_plan(plan_id: int = 1) -> Plan:
    return Plan(plan_id, 0.0, 600.0, "start", "the first", ())


class Rig:
    """A running runner with its scripted engine and fake backends."""

    def __init__(self, engine: ScriptedEngine, **backends: FakeBackend) -> None:
        self.engine = engine
        self.backends = backends
        self.planned: list[ComputePlan] = []
        self.batches = BatchRing(50)
        self.plans = PlanHistory()
        self.heard: list[tuple[str, str, object]] = []
        self.runner = Runner(
            engine=engine,  # type: ignore[arg-type]
            settings=SETTINGS,
            backends={endpoint_of(Backend(name)): backend for name, backend in backends.items()},
            make_plan=self.make_plan,
            clock=asyncio.get_running_loop().time,
            explanations=explanations_of(engine.explanation, asyncio.get_running_loop().time),
            batches=self.batches,
            plans=self.plans,
            trials=ModelTrials(clock=asyncio.get_running_loop().time, heard=self.hear),
        )
        self.runner.start()

    def hear(self, model: str, place: Place, identity: object, sent_at_s: float) -> str:
        self.heard.append((model, str(place), identity))
        return ""

    async def make_plan(self, command: ComputePlan) -> Plan:
        self.planned.append(command)
        await asyncio.sleep(0.02)
        return a_plan(command.plan_id)

    def submit(self, *pictures: bytes, **changes: Any) -> "asyncio.Task[Answer]":
        return asyncio.create_task(self.runner.submit(a_call(*pictures, **changes)))


def rig(policy: BatchEachArrival, **backends: FakeBackend) -> Rig:
    return Rig(ScriptedEngine(policy), **(backends or {"edge": FakeBackend()}))


def run(main: Coroutine[Any, Any, T]) -> T:
    return run_virtual(main, start_s=100.0)


def echoes(answer: Answer) -> list[bytes]:
    return next(output for output in answer.outputs if output.name == "echo").elements()


def failing(kind: FailureKind, *, after: int = 0) -> FakeBackend:
    error = SendFailed(Failure(kind, f"it is {kind.value}"), BatchReport(elapsed_s=0.1))
    return FakeBackend(error=lambda batch: error if batch.batch_id > after else None)


def test_every_request_of_a_batch_gets_its_own_rows() -> None:
    async def main() -> list[list[bytes]]:
        r = rig(BatchEachArrival(size=3))
        tasks = [r.submit(b"a"), r.submit(b"b", b"c"), r.submit(b"d")]
        return [echoes(answer) for answer in await asyncio.gather(*tasks)]

    assert run(main()) == [[b"a"], [b"b", b"c"], [b"d"]]


def test_an_answer_tells_how_it_came_about() -> None:
    async def main() -> Answer:
        backend = FakeBackend(service_s=lambda batch: 0.25, duration_s=0.2, backend=Backend.FUNCTION)
        r = rig(BatchEachArrival(size=2, backend=Backend.FUNCTION, tier="1gb"), function=backend)
        first = r.submit(b"a")
        await asyncio.sleep(0.4)
        r.submit(b"b", b"c", b"d")
        return await first

    answer = run(main())
    assert (answer.backend, answer.tier, answer.batch_items, answer.attempts) == (Backend.FUNCTION, "1gb", 4, 1)
    assert answer.wait_s == pytest.approx(0.4)
    assert answer.elapsed_s == pytest.approx(0.25)
    assert answer.cost == pytest.approx((2.0 * 0.2 + 0.5) / 4)


def test_a_callers_own_timeout_is_its_deadline_and_else_the_slo_of_its_class() -> None:
    async def main() -> list[float]:
        r = rig(BatchEachArrival())
        await asyncio.gather(r.submit(b"x"), r.submit(b"x", class_name="slow"), r.submit(b"x", timeout_s=0.5))
        return [m.request.deadline_s for m in r.engine.messages if isinstance(m, RequestArrived)]

    assert run(main()) == [101.0, 109.0, 100.5]


def test_an_unknown_class_is_refused_by_name_and_never_reaches_the_engine() -> None:
    async def main() -> tuple[Refusal, list[Message]]:
        r = rig(BatchEachArrival())
        with pytest.raises(Refused) as refused:
            await r.submit(b"x", class_name="fast")
        return refused.value.refusal, r.engine.messages

    refusal, heard = run(main())
    assert refusal.kind is RefusalKind.BAD_REQUEST
    assert "its classes are: default, slow" in refusal.message
    assert heard == []


def test_a_refusal_reaches_its_caller() -> None:
    refusal = Refusal(RefusalKind.QUEUE_FULL, "full", 2.5)

    def refuse(message: Message, now_s: float) -> list[Command]:
        return [RefuseRequest(message.request.request_id, refusal)] if isinstance(message, RequestArrived) else []

    async def main() -> Refusal:
        r = Rig(ScriptedEngine(refuse))
        with pytest.raises(Refused) as refused:
            await r.submit(b"x")
        return refused.value.refusal

    assert run(main()) == refusal


def test_a_caller_that_goes_away_is_reported_once_and_its_batch_still_serves_the_others() -> None:
    async def main() -> tuple[list[bytes], list[Message], int]:
        r = rig(BatchEachArrival(size=2))
        gone, stays = r.submit(b"a"), r.submit(b"b")
        await asyncio.sleep(0.05)
        gone.cancel()
        answer = await stays
        return echoes(answer), r.engine.messages, len(r.runner._bodies)

    answered, heard, left = run(main())
    assert answered == [b"b"]
    assert [m for m in heard if isinstance(m, RequestCancelled)] == [RequestCancelled(1)]
    assert left == 0


def test_a_caller_that_goes_away_before_the_engine_heard_of_it_is_still_cancelled_after_it_arrived() -> None:
    async def main() -> list[type]:
        r = rig(BatchEachArrival(size=9))
        gone = r.submit(b"a")
        asyncio.get_running_loop().call_soon(gone.cancel)
        await asyncio.sleep(1)
        return [type(message) for message in r.engine.messages]

    assert run(main()) == [RequestArrived, RequestCancelled]


def test_a_caller_may_go_away_at_the_very_moment_at_which_its_batch_is_sent() -> None:
    async def main() -> tuple[list[bytes], int]:
        r = rig(BatchEachArrival(size=2))
        gone = r.submit(b"a")
        await asyncio.sleep(0.05)
        stays = r.submit(b"b")
        gone.cancel()
        answer = await stays
        assert [type(m) for m in r.engine.heard[2][1]] == [RequestArrived, RequestCancelled]
        return echoes(answer), len(r.runner._bodies)

    assert run(main()) == ([b"b"], 0)


def test_after_a_drain_has_reached_its_limit_the_engine_is_not_asked_again() -> None:
    async def main() -> tuple[int, int]:
        r = rig(BatchEachArrival(), edge=FakeBackend(service_s=lambda batch: 3.0))
        with pytest.raises(Refused):
            await asyncio.gather(r.submit(b"a"), r.runner.drain(1.0))
        heard = len(r.engine.heard)
        await asyncio.sleep(5.0)
        return heard, len(r.engine.heard)

    before, after = run(main())
    assert before == after


@pytest.mark.parametrize("kind", list(FailureKind))
def test_a_failed_batch_is_told_to_the_engine_by_its_kind(kind: FailureKind) -> None:
    async def main() -> list[Message]:
        r = rig(BatchEachArrival(), edge=failing(kind))
        with pytest.raises(Refused, match="it is"):
            await r.submit(b"x")
        return r.engine.messages[1:]

    (message,) = run(main())
    assert isinstance(message, BatchFailed)
    assert message.failure.kind is kind


@pytest.mark.provokes_fault
def test_a_bug_in_a_backend_is_a_failed_batch_and_not_a_lost_one(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> list[Message]:
        r = rig(BatchEachArrival(), edge=FakeBackend(error=lambda batch: ZeroDivisionError("oops")))
        with pytest.raises(Refused):
            await r.submit(b"x")
        return r.engine.messages[1:]

    (message,) = run(main())
    assert isinstance(message, BatchFailed)
    assert message.failure.kind is FailureKind.SERVER
    assert "oops" not in message.failure.message
    assert "batch_bug" in caplog.text


def test_a_missing_backend_fails_its_batch_as_unreachable() -> None:
    async def main() -> Message:
        r = rig(BatchEachArrival(backend=Backend.FUNCTION, tier="1gb"))
        with pytest.raises(Refused, match="no function backend is configured"):
            await r.submit(b"x")
        return r.engine.messages[1]

    message = run(main())
    assert isinstance(message, BatchFailed)
    assert message.failure.kind is FailureKind.UNREACHABLE


def test_requests_that_do_not_fit_in_one_batch_fail_it_as_rejected_so_that_it_is_halved() -> None:
    async def main() -> Message:
        r = rig(BatchEachArrival(size=2))
        other = Tensor("image", "FP32", (1, 2), bytes(8))
        results = await asyncio.gather(r.submit(b"x"), r.submit(b"y", inputs=(other,)), return_exceptions=True)
        assert all(isinstance(result, Refused) for result in results)
        return r.engine.messages[2]

    message = run(main())
    assert isinstance(message, BatchFailed)
    assert message.failure.kind is FailureKind.REJECTED


def test_a_batch_without_an_answer_is_given_up_at_its_time() -> None:
    async def main() -> tuple[float, Message]:
        r = rig(BatchEachArrival(give_up_after_s=2.0), edge=FakeBackend(service_s=lambda batch: 1e9))
        with pytest.raises(Refused, match=r"did not answer within 2 s"):
            await r.submit(b"x")
        return r.engine.heard[-1][0], r.engine.messages[-1]

    now_s, message = run(main())
    assert now_s == pytest.approx(102.0)
    assert isinstance(message, BatchFailed)
    assert message.failure.kind is FailureKind.TIMEOUT
    assert message.report.elapsed_s == pytest.approx(2.0)


def test_a_batch_that_was_never_written_is_given_up_as_unreachable() -> None:
    async def main() -> Message:
        r = rig(BatchEachArrival(), edge=FakeBackend(service_s=lambda batch: 1e9, written=False))
        with pytest.raises(Refused):
            await r.submit(b"x")
        return r.engine.messages[-1]

    message = run(main())
    assert isinstance(message, BatchFailed)
    assert message.failure.kind is FailureKind.UNREACHABLE


def test_a_warming_call_goes_out_without_requests_and_its_bill_is_recorded() -> None:
    class Warmed(FakeBackend):
        def outputs(self, request: InferRequest) -> tuple[Tensor, ...]:
            assert request.inputs == ()
            return ()

    def warm_on_arrival(message: Message, now_s: float) -> list[Command]:
        if not isinstance(message, RequestArrived):
            return []
        batch = BatchEachArrival(backend=Backend.FUNCTION, tier="1gb").batch([message.request], now_s)
        refusal = RefuseRequest(message.request.request_id, Refusal(RefusalKind.DEADLINE, "too late"))
        return [SendBatch(replace(batch, request_ids=(), items=0, body_bytes=0)), refusal]

    async def main() -> tuple[list[Message], list[dict[str, object]]]:
        backend = Warmed(duration_s=0.001, backend=Backend.FUNCTION)
        r = Rig(ScriptedEngine(warm_on_arrival), function=backend)
        with pytest.raises(Refused):
            await r.submit(b"x")
        await asyncio.sleep(1.0)
        return r.engine.messages, r.batches.rows(0, 10)

    heard, [row] = run(main())
    assert [type(message) for message in heard] == [RequestArrived, BatchFinished]
    assert (row["items"], row["requests"], row["wait_max_s"]) == (0, 0, 0.0)
    assert row["cost"] == pytest.approx(2.0 * 0.001 + 0.5)


def test_a_late_answer_is_dropped_but_its_bill_is_recorded() -> None:
    async def main() -> tuple[list[Message], list[dict[str, object]], list[dict[str, object]], int]:
        backend = FakeBackend(service_s=lambda batch: 3.0, duration_s=2.5, backend=Backend.FUNCTION)
        policy = BatchEachArrival(backend=Backend.FUNCTION, tier="1gb", give_up_after_s=1.0)
        r = rig(policy, function=backend)
        with pytest.raises(Refused):
            await r.submit(b"x")
        before = r.batches.rows(0, 10)
        await asyncio.sleep(5.0)
        return r.engine.messages, before, r.batches.rows(1, 10), r.runner.statistics().late_answers

    heard, before, after, late = run(main())
    assert [type(message) for message in heard] == [RequestArrived, BatchFailed, BillArrived]
    assert isinstance(heard[2], BillArrived)
    assert (heard[2].batch_id, heard[2].report.billed_duration_s, heard[2].failure) == (1, 2.5, None)
    assert [(row["record"], row["cost"]) for row in before] == [(1, 1.0)]
    assert [(row["record"], row["batch_id"], row["cost"]) for row in after] == [(2, 1, 2.5 * 2.0 + 0.5)]
    assert str(after[0]["error"]).startswith("timeout")
    assert late == 1


@pytest.mark.parametrize(("backend", "tier", "kept_s"), [("edge", "", 0.0), ("function", "1gb", LATE_LIMIT_S)])
def test_a_batch_that_never_comes_back_keeps_its_task_only_while_its_bill_may_come(
    backend: str, tier: str, kept_s: float
) -> None:
    async def main() -> list[int]:
        policy = BatchEachArrival(backend=Backend(backend), tier=tier, give_up_after_s=1.0)
        r = rig(policy, **{backend: FakeBackend(service_s=lambda batch: 1e9)})
        with pytest.raises(Refused):
            await r.submit(b"x")
        before = len(r.runner._sender._tasks)
        await asyncio.sleep(kept_s * 0.9)
        meanwhile = len(r.runner._sender._tasks)
        await asyncio.sleep(kept_s * 0.2 + 0.1)
        return [before, meanwhile, len(r.runner._sender._tasks)]

    assert run(main()) == [1, int(kept_s > 0), 0]


def test_a_request_whose_every_item_is_bad_is_refused_with_the_items_sentence_and_alone() -> None:
    async def main() -> tuple[Refusal, list[bytes]]:
        backend = FakeBackend(item_errors=lambda element: b"not a picture" if element == b"bad" else b"")
        r = rig(BatchEachArrival(size=2), edge=backend)
        bad, mixed = r.submit(b"bad"), r.submit(b"bad", b"good")
        with pytest.raises(Refused) as refused:
            await bad
        return refused.value.refusal, (await mixed).outputs[1].elements()

    refusal, item_errors = run(main())
    assert refusal == Refusal(RefusalKind.BAD_REQUEST, "not a picture")
    assert item_errors == [b"not a picture", b""]


def test_plans_are_made_beside_the_loop_and_brought_back() -> None:
    def ask(message: Message, now_s: float) -> list[Command]:
        if isinstance(message, LimitsChanged):
            return [ComputePlan(Snapshot(now_s, SETTINGS, {}, None, 0.02), 7, "limits", "narrowed")]
        return [PlanAdopted(message.plan)] if isinstance(message, PlanComputed) else []

    async def main() -> list[dict[str, object]]:
        r = Rig(ScriptedEngine(ask))
        r.runner.post(LIMITS)
        await asyncio.sleep(1.0)
        return r.plans.rows()

    assert run(main()) == [{"plan_id": 7, "at_s": 0.0, "cause": "start", "detail": "the first"}]


@pytest.mark.provokes_fault
def test_a_bug_in_the_planner_stops_the_daemon() -> None:
    def ask(message: Message, now_s: float) -> list[Command]:
        return [ComputePlan(Snapshot(now_s, SETTINGS, {}, None, 0.02), 7, "limits", "narrowed")]

    async def make_plan(command: ComputePlan) -> Plan:
        raise ZeroDivisionError("bug")

    async def main() -> Exception:
        r = Rig(ScriptedEngine(ask))
        r.runner._make_plan = make_plan
        r.runner.post(LIMITS)
        return await r.runner.crashed()

    assert isinstance(run(main()), ZeroDivisionError)


def test_what_a_place_reports_of_its_files_is_passed_on() -> None:
    async def main() -> list[tuple[str, str, object]]:
        r = rig(BatchEachArrival(), edge=FakeBackend(identity="sha256:1"))
        await r.submit(b"a")
        return r.heard

    assert run(main()) == [("digits", "edge:main", "sha256:1")]


def test_the_engine_is_told_which_requests_have_equal_shapes() -> None:
    async def main() -> list[int]:
        r = rig(BatchEachArrival())
        shapes = ((2,), (3,), (2,), (2, 1))
        tensors = [Tensor.from_numpy("x", np.zeros((1, *shape), np.float32)) for shape in shapes]
        for tensor in tensors:
            asyncio.create_task(r.runner.submit(a_call(b"", inputs=(tensor,))))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return [m.request.shape_id for m in r.engine.messages if isinstance(m, RequestArrived)]

    assert run(main()) == [0, 1, 0, 2]


def test_a_probe_comes_back_once_and_also_where_no_backend_is() -> None:
    def probe(message: Message, now_s: float) -> list[Command]:
        return [SendProbe(Place.edge()), SendProbe(FUNCTIONS)] if isinstance(message, LimitsChanged) else []

    async def main() -> list[Message]:
        r = Rig(ScriptedEngine(probe), edge=FakeBackend())
        r.runner.post(LIMITS)
        await asyncio.sleep(1.0)
        return r.engine.messages[1:]

    assert run(main()) == [
        ProbeMeasured(FUNCTIONS, ok=False),
        ProbeMeasured(Place.edge(), ok=True, rtt_s=0.01),
    ]


def test_money_is_granted_as_asked_where_there_is_no_ledger() -> None:
    def ask(message: Message, now_s: float) -> list[Command]:
        if isinstance(message, LimitsChanged):
            return [RequestSpend(0.5, 0.0, 1.0, None), ReturnSpend(0.25)]
        return []

    async def main() -> list[Message]:
        r = Rig(ScriptedEngine(ask))
        r.runner.post(LIMITS)
        await asyncio.sleep(0.1)
        return r.engine.messages[1:]

    assert run(main()) == [SpendGranted(0.5)]


def test_a_drain_waits_for_every_answer() -> None:
    async def main() -> tuple[int, float, list[bytes], bool]:
        r = rig(BatchEachArrival(), edge=FakeBackend(service_s=lambda batch: 3.0))
        task = r.submit(b"a")
        await asyncio.sleep(0.1)
        left = await r.runner.drain(10.0)
        ended_at_s = asyncio.get_running_loop().time()
        return left, ended_at_s, echoes(await task), DrainStarted() in r.engine.messages

    assert run(main()) == (0, pytest.approx(103.0), [b"a"], True)


def test_a_drain_ends_at_its_limit_and_refuses_the_calls_that_wait() -> None:
    async def main() -> tuple[int, float, Refusal]:
        r = rig(BatchEachArrival(size=9))
        task = r.submit(b"a")
        await asyncio.sleep(0.1)
        left = await r.runner.drain(2.0)
        ended_at_s = asyncio.get_running_loop().time()
        with pytest.raises(Refused) as refused:
            await task
        return left, ended_at_s, refused.value.refusal

    left, ended_at_s, refusal = run(main())
    assert (left, refusal.kind) == (1, RefusalKind.DRAINING)
    assert ended_at_s == pytest.approx(102.1)


@pytest.mark.parametrize(
    ("items", "order"),
    [(ITEMS_BEFORE_ANSWERS, ["batch 1", "batch 2", "a", "b", "c"]), (1, ["batch 1", "a", "b", "batch 2", "c"])],
)
def test_a_batch_of_some_size_leaves_before_answers_are_handed_out(items: int, order: list[str]) -> None:
    """While many answers are written one by one, the backend shall have its next batch already."""

    async def main() -> list[str]:
        happened: list[str] = []
        policy = BatchEachArrival(size=2)

        def send_next_when_one_is_back(message: Message, now_s: float) -> list[Command]:
            commands = policy(message, now_s)
            if isinstance(message, BatchFinished) and message.batch_id == 1:
                commands.append(SendBatch(policy.batch(policy.gathered, now_s)))
            return commands

        def service_s(batch: Batch) -> float:
            happened.append(f"batch {batch.batch_id}")
            return 0.1

        async def call(r: Rig, name: str, items: int) -> None:
            await r.runner.submit(a_call(*[name.encode()] * items))
            happened.append(name)

        r = Rig(ScriptedEngine(send_next_when_one_is_back), edge=FakeBackend(service_s=service_s, hops=1))
        await asyncio.gather(call(r, "a", 1), call(r, "b", 1), call(r, "c", items))
        return list(dict.fromkeys(happened))

    assert run(main()) == order


@pytest.mark.provokes_fault
def test_a_bug_in_the_engine_ends_every_call_with_a_sentence_and_stops_the_daemon() -> None:
    def explode(message: Message, now_s: float) -> list[Command]:
        raise ZeroDivisionError("bug")

    async def main() -> tuple[list[RefusalKind], Exception]:
        r = Rig(ScriptedEngine(explode))
        first = r.submit(b"a")
        error = await r.runner.crashed()
        heard = len(r.engine.heard)
        results = await asyncio.gather(first, r.submit(b"b"), return_exceptions=True)
        assert len(r.engine.heard) == heard, "an engine with a bug is not asked again"
        return [result.refusal.kind for result in results if isinstance(result, Refused)], error

    kinds, error = run(main())
    assert kinds == [RefusalKind.BACKEND] * 2
    assert isinstance(error, ZeroDivisionError)


def test_new_settings_reach_the_engine_and_a_tier_that_is_gone_still_prices_its_batches() -> None:
    async def main() -> tuple[list[Message], float]:
        backend = FakeBackend(duration_s=1.0, backend=Backend.FUNCTION)
        r = rig(BatchEachArrival(size=2, backend=Backend.FUNCTION, tier="1gb"), function=backend)
        first = r.submit(b"a")
        await asyncio.sleep(0.1)
        without = EngineSettings(models=(ModelSettings("digits"),))
        r.runner.reload(without)
        r.submit(b"b")
        answer = await first
        return [m for m in r.engine.messages if isinstance(m, SettingsChanged)], answer.cost

    changed, cost = run(main())
    assert len(changed) == 1
    assert cost == pytest.approx(2.5 / 2)


def test_a_replaced_backend_is_closed_only_when_its_batches_are_back() -> None:
    async def main() -> tuple[bool, bool, list[int]]:
        old, new = FakeBackend(service_s=lambda batch: 2.0), FakeBackend()
        r = rig(BatchEachArrival(), edge=old)
        first = r.submit(b"a")
        await asyncio.sleep(0.1)
        await r.runner.replace_backend(Place.edge(), new)
        await r.submit(b"b")
        closed_early = old.closed
        await first
        await asyncio.sleep(0.1)
        return closed_early, old.closed, [batch.batch_id for batch in new.batches]

    assert run(main()) == (False, True, [2])


def test_a_batch_that_was_sent_is_answered_though_its_backend_is_removed_at_once() -> None:
    async def main() -> tuple[bool, object, bool]:
        backend = FakeBackend(service_s=lambda batch: 0.1)
        r = rig(BatchEachArrival(), edge=backend)
        first = r.submit(b"a")
        while not r.runner.statistics().batches_under_way:
            await asyncio.sleep(0)
        await r.runner.replace_backend(Place.edge(), None)
        closed_early, answer = backend.closed, await first
        await asyncio.sleep(0.1)
        return closed_early, answer.backend, backend.closed

    assert run(main()) == (False, Backend.EDGE, True)


def test_closing_refuses_pending_calls_and_closes_the_backends() -> None:
    async def main() -> tuple[bool, RefusalKind]:
        backend = FakeBackend(service_s=lambda batch: 1e6)
        r = rig(BatchEachArrival(), edge=backend)
        task = r.submit(b"a")
        await asyncio.sleep(0.1)
        await r.runner.close()
        with pytest.raises(Refused) as refused:
            await task
        return backend.closed, refused.value.refusal.kind

    assert run(main()) == (True, RefusalKind.DRAINING)


def test_an_answer_tells_when_its_request_reached_the_engine_and_when_its_batch_was_read() -> None:
    async def main() -> tuple[float, float]:
        r = rig(BatchEachArrival())
        answer = await r.submit(b"a", received_at_s=asyncio.get_running_loop().time() - 0.004)
        await asyncio.sleep(0.002)
        return answer.in_s, asyncio.get_running_loop().time() - answer.read_at_s

    assert run(main()) == (pytest.approx(0.004), pytest.approx(0.002))


def test_a_loop_on_which_nothing_can_happen_any_more_says_so() -> None:
    with pytest.raises(NothingLeft):
        run(asyncio.Event().wait())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0.0, 3.0),
            st.integers(1, 4),
            st.sampled_from(["stay", "leave", "leave at once"]),
        ),
        max_size=40,
    ),
    st.integers(1, 5),
    st.sampled_from(["fine", "slow", "broken", "buggy", "flaky"]),
)
@pytest.mark.provokes_fault
def test_every_call_ends_exactly_once_whatever_happens(
    arrivals: list[tuple[float, int, str]], size: int, weather: str
) -> None:
    """Answered with its own rows, refused, or gone by its own will; afterwards nothing is held."""

    def error(batch: Any) -> BaseException | None:
        broken = SendFailed(Failure(FailureKind.BROKEN, "broken"), BatchReport(0.1))
        bad = weather == "broken" or (weather == "flaky" and batch.batch_id % 3 == 0)
        return ValueError("bug") if weather == "buggy" else broken if bad else None

    async def one(r: Rig, number: int, at_s: float, items: int, how: str) -> str:
        await asyncio.sleep(at_s)
        pictures = [f"{number}-{index}".encode() for index in range(items)]
        task = r.submit(*pictures)
        if how != "stay":
            await asyncio.sleep(0 if how == "leave at once" else 0.07)
            task.cancel()
        done, _ = await asyncio.wait([task])
        if task.cancelled():
            return "gone"
        if isinstance(task.exception(), Refused):
            return "refused"
        assert echoes(task.result()) == pictures
        return "answered"

    async def main() -> tuple[list[str], int, int]:
        backend = FakeBackend(service_s=lambda batch: 50.0 if weather == "slow" else 0.1, error=error)
        r = rig(BatchEachArrival(size=size, give_up_after_s=5.0), edge=backend)
        work = [one(r, number, *arrival) for number, arrival in enumerate(arrivals)]
        gathering = asyncio.gather(*work)
        await asyncio.sleep(20.0)
        await r.runner.drain(1.0)
        ends = await gathering
        await asyncio.sleep(100.0)
        return ends, len(r.runner._bodies), len(r.runner._sender)

    ends, bodies, batches = run(main())
    assert len(ends) == len(arrivals)
    assert (bodies, batches) == (0, 0)
    if weather == "fine":
        assert "answered" in ends or size > 1 or all(how != "stay" for _, _, how in arrivals)


def test_a_batch_passes_on_the_trace_of_its_first_request_that_has_one() -> None:
    first, second = (TraceContext(digit * 32, digit * 16) for digit in "12")

    async def main() -> list[TraceContext | None]:
        traces: list[TraceContext | None] = []

        class Noting(FakeBackend):
            async def send(self, batch_send: BatchSend, request: InferRequest) -> Reply:
                traces.append(batch_send.trace)
                return await super().send(batch_send, request)

        r = rig(BatchEachArrival(size=3), edge=Noting())
        submitted = [r.submit(b"a"), r.submit(b"b", trace=first), r.submit(b"c", trace=second)]
        await asyncio.gather(*submitted, *(r.submit(b"d") for _ in range(3)))
        return traces

    assert run(main()) == [first, None]


def test_every_plan_that_is_still_made_ends_with_the_daemon() -> None:
    """A reload asks for another one while a planner hangs."""

    def react(message: Message, now_s: float) -> list[Command]:
        if isinstance(message, RequestArrived):
            return [ComputePlan(Snapshot(now_s, SETTINGS, {}, None, 0.02), 7, "settings", "reloaded")]
        return []

    async def main() -> set[str]:
        made = Rig(ScriptedEngine(react), edge=FakeBackend())
        calls = [made.submit(b"a"), made.submit(b"b")]
        await asyncio.sleep(0.01)
        assert len(made.planned) == 2
        await made.runner.close()
        await asyncio.gather(*calls, return_exceptions=True)
        return {task.get_name() for task in asyncio.all_tasks()} & {"plan"}

    assert run(main()) == set()
