"""The host of a simulated daemon: its clocks, threads, log and signals, and where the daemon finds them.

Nothing of the daemon is left out or written anew: what it takes from the operating system by name is replaced where it
takes it (`replacements`). Threads are run inline: the work is done at once, its result comes after the time it takes.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone, tzinfo
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web

from models.profile import load_profile
from scheduler.daemon import assembly, front, runner, serve
from scheduler.daemon.backends import edge as edge_module
from scheduler.daemon.backends import function as function_module
from scheduler.daemon.config import config as config_module
from scheduler.daemon.history import feed as history_feed
from scheduler.daemon.state import keeper
from scheduler.daemon.state.store import Store
from scheduler.daemon.threads import DaemonThreads
from scheduler.planner.catalogue.prices import load_sheet
from scheduler.planner.site.plan import best_plan
from scripts.soak import functions as functions_module
from scripts.soak.edge import Calls, Session
from scripts.soak.functions import Caller
from scripts.soak.watch import WatchedDriver, WatchedEngine

if TYPE_CHECKING:
    from scripts.soak.world import World
    from scripts.support.virtual_loop import VirtualLoop

T = TypeVar("T")


async def _no_history(_: history_feed.Feed) -> None:
    """Keeps none."""
    await asyncio.Event().wait()


_COLLECTOR = SimpleNamespace(
    collect=lambda: 0, freeze=lambda: None, get_threshold=lambda: (700, 10, 10), set_threshold=lambda *_: None
)
"""In the place of `gc`: what a world sets must not outlive it."""
EPOCH_S = 1.7e9
"""The wall clock when a world begins."""


_load_profile = lru_cache(load_profile)
_load_sheet = lru_cache(load_sheet)
"""Files that no world changes are read once."""


class Dead(ConnectionError):
    """The process was killed: nothing that it still does has an effect."""


class Machine:
    """Clocks and the state of the process that runs."""

    def __init__(self, world: World) -> None:
        """Starts the clocks."""
        self.world = world
        self.loop: VirtualLoop | None = None
        self.dead = False
        self.wall_ahead_s = EPOCH_S
        self.slept_s = 0.0
        """In which the host was suspended: the monotonic clock stood still."""
        self.leapt_s = 0.0
        """By which the monotonic clock has leapt."""
        self._thread_s: float | None = None
        """What the thread that works now has taken; None: the loop runs."""

    def now(self) -> float:
        """Returns the monotonic clock, in a thread its own time."""
        assert self.loop is not None
        return self.loop.time() + (self._thread_s or 0.0)

    def elapsed_s(self) -> float:
        """Returns seconds since the host started, sleep included."""
        return self.now() + self.slept_s

    def wall_s(self) -> float:
        """Returns the wall clock."""
        return self.elapsed_s() + self.wall_ahead_s

    def date(self, zone: tzinfo | None = None) -> datetime:
        """Returns the wall clock as a date."""
        return datetime.fromtimestamp(self.wall_s(), zone or timezone.utc)

    def take(self, seconds: float) -> None:
        """Lets time pass for the thread that works now."""
        assert self._thread_s is not None, "only threads block"
        self._thread_s += max(0.0, seconds)

    def work(self, job: Callable[[], T]) -> tuple[T | None, BaseException | None, float]:
        """Does a thread's work; returns its result or exception, and the seconds that it took."""
        self._thread_s = 0.0
        try:
            return job(), None, self._thread_s
        except Exception as error:  # noqa: BLE001 - given to the caller, as a thread's is
            return None, error, self._thread_s
        finally:
            self._thread_s = None

    def refuse_the_dead(self) -> None:
        """Raises Dead where the process was killed."""
        if self.dead:
            raise Dead("killed")


class Threads:
    """What the daemon takes for `threads.DaemonThreads`."""

    def __init__(self, *, limit: int, name: str, machine: Machine) -> None:
        """Stores how many jobs run at one time."""
        self._free = limit
        self._name = name
        self._machine = machine
        self._waiting: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()

    async def run(self, work: Callable[[], T]) -> T:
        """Returns what the work returns."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, future))
        self._next()
        return await future

    def close(self) -> None:
        """Does nothing."""

    def _next(self) -> None:
        machine, loop = self._machine, asyncio.get_running_loop()
        while self._waiting and self._free:
            work, future = self._waiting.popleft()
            if future.cancelled():
                continue
            if machine.dead:
                future.set_exception(sqlite3.OperationalError("killed"))
                continue
            self._free -= 1
            error, before_s = machine.world.host_delay(self._name, work)
            result, raised, taken_s = (None, error, 0.0) if error is not None else machine.work(work)
            timer = loop.call_later(before_s + taken_s, self._settle, future, result, raised)
            if self._name == "planner":
                machine.world.planning = partial(self._hurry, timer, future, result, raised)

    def _hurry(self, timer: asyncio.TimerHandle, *outcome: Any) -> None:
        """Ends a job now that would take very long."""
        if not timer.cancelled() and not outcome[0].done():
            timer.cancel()
            self._settle(*outcome)

    def _settle(self, future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
        self._free += 1
        if not future.done():
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        self._next()


class Signals:
    """What the daemon takes for `signals.Signals`."""

    def __init__(self) -> None:
        """Starts with no event set."""
        self.stop = asyncio.Event()
        self.stop_at_once = asyncio.Event()
        self.reload = asyncio.Event()

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Does nothing: the world sets the events."""


def terminate(signals: Any) -> None:
    """Does what SIGTERM does."""
    if signals.stop.is_set():
        signals.stop_at_once.set()
    signals.stop.set()


class Front(front.Front):
    """The daemon's front without sockets: clients of the world come in while it accepts."""

    def __init__(self, http: Any, grpc: Any, listeners: Any, bequest: Any, *, world: World) -> None:
        """Stores the world; nothing can be left to a successor."""
        super().__init__(http, grpc, listeners, None)
        self._world = world
        if bequest is not None:
            bequest.close()

    async def set_up(self) -> None:
        """Does nothing."""

    async def listen(self, *_: Any, **__: Any) -> int:
        """Lets clients in."""
        self._world.accepting = True
        return 8600

    async def listen_admin(self, *_: Any, **__: Any) -> None:
        """Returns no path."""

    async def wait_for_successor(self) -> None:
        """Waits for ever."""
        await asyncio.get_running_loop().create_future()

    async def renew(self, *_: Any) -> None:
        """Does nothing."""

    async def end(self, limit_s: float) -> None:
        """Lets no client in, and gives the handlers that are left so long."""
        self._world.accepting = False
        await self._world.part_with_clients(limit_s)


class Log(logging.Handler):
    """Keeps the daemon's lines of the world that runs, and the bugs among them."""

    def __init__(self, world: World) -> None:
        """Stores the world."""
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        """Notes a line."""
        event = record.getMessage()
        if self._world.machine.dead:
            return
        values = getattr(record, "fields", {})
        self._world.note("log", f"{event} {values.get('kind', '')} {values.get('message', '')}"[:160])
        if event.endswith("_bug") or event == "task_failed":
            raised = record.exc_info[1] if record.exc_info else None
            self._world.fail(f"{event}: {type(raised).__name__}: {raised}", cause=raised)


def _with_threads() -> list[Any]:
    """Returns the daemon's modules that start threads."""
    daemons = [module for name, module in sys.modules.items() if name.startswith("scheduler.daemon.")]
    return [module for module in daemons if vars(module).get("DaemonThreads") is DaemonThreads]


@contextmanager
def replacements(world: World) -> Iterator[None]:
    """Replaces what the daemon takes from the operating system, for as long as a world runs."""
    machine = world.machine
    threads = partial(Threads, machine=machine)
    replaced: list[tuple[Any, str, Any]] = [
        (config_module, "load_profile", _load_profile),
        (config_module, "load_sheet", _load_sheet),
        (serve, "time", SimpleNamespace(monotonic=machine.now)),
        (serve, "gc", _COLLECTOR),
        (serve, "print", lambda *_, **__: None),
        (serve, "Signals", Signals),
        (serve, "Front", partial(Front, world=world)),
        (serve, "app_runner", lambda *_, **__: None),
        (assembly, "Engine", partial(WatchedEngine, world=world)),
        (assembly, "datetime", SimpleNamespace(now=machine.date)),
        (runner, "EngineDriver", partial(WatchedDriver, world=world)),
        (history_feed.Feed, "run", _no_history),  # it would stop each second of a time that leaps
        (keeper, "Store", partial(Store, wall_clock=machine.wall_s, elapsed=machine.elapsed_s)),
        (function_module, "FunctionCaller", lambda *_, **__: Caller(world.functions)),
        (function_module, "probe_uplink", lambda **_: functions_module.probe_uplink(world.functions)),
        (function_module, "_warn_of_proxies", lambda *_: None),
        (web.Application, "add_routes", lambda *_: []),  # no client of a world comes by a path
        (edge_module.EdgeBackend, "_new_session", lambda *_, **__: Session(world.edge)),
        (edge_module.EdgeBackend, "_new_calls", lambda *_: Calls(world.edge)),
    ]
    # A real thread would be waited for in virtual time, which leaps meanwhile.
    replaced += [(module, "DaemonThreads", threads) for module in _with_threads()]
    if world.script.seed % 8 != 4:
        # The planner is pure and has tests of its own; in most worlds its quick plans are enough.
        replaced.append((assembly, "best_plan", partial(best_plan, at_once=True)))
    before = [(owner, name, vars(owner).get(name)) for owner, name, _ in replaced]
    logger, handler = logging.getLogger("edgeburst"), Log(world)
    logging_before = logger.handlers, logger.level, logger.propagate
    try:
        for owner, name, value in replaced:
            setattr(owner, name, value)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
        yield
    finally:
        for owner, name, value in before:
            if value is None:
                delattr(owner, name)
            else:
                setattr(owner, name, value)
        logger.handlers, logger.propagate = logging_before[0], logging_before[2]
        logger.setLevel(logging_before[1])
