"""The same script through both shells gives the same commands: what is simulated is what runs.

The daemon's Runner runs on an event loop with virtual time, the simulator on its heap. Both get the same arrivals and
backends that take the same time and fail at the same batches. Every command and the moment of it must be equal.
"""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from support.engine_kit import endpoint_of, settings
from support.explained import explanations_of
from support.fake_backend import FakeBackend
from support.virtual_loop import run_virtual

from scheduler.daemon.backends.batch_send import SendFailed
from scheduler.daemon.calls import InferenceCall, Refused
from scheduler.daemon.records import BatchRing
from scheduler.daemon.runner import Runner
from scheduler.daemon.status import PlanHistory
from scheduler.domain.batches import Batch, BatchReport, Failure, FailureKind
from scheduler.domain.messages import (
    BatchFailed,
    BatchFinished,
    Command,
    ComputePlan,
    Message,
    ProbeMeasured,
    SendBatch,
)
from scheduler.domain.plans import EngineSettings, Plan
from scheduler.domain.requests import Backend, Request
from scheduler.engine import Engine
from scheduler.planner.site.plan import best_plan
from scheduler.simulator.backends import Outcome
from scheduler.simulator.shell import PLANNING_S, Simulation
from scheduler.wire import Tensor
from scheduler.workloads import steps

PICTURE = b"x" * 9_000
PROBE_S = 0.01
Timed = tuple[float, Command]


class RecordingEngine(Engine):
    """Notes every command with its time."""

    def __init__(self, engine_settings: EngineSettings) -> None:
        super().__init__(engine_settings)
        self.commands: list[Timed] = []

    def handle(self, messages: Sequence[Message], now_s: float) -> list[Command]:
        commands = super().handle(messages, now_s)
        self.commands += [(now_s, command) for command in commands]
        return commands


class Script:
    """What the backends do, drawn once per batch from its id, so that both shells meet the same world."""

    def __init__(self, *, fail_every: int = 0) -> None:
        self.fail_every = fail_every

    def service_s(self, batch: Batch) -> float:
        noise = float(np.random.default_rng(batch.batch_id).lognormal(0.0, 0.08))
        latency = (0.04234, 0.008165) if batch.backend is Backend.EDGE else (0.236, 0.141)
        return (latency[0] + latency[1] * batch.items) * noise

    def failure(self, batch: Batch) -> Failure | None:
        if self.fail_every and batch.batch_id % self.fail_every == 0:
            kinds = (FailureKind.BROKEN, FailureKind.SERVER, FailureKind.THROTTLED, FailureKind.UNREACHABLE)
            return Failure(kinds[batch.batch_id // self.fail_every % len(kinds)], "as the script says")
        return None

    def report(self, batch: Batch, elapsed_s: float) -> BatchReport:
        service_s = self.service_s(batch) - (0.0 if batch.backend is Backend.EDGE else 0.02)
        return BatchReport(elapsed_s, service_s=service_s, billed_duration_s=service_s)


class ScriptedBackend(FakeBackend):
    """The script on the virtual loop."""

    def __init__(self, script: Script, backend: Backend) -> None:
        super().__init__(service_s=script.service_s, backend=backend, probe_s=PROBE_S)
        self.script = script
        self.error = self._error

    def report(self, batch_send, now_s):  # type: ignore[no-untyped-def]
        return self.script.report(batch_send.batch, now_s - batch_send.batch.sent_at_s)

    def _error(self, batch: Batch) -> SendFailed | None:
        failure = self.script.failure(batch)
        elapsed_s = asyncio.get_running_loop().time() - batch.sent_at_s
        return None if failure is None else SendFailed(failure, self.script.report(batch, elapsed_s))


class ScriptedPlace:
    """The script in the simulator."""

    def __init__(self, script: Script, backend: Backend) -> None:
        self.script, self.backend = script, backend

    def send(self, batch: Batch, *, now_s: float) -> Outcome:
        at_s = now_s + self.script.service_s(batch)
        failure, report = self.script.failure(batch), self.script.report(batch, at_s - now_s)
        if failure is None:
            return Outcome(at_s, BatchFinished(batch.batch_id, report))
        return Outcome(at_s, BatchFailed(batch.batch_id, failure, report))

    def probe(self, *, now_s: float) -> tuple[float, ProbeMeasured]:
        return now_s + PROBE_S, ProbeMeasured(endpoint_of(self.backend), ok=True, rtt_s=PROBE_S)


def through_the_daemon(engine_settings: EngineSettings, arrivals_s: Sequence[float], script: Script) -> list[Timed]:
    """Plays the script on the virtual loop; returns the engine's commands."""
    engine = RecordingEngine(engine_settings)

    async def make_plan(command: ComputePlan) -> Plan:
        await asyncio.sleep(PLANNING_S)
        return best_plan(command.snapshot, plan_id=command.plan_id, cause=command.cause, detail=command.detail)

    async def one_request(runner: Runner, at_s: float) -> None:
        loop = asyncio.get_running_loop()
        timer = loop.create_future()
        loop.call_at(at_s, timer.set_result, None)
        await timer
        image = Tensor.from_elements("image", [PICTURE])
        call = InferenceCall("m", (image,), items=1, body_bytes=len(PICTURE), received_at_s=runner.now())
        try:
            await runner.submit(call)
        except Refused:
            return

    async def main() -> None:
        loop = asyncio.get_running_loop()
        runner = Runner(
            engine=engine,
            settings=engine_settings,
            backends={endpoint_of(side): ScriptedBackend(script, side) for side in Backend},
            make_plan=make_plan,
            clock=loop.time,
            explanations=explanations_of(lambda _: None, loop.time),
            batches=BatchRing(10),
            plans=PlanHistory(),
        )
        runner.start()
        await asyncio.gather(*(one_request(runner, at_s) for at_s in arrivals_s))

    run_virtual(main())
    return engine.commands


def through_the_simulator(engine_settings: EngineSettings, arrivals_s: Sequence[float], script: Script) -> list[Timed]:
    """Plays the script on the simulator's heap; returns the engine's commands."""
    engine = RecordingEngine(engine_settings)
    requests = [
        Request(i, "m", at_s, at_s + 1.0, body_bytes=len(PICTURE)) for i, at_s in enumerate(arrivals_s, start=1)
    ]
    Simulation(
        engine=engine,
        requests=requests,
        edge=ScriptedPlace(script, Backend.EDGE),  # type: ignore[arg-type]
        functions=ScriptedPlace(script, Backend.FUNCTION),  # type: ignore[arg-type]
    ).run()
    return engine.commands


@pytest.mark.parametrize(("fail_every", "package"), [(0, False), (7, False), (7, True)])
def test_both_shells_give_the_same_commands_at_the_same_moments(fail_every: int, package: bool) -> None:
    engine_settings = settings(uplink_bytes_per_s=1e6, changepoint_package=package)
    workload = steps([(3.0, 30.0), (4.0, 170.0), (3.0, 60.0)], rng=np.random.default_rng(5))
    arrivals_s = [float(at_s) for at_s in workload.times_s]
    script = Script(fail_every=fail_every)
    daemon = through_the_daemon(engine_settings, arrivals_s, script)
    simulator = through_the_simulator(engine_settings, arrivals_s, script)
    # The daemon stops at its last answer; the simulator waits for the last batch as well.
    for ours, theirs in zip(daemon, simulator, strict=False):
        assert ours == theirs
    assert abs(len(daemon) - len(simulator)) <= 2
    assert len(daemon) > 800
    sides = {command.batch.backend for _, command in daemon if isinstance(command, SendBatch)}
    assert sides == set(Backend)
    assert "rate" in {command.cause for _, command in daemon if isinstance(command, ComputePlan)}
