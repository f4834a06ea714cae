"""Runs the engine of another configuration beside the live one: driven by the daemon's clock, and out of its way.

What the live engine got is taken in after its own commands were performed, in slices between which the loop does other
work. Nothing that goes wrong here reaches the live engine: an exception stops the shadow, and is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scheduler.control import Control
from scheduler.daemon.backends.batch_send import Clock
from scheduler.daemon.config.config import Config
from scheduler.daemon.logs import fields, log
from scheduler.daemon.shadow.live import LESSONS, HeardEngine, Live
from scheduler.daemon.shadow.loop_share import LIMIT, LoopShare
from scheduler.daemon.shadow.part import Part
from scheduler.daemon.shadow.reading import Reading, read_shadow
from scheduler.daemon.shadow.report import class_rows, side
from scheduler.daemon.shadow.tally import Tally
from scheduler.daemon.threads import DaemonThreads
from scheduler.dispatch.decision_ring import DecisionRing
from scheduler.domain.errors import ConfigError
from scheduler.domain.messages import Command, ComputePlan, DrainStarted, Message, PlanComputed
from scheduler.domain.plans import EngineSettings, Plan
from scheduler.engine import Engine
from scheduler.planner.site.plan import best_plan

_logger = logging.getLogger("edgeburst")

SLICE_S = 0.002
"""Of work at one time; the loop's other work then has its turn. Judgement: writing a large batch takes as long."""

STARTING, WAITING, HEARING = "starting", "waiting", "hearing"
PAUSED, REFUSED, STOPPED = "paused", "refused", "stopped"
_FAILED = (
    "it failed on an internal error, which is in the log; the daemon goes on without it, and a reload (SIGHUP) begins "
    "it anew"
)

Run = Callable[[Callable[[], Reading]], Awaitable[Reading]]
TimedPlanMaker = Callable[[ComputePlan], Awaitable[tuple[Plan, float]]]
"""Runs the planner beside the loop; returns the plan, and the processor's seconds that it took."""


class Shadow:
    """The engine beside the live one, its figures, and when it is paused."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        timer: Callable[[], float] = time.thread_time,
        make_plan: TimedPlanMaker | None = None,
        seed: int | None = None,
    ) -> None:
        """Stores its parts; `live_engine` connects it, `use` or `refuse` begins.

        Args:
            path: the file of its configuration, for people.
            clock: monotonic seconds, with the same origin as the event loop's `time`.
            timer: seconds by which its own work is measured: those of the processor, for waits are not its fault.
            make_plan: runs the planner; None: a thread of its own does.
            seed: of what is drawn; None: a random one.
        """
        self.path = path
        self._clock = clock
        self._timer = timer
        self._make_plan = _planner_thread() if make_plan is None else make_plan
        self.seed = secrets.randbits(32) if seed is None else seed
        # Drawn numbers are no secrets.
        self._random = random.Random(self.seed)
        self._live: Live | None = None
        self._state, self._message = STARTING, ""
        self._refused = ""
        """Why its file was refused at the last reload, while an older configuration stays in use."""
        self._reading: Reading | None = None
        self._tallies = {"live": Tally(), "shadow": Tally()}
        self._spent = {"live": 0.0, "shadow": 0.0}
        """Before the present part of the comparison: parts are apart where there was a pause."""
        self._counted_s = 0.0
        self._share = LoopShare()
        self._pauses = 0
        self._part: Part | None = None
        self._heard: list[tuple[Sequence[Message], Sequence[Command], float]] = []
        self._scheduled = False
        self._timer_handle: asyncio.TimerHandle | None = None
        self._planning: set[asyncio.Task[None]] = set()

    def live_engine(self, settings: EngineSettings, control: Control, ring: DecisionRing) -> Engine:
        """Returns the live engine, which is heard."""
        engine = HeardEngine(settings, control, ring, self.hear)
        self._live = Live(engine, control)
        return engine

    async def follow(self, live: Config, environ: Mapping[str, str], run: Run) -> None:
        """Reads its file again beside a live configuration, and uses or refuses it.

        Args:
            live: the configuration that the daemon uses from now on.
            environ: the environment, as the live configuration was read with it.
            run: does what may block in a thread, and returns its result.
        """
        try:
            reading = await run(lambda: read_shadow(self.path, environ, live))
        except ConfigError as error:
            self.refuse(str(error))
        except Exception:
            _logger.exception("shadow_bug", extra=fields(path=self.path))
            self.refuse(f"{self.path} could not be read for an internal error, which is in the log")
        else:
            self.use(reading)

    def use(self, reading: Reading) -> None:
        """Uses a configuration; the comparison begins anew where that, or the live one, is another than before."""
        self._refused = ""
        if reading == self._reading and self._state in (HEARING, PAUSED):
            return
        self._leave()
        self._reading = reading
        self._tallies = {"live": Tally(), "shadow": Tally()}
        self._spent, self._counted_s = {"live": 0.0, "shadow": 0.0}, 0.0
        self._state, self._message = HEARING, ""
        log(logging.INFO, "shadow_begins", path=self.path, seed=self.seed)

    def refuse(self, error: str) -> None:
        """Tells why a configuration cannot be used; one that was used before still is."""
        if self._reading is None:
            self._state, self._message = REFUSED, f"{error}; mend the file and reload (SIGHUP)"
            log(logging.ERROR, "shadow_refused", message=f"{error}; the daemon serves without a shadow")
        else:
            self._refused = f"{error}; the shadow's old configuration stays in use"
            log(logging.ERROR, "shadow_refused", message=self._refused)

    def hear(self, messages: Sequence[Message], commands: Sequence[Command], now_s: float) -> None:
        """Notes one call of the live engine; it is looked at when its commands have been performed."""
        if self._state != HEARING:
            return
        self._heard.append((messages, commands, now_s))
        if not self._scheduled:
            self._scheduled = True
            # Twice: what the commands start, such as the writing of a batch, has its first step in between.
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._run)

    def report(self) -> dict[str, Any]:
        """Returns its state and figures, as `shadow` in GET /v1/status."""
        try:
            return self._report()
        except Exception:
            _logger.exception("shadow_bug", extra=fields(message=_FAILED))
            self._fail()
            return self._report()

    def _report(self) -> dict[str, Any]:
        now_s, reading = self._clock(), self._reading
        state, message = self._state, self._message
        if state == HEARING and self._part is None and self._live is not None:
            state = WAITING
            message = (
                f"it begins when the live engine has learned from {LESSONS} batches ({self._live.lessons()} so far)"
            )
        found: dict[str, Any] = {
            "state": state,
            "message": message,
            "refused": self._refused,
            "config": str(self.path),
            "seed": self.seed,
            "loop_share": self._share.share(now_s),
            "loop_s": self._share.taken_s,
            "pauses": self._pauses,
            "counted_s": self._counted_s + self._part_s(now_s),
        }
        if reading is None:
            return found
        spent = self._spent_now(now_s)
        for (name, tally), currency in zip(self._tallies.items(), reading.currencies, strict=True):
            found[name] = side(tally, spent=spent[name], currency=currency)
        return {**found, "classes": class_rows(self._tallies["live"], self._tallies["shadow"])}

    def close(self) -> None:
        """Stops for good."""
        self._leave()
        if self._state in (HEARING, PAUSED):
            self._state, self._message = STOPPED, "the daemon stops"
        for task in self._planning:
            task.cancel()

    def _run(self) -> None:
        """Does one slice of work; every exception in it ends here."""
        self._scheduled = False
        if self._state != HEARING:
            self._heard.clear()
            return
        began_s = self._timer()
        try:
            self._work(began_s)
        except Exception:
            _logger.exception("shadow_bug", extra=fields(message=_FAILED))
            self._fail()
            return
        now_s = self._clock()
        self._share.take(self._timer() - began_s, now_s)
        if self._state == HEARING and not self._paused(now_s):
            self._arm(now_s)

    def _work(self, began_s: float) -> None:
        heard, self._heard = self._heard, []
        for messages, commands, at_s in heard:
            if any(isinstance(message, DrainStarted) for message in messages):
                self.close()
                return
            if self._part is None and self._live is not None and self._live.knows_the_world():
                self._part = self._begin(at_s)
            if self._part is not None:
                self._part.hear(messages, commands, at_s)
        until_s, now_part = self._clock(), self._part
        while now_part is not None and now_part.next_s() <= until_s:
            now_part.step()
            if self._timer() - began_s >= SLICE_S:
                return

    def _begin(self, now_s: float) -> Part:
        assert self._live is not None
        assert self._reading is not None
        self._share.begin(now_s)
        return Part(
            self._live, self._reading, self._tallies, draw=self._draw, make_plan=self._start_planning, now_s=now_s
        )

    def _draw(self) -> float:
        # Quantiles at 0 and 1 may be infinite.
        return min(max(self._random.random(), 1e-9), 1.0 - 1e-9)

    def _start_planning(self, command: ComputePlan) -> None:
        task = asyncio.get_running_loop().create_task(self._plan(command, self._part), name="shadow-plan")
        self._planning.add(task)
        task.add_done_callback(self._planning.discard)

    async def _plan(self, command: ComputePlan, part: Part | None) -> None:
        try:
            plan, seconds = await self._make_plan(command)
        except Exception:
            _logger.exception("shadow_bug", extra=fields(message=_FAILED))
            self._fail()
            return
        now_s = self._clock()
        # The planner's thread and the loop take turns in one interpreter.
        self._share.take(seconds, now_s)
        if part is not None and part is self._part:
            part.tell(PlanComputed(plan), now_s)
            self._soon()

    def _soon(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def _arm(self, now_s: float) -> None:
        self._disarm()
        due_s = math.inf if self._part is None else self._part.next_s()
        if due_s <= now_s:
            self._soon()
        elif due_s < math.inf:
            self._timer_handle = asyncio.get_running_loop().call_at(due_s, self._soon)

    def _disarm(self) -> None:
        if self._timer_handle is not None:
            self._timer_handle.cancel()
            self._timer_handle = None

    def _paused(self, now_s: float) -> bool:
        """Pauses if it took too much of the loop's time; says whether it did."""
        if not self._share.too_much(now_s):
            return False
        share, pause_s = self._share.share(now_s), self._share.pause_s(now_s)
        self._leave()
        self._pauses += 1
        self._state = PAUSED
        self._message = (
            f"it took {share:.0%} of the event loop's time, more than {LIMIT:.0%}: it is paused for {pause_s:.0f} s, "
            "and what happens meanwhile is counted on neither side"
        )
        log(logging.WARNING, "shadow_paused", message=self._message)
        self._timer_handle = asyncio.get_running_loop().call_at(now_s + pause_s, self._resume)
        return True

    def _resume(self) -> None:
        if self._state == PAUSED:
            self._state, self._message = HEARING, ""
            log(logging.INFO, "shadow_resumed", message="it begins with what the live engine knows")

    def _fail(self) -> None:
        """Stops after a bug."""
        self._state, self._message = STOPPED, _FAILED
        with contextlib.suppress(Exception):  # what failed may fail again
            self._leave()
        self._part = None

    def _leave(self) -> None:
        """Ends the present part of the comparison; each side keeps what has ended in it."""
        self._disarm()
        now_s = self._clock()
        self._spent, self._counted_s = self._spent_now(now_s), self._counted_s + self._part_s(now_s)
        self._part = None
        self._heard.clear()
        for tally in self._tallies.values():
            tally.leave_open()

    def _part_s(self, now_s: float) -> float:
        return 0.0 if self._part is None else self._part.seconds(now_s)

    def _spent_now(self, now_s: float) -> dict[str, float]:
        if self._part is None:
            return self._spent
        return {name: self._spent[name] + amount for name, amount in self._part.spent(now_s).items()}


def _planner_thread() -> TimedPlanMaker:
    threads = DaemonThreads(limit=1, name="shadow-planner")

    def make(command: ComputePlan) -> tuple[Plan, float]:
        began_s = time.thread_time()
        plan = best_plan(command.snapshot, plan_id=command.plan_id, cause=command.cause, detail=command.detail)
        return plan, time.thread_time() - began_s

    async def make_plan(command: ComputePlan) -> tuple[Plan, float]:
        return await threads.run(lambda: make(command))

    return make_plan
