"""A daemon's runner with a shadow, on the virtual loop, before scripted backends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from support.engine_kit import endpoint_of
from support.explained import explanations_of
from support.fake_backend import FakeBackend
from support.virtual_loop import run_virtual

from scheduler.control import Control
from scheduler.daemon.calls import InferenceCall, Refused
from scheduler.daemon.records import BatchRing
from scheduler.daemon.runner import Runner
from scheduler.daemon.shadow.reading import Reading
from scheduler.daemon.shadow.shadow import Shadow
from scheduler.daemon.status import PlanHistory
from scheduler.dispatch.decision_ring import DecisionRing
from scheduler.domain.batches import Batch, BatchReport
from scheduler.domain.messages import Command, ComputePlan, Message
from scheduler.domain.plans import EngineSettings, Plan
from scheduler.domain.requests import Backend
from scheduler.engine import Engine
from scheduler.planner.site.plan import best_plan
from scheduler.wire import Tensor

PICTURE = b"x" * 9_000
RTT_S = 0.02


def reading(live: EngineSettings, shadow: EngineSettings) -> Reading:
    """Returns a comparison of two settings."""
    return Reading(live, shadow, answer_reserve_s=0.0, currencies=("CNY", "CNY"))


async def plan_at_once(command: ComputePlan) -> tuple[Plan, float]:
    """Plans on the loop, which takes no time."""
    plan = best_plan(command.snapshot, plan_id=command.plan_id, cause=command.cause, detail=command.detail)
    return plan, 0.0


def shadow_on(loop: asyncio.AbstractEventLoop, **changes: Any) -> Shadow:
    """Returns a shadow that takes no time, with whatever a test is about set otherwise."""
    parts: dict[str, Any] = {"clock": loop.time, "timer": loop.time, "make_plan": plan_at_once, "seed": 5}
    return Shadow(Path("shadow.toml"), **{**parts, **changes})


class Backends:
    """Backends whose services follow the published laws, drawn once for each batch."""

    def __init__(self, *, edge_pace: float = 1.0) -> None:
        """Stores how many times its law the edge takes."""
        self.edge_pace = edge_pace
        self.sides = {endpoint_of(side): _Place(self, side) for side in Backend}

    def service_s(self, batch: Batch) -> float:
        """Returns the seconds of a batch."""
        noise = float(np.random.default_rng(batch.batch_id).lognormal(0.0, 0.08))
        if batch.backend is Backend.EDGE:
            return self.edge_pace * (0.04634 + 0.008165 * batch.items) * noise
        return RTT_S + (0.216 + 0.141 * batch.items) * noise

    @property
    def sent(self) -> int:
        """How many batches they got."""
        return sum(len(place.batches) for place in self.sides.values())


class _Place(FakeBackend):
    def __init__(self, all_of_them: Backends, side: Backend) -> None:
        super().__init__(service_s=all_of_them.service_s, backend=side, probe_s=RTT_S)

    def report(self, batch_send: Any, now_s: float) -> BatchReport:
        """Returns what a backend with that law says."""
        elapsed_s = now_s - batch_send.batch.sent_at_s
        if self.backend is Backend.EDGE:
            return BatchReport(elapsed_s, service_s=elapsed_s)
        service_s = elapsed_s - RTT_S
        return BatchReport(elapsed_s, service_s=service_s, billed_duration_s=service_s, rtt_s=RTT_S, cold_start=False)


@dataclass
class Played:
    """What came of it."""

    report: dict[str, Any]
    backends: Backends
    spent: float
    answered: int = 0
    refused: int = 0
    errors: list[str] = field(default_factory=list)


def play(
    live: EngineSettings,
    shadow: EngineSettings | None,
    arrivals_s: Sequence[float],
    *,
    backends: Backends | None = None,
    during: Callable[[Shadow, Runner], Awaitable[None]] | None = None,
    timeouts_s: Mapping[int, float] | None = None,
    **parts: Any,
) -> Played:
    """Sends requests at these times through a runner, and returns the figures a second after the last has ended.

    Args:
        live: the runner's settings.
        shadow: the shadow's; None: it is not told any.
        arrivals_s: ascending.
        backends: None: new ones.
        during: runs beside.
        timeouts_s: by the index of the request, where its client asks for a deadline.
        parts: of the shadow, instead of those of `shadow_on`.
    """
    served = Backends() if backends is None else backends

    async def main() -> Played:
        loop = asyncio.get_running_loop()
        beside = shadow_on(loop, **parts)
        engine = beside.live_engine(live, Control(live), DecisionRing(16))
        runner = _runner(engine, live, served, loop)
        if shadow is not None:
            beside.use(reading(live, shadow))
        runner.start()
        played = Played({}, served, 0.0)
        extra = [] if during is None else [during(beside, runner)]
        calls = (_one(runner, at_s, played, (timeouts_s or {}).get(index)) for index, at_s in enumerate(arrivals_s))
        await asyncio.gather(*calls, *extra)
        await asyncio.sleep(1.0)
        played.report, played.spent = beside.report(), engine.statistics(loop.time()).spent
        beside.close()
        return played

    return run_virtual(main())


def _runner(engine: Engine, live: EngineSettings, served: Backends, loop: asyncio.AbstractEventLoop) -> Runner:
    async def make_plan(command: ComputePlan) -> Plan:
        return (await plan_at_once(command))[0]

    return Runner(
        engine=engine,
        settings=live,
        backends=served.sides,
        make_plan=make_plan,
        clock=loop.time,
        explanations=explanations_of(lambda _: None, loop.time),
        batches=BatchRing(10),
        plans=PlanHistory(),
    )


async def _one(runner: Runner, at_s: float, played: Played, timeout_s: float | None) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(at_s - loop.time())
    image = Tensor.from_elements("image", [PICTURE])
    call = InferenceCall("m", (image,), items=1, body_bytes=len(PICTURE), received_at_s=runner.now())
    call = replace(call, timeout_s=timeout_s)
    try:
        await runner.submit(call)
    except Refused:
        played.refused += 1
    else:
        played.answered += 1


def replayed(
    script: Sequence[tuple[Sequence[Message], float]], live: EngineSettings, shadow: EngineSettings | None
) -> tuple[list[Command], dict[str, Any]]:
    """Gives an engine the messages of a script again, with a shadow that hears it or without.

    Returns:
        Its commands, and the shadow's report.
    """

    async def main() -> tuple[list[Command], dict[str, Any]]:
        loop, commands = asyncio.get_running_loop(), list[Command]()
        beside = shadow_on(loop)
        engine = Engine(live) if shadow is None else beside.live_engine(live, Control(live), DecisionRing(4096))
        if shadow is not None:
            beside.use(reading(live, shadow))
        for messages, now_s in script:
            if now_s > loop.time():
                await asyncio.sleep(now_s - loop.time())
            commands += engine.handle(messages, now_s)
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        return commands, beside.report()

    return run_virtual(main())
