"""A world: the daemon in virtual time among faults, killed and started again, its promises checked at each step."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scheduler.daemon.config.config import load_config
from scheduler.daemon.http.app import INGRESS
from scheduler.daemon.ledgers import keeper_of
from scheduler.daemon.listeners import Listeners
from scheduler.daemon.serve import Daemon
from scheduler.daemon.state.keeper import StateKeeper
from scheduler.domain.plans import Limits
from scheduler.systemd import Notifier
from scripts.soak import liveness, sites
from scripts.soak.books import Books
from scripts.soak.clients import Outcome, asked
from scripts.soak.edge import Edge
from scripts.soak.functions import Functions
from scripts.soak.machine import Machine, replacements, terminate
from scripts.soak.report import Report, Violation
from scripts.soak.script import Call, Event, Script
from scripts.soak.sites import Site
from scripts.soak.watch import Watch
from scripts.soak.weather import Weather
from scripts.support.virtual_loop import NothingLeft, VirtualLoop

DOWN_S = 0.2
"""Between the end of a process and the start of the next."""
CLOCK_S = 1e-6
"""Less than this is no time: sums of floats, after leaps of days, err by less."""
ENDS_S = 60.0
"""Within which a process ends that is asked to: its drain, its last bills, its last writes, and more."""
TRACE = 4000
"""Lines that are kept of what happened."""
LIMITS = (
    Limits(window_s=0.0),
    Limits(edge_batch_cap=1, function_batch_cap=1),
    Limits(edge_batch_cap=0),
    Limits(function_batch_cap=0),
    Limits(window_s=0.05),
)


class World(Weather):
    """Runs a script."""

    def __init__(self, script: Script, folder: Path, profiles: Path, *, twins: bool | None = None) -> None:
        """Stores the script; nothing happens yet.

        Args:
            script: what happens.
            folder: for the configuration and the state; empty.
            profiles: with those of `sites.write_profiles`.
            twins: whether a second engine follows each that keeps nothing; None: in one world of eight.
        """
        super().__init__(script)
        self._folder, self._profiles = folder, profiles
        self.site = script.site
        wanted = script.seed % 8 == 0 if twins is None else twins
        self.twins = wanted and not script.site.state
        self.machine = Machine(self)
        self.edge, self.functions = Edge(self), Functions(self)
        self.watch: Watch | None = None
        self.daemon: Daemon | None = None
        self.accepting = False
        self.life = 0
        self.reloaded = False
        self.relaxed = False
        """Whether a reload changed what requests are promised."""
        self.recapped = False
        """Whether a reload changed a spend cap, so that the new one may be exceeded already."""
        self.limited = False
        """Whether an operator set limits, so that requests may be too large."""
        self.throttled = any(fault.what in ("throttled", "silence") for fault in script.faults)
        self.books = Books(self)
        self.planning: Callable[[], None] = lambda: None
        """Ends the plan that is being made."""
        self.report = Report()
        self._trace: deque[tuple[float, str, str]] = deque(maxlen=TRACE)
        self._next = 0
        self._clients: set[asyncio.Task[Outcome]] = set()
        self._present = 0
        self._violation: Violation | None = None
        self._kill_in: int | None = None
        self._killed = self._done = False

    # What devices, clients and watches ask

    def expects(self, model: str) -> bool:
        """Whether the configuration says which identity of a model its places must report."""
        return any(each.kind == model and each.identified for each in self.site.models)

    def allowed_s(self, call: Call) -> float | None:
        """Returns how long the client of a call may be left without an answer or a refusal; None: any time."""
        model = next((model for model in self.site.models if model.kind == call.content.model), None)
        if model is None or self.relaxed or self.site.late == "serve" or call.class_name == "late":
            return None
        if self.site.over_cap == "serve-late" and self.site.per_hour is not None:
            return None
        slo_s = {"patient": 4.0, "local": 1.0}.get(call.class_name, model.slo_s)
        return slo_s if call.timeout_s is None else call.timeout_s

    def note(self, what: str, text: str) -> None:
        """Keeps a line of what happened."""
        self._trace.append((self.script_s() if self.machine.loop is not None else 0.0, what, text))

    def check(self, holds: bool, sentence: str) -> None:
        """Ends the world unless a promise holds."""
        if not holds:
            self.fail(sentence)

    def fail(self, sentence: str, *, cause: BaseException | None = None) -> None:
        """Ends the world with the first broken promise."""
        if self._violation is None and not self.machine.dead:
            self._violation = Violation(sentence)
            self._violation.__cause__ = cause
            self.note("VIOLATION", sentence)
            assert self.machine.loop is not None
            if self.machine.loop.is_running():
                self.machine.loop.stop()

    def stepped(self) -> None:
        """Looks at everything, after a call of the engine."""
        self.report.engine_calls += 1
        daemon, watch = self.daemon, self.watch
        if self.machine.dead or self._violation is not None or daemon is None or watch is None:
            return
        bodies = daemon._runner._bodies
        watch.check(set(bodies.pending))
        held = sum(pending.call.body_bytes for pending in bodies)
        self.check(bodies.body_bytes == held, "the bodies' bytes are miscounted")
        self._check_accounts(daemon)
        if self._kill_in is not None:
            self._kill_in -= 1
            if self._kill_in < 0:
                self._kill()

    def _check_accounts(self, daemon: Daemon) -> None:
        totals = daemon._service.telemetry._totals
        ended = totals.edge + totals.function + totals.refused + totals.rejected + totals.cancelled
        present = len(self._clients) if self._present < 0 else self._present
        left = totals.arrived - ended
        self.check(0 <= left <= present, f"{totals.arrived} arrived, {ended} ended, {present} wait")

    def trace(self, lines: int = 60) -> str:
        """Returns the last lines of what happened."""
        return "\n".join(f"{at_s:9.4f}  {what:9} {text}" for at_s, what, text in list(self._trace)[-lines:])

    # The course of the world

    def run(self) -> Report:
        """Runs it to its end.

        Raises:
            Violation: a promise was broken.
        """
        with replacements(self):
            self._write(self.site)
            begins_s = 0.0
            while not self._done:
                begins_s = self._one_life(begins_s) + DOWN_S
        return self.report

    def _write(self, site: Site) -> None:
        (self._folder / "edgeburst.toml").write_text(site.text(self._profiles))

    def _one_life(self, begins_s: float) -> float:
        """Runs one process from its start to its end; returns when it ended."""
        loop = self.machine.loop = VirtualLoop(begins_s)
        loop.set_exception_handler(self._unhandled)
        self.machine.dead, self._killed, self._kill_in, self._present = False, False, None, 0
        self.life += 1
        self.report.lives += 1
        self.note("starts", f"life {self.life}")
        asyncio.set_event_loop(loop)
        keeper = None
        try:
            config = load_config(self._folder / "edgeburst.toml", sites.ENVIRONMENT)
            keeper = keeper_of(config, wait_s=0.0)
            if keeper is not None:
                loop.call_soon(self.books.check_folder, keeper)
            self.daemon = Daemon(config, sites.ENVIRONMENT, Notifier(), keeper, Listeners())
            running = loop.create_task(self.daemon.run(), name="daemon")
            running.add_done_callback(lambda _: None if self.machine.dead else loop.stop())
            player = loop.create_task(self._play(), name="player")
            # Without it the daemon would serve for ever.
            player.add_done_callback(lambda _: loop.stop() if not self.machine.dead and _fell(player) else None)
            try:
                loop.run_forever()
            except NothingLeft as error:
                self.fail(f"everything waits for ever: {error}")
            self._end_of_life(loop, running, player)
            return loop.time()
        finally:
            self._bury(loop, keeper)

    def _end_of_life(self, loop: VirtualLoop, running: asyncio.Task[int], player: asyncio.Task[None]) -> None:
        if self._violation is not None or self._killed:
            return
        if _fell(player):
            raise player.exception() or Violation("the player failed")
        error = running.exception()
        if error is not None:
            self.fail(f"the daemon fell: {type(error).__name__}: {error}", cause=error)
        left = [
            getattr(task.get_coro(), "__qualname__", task.get_name())
            for task in asyncio.all_tasks(loop)
            if task not in (player, running)
        ]
        self.check(not left, f"tasks are left after the end of the process: {left}")
        assert self.daemon is not None
        self.check(len(self.daemon._runner._bodies) == 0, "bodies are left after the end of the process")
        self.note("ends", f"life {self.life}, status {None if error else running.result()}")

    def _bury(self, loop: VirtualLoop, keeper: StateKeeper | None) -> None:
        """Takes a process apart; nothing that it still does has an effect."""
        self.machine.dead = True
        while left := asyncio.all_tasks(loop):  # one that ends may begin another
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.wait(left, timeout=ENDS_S))
        self._clients.clear()
        self.accepting = False
        asyncio.set_event_loop(None)
        loop.close()
        if keeper is not None:
            keeper._store.close()
            with contextlib.suppress(OSError):  # it ended in order
                keeper.release()
        if self._violation is not None:
            raise self._violation

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        del loop
        error = context.get("exception")
        self.fail(f"{context['message']}: {type(error).__name__}: {error}", cause=error)

    def _kill(self) -> None:
        self.note("killed", "")
        self.books.killed()
        self._killed = True
        assert self.machine.loop is not None
        self.machine.loop.stop()

    async def part_with_clients(self, limit_s: float) -> None:
        """Waits for the clients that are left for so long, then closes their connections."""
        if self._clients:
            await asyncio.wait(list(self._clients), timeout=limit_s)
        for client in list(self._clients):
            client.cancel()
        if self._clients:
            await asyncio.wait(list(self._clients))

    async def _play(self) -> None:
        """Lets happen what the script says, then lets all be well, and stops the daemon."""
        events = self.script.events
        while self._next < len(events):
            event = events[self._next]
            if event.at_s < self.script_s() - DOWN_S:
                self._next += 1
                continue
            await self._until(event.at_s)
            self._next += 1
            self._happen(event)
        await self._until(self.script.ends_s)
        daemon = self.daemon
        assert daemon is not None
        if daemon._signals.stop.is_set():
            return  # the next process sees to the end
        await liveness.all_is_well(self, daemon)
        self._done = True
        self._end(daemon)

    def _end(self, daemon: Daemon) -> None:
        """Sends SIGTERM, upon which the process ends."""
        terminate(daemon._signals)
        assert self.machine.loop is not None
        sentence = f"the process has not ended {ENDS_S:g} s after SIGTERM"
        loop = self.machine.loop

        def once_more() -> None:
            loop.call_later(ENDS_S / 2, self.fail, sentence)

        # In two parts: the clock may leap over the first, and then the process has had no time.
        loop.call_later(ENDS_S / 2, once_more)

    async def _until(self, at_s: float) -> None:
        while (left_s := at_s - self.script_s()) > CLOCK_S:
            await asyncio.sleep(left_s)

    def _happen(self, event: Event) -> None:
        machine, daemon = self.machine, self.daemon
        assert daemon is not None
        assert machine.loop is not None
        if event.call is not None:
            self.call(event.call)
            return
        self.note("event", f"{event.what} {event.number:g}")
        match event.what:
            case "crash":
                self._kill_in = int(event.number)
                daemon._runner._driver.wake()
            case "stop":
                self._end(daemon)
            case "stop-now":
                self._end(daemon)
                machine.loop.call_later(event.number, terminate, daemon._signals)
            case "suspend":
                machine.slept_s += event.number
            case "leap":
                machine.leapt_s += event.number
                machine.loop.leap(event.number)
            case "wall":
                machine.wall_ahead_s += event.number
            case "cold":
                self.functions.forget()
            case "read":
                self._read(daemon)
            case "limits" | "undo-limits":
                limits = LIMITS[int(event.number)] if event.what == "limits" else Limits()
                self.limited = True
                self.limits(daemon).set(self.noise.choice(self.site.models).kind, limits)
            case "reload" | "same-reload":
                self._reload(daemon, event.site if event.site is not None and event.what == "reload" else self.site)

    def _reload(self, daemon: Daemon, site: Site) -> None:
        same = site == self.site
        self.reloaded |= not same
        terms = ("models", "late", "over_cap", "per_hour")
        self.relaxed |= any(getattr(site, term) != getattr(self.site, term) for term in terms)
        self.recapped |= site.per_hour != self.site.per_hour
        self.site = site
        self._write(site)
        daemon._signals.reload.set()

    def _read(self, daemon: Daemon) -> None:
        ingress = daemon._app[INGRESS]
        list(ingress.read_outs._status())
        daemon._service.telemetry.exposition()
        ingress._parts.batches(0, 100)
        ingress._parts.explain.find("1", None, None)
        ingress._parts.explain.last(None, missed=True)

    def limits(self, daemon: Daemon) -> Any:
        """Returns the operator's limits of a process."""
        return daemon._app[INGRESS]._parts.limits

    async def clients_end(self, limit_s: float) -> None:
        """Waits until no client waits any more, for so long at most."""
        if self._clients:
            await asyncio.wait(list(self._clients), timeout=limit_s)

    def call(self, call: Call) -> asyncio.Task[Outcome] | None:
        """Sends a call; None where nothing listens."""
        if not self.accepting or self.daemon is None:
            return None
        self.report.calls += 1
        loop = asyncio.get_running_loop()
        client = loop.create_task(self._client(call, self.daemon), name="client")
        self._clients.add(client)
        client.add_done_callback(self._clients.discard)
        if call.cancel_after_s is not None:
            loop.call_later(call.cancel_after_s, client.cancel)
        return client

    async def _client(self, call: Call, daemon: Daemon) -> Outcome:
        self._present += 1
        try:
            outcome = await asked(self, daemon._service, call)
        finally:
            self._present -= 1
        self.report.statuses[outcome.status] = self.report.statuses.get(outcome.status, 0) + 1
        self.note("client", f"{call.content.model} c{call.content.number} {outcome.status} {outcome.latency_s:.4f} s")
        return outcome


def _fell(player: asyncio.Task[None]) -> bool:
    """Whether the player of the world has ended with an exception."""
    return player.done() and not player.cancelled() and player.exception() is not None
