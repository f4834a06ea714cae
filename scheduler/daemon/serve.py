"""`edgeburst serve`: the daemon as a process, from its start to its exit status."""

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from models.profile import Profile
from scheduler.daemon import logs
from scheduler.daemon.admin_socket import socket_path
from scheduler.daemon.assembly import assemble, edge_trials, make_backend, places
from scheduler.daemon.clocks import watch_clocks
from scheduler.daemon.config.config import Config, load_config
from scheduler.daemon.config.measured import remember
from scheduler.daemon.edge_models import EdgeModels
from scheduler.daemon.event_loop import first, new_loop, ping_watchdog
from scheduler.daemon.front import Front, grpc_server
from scheduler.daemon.history.keeper import HistoryKeeper
from scheduler.daemon.http.app import INGRESS, app_runner, create_app
from scheduler.daemon.ledgers import borrower_of, keeper_of, leased_settings
from scheduler.daemon.listeners import Listeners, addresses_of
from scheduler.daemon.logs import log
from scheduler.daemon.server_tls import server_tls
from scheduler.daemon.shadow.shadow import Shadow
from scheduler.daemon.signals import Signals
from scheduler.daemon.state.handover import Bequest
from scheduler.daemon.state.keeper import StateKeeper
from scheduler.daemon.threads import DaemonThreads
from scheduler.domain.errors import ConfigError
from scheduler.domain.requests import Backend
from scheduler.systemd import Notifier

_FIXED = ("host", "port", "read_listen", "records", "state", "admin_socket")
"""Keys of [daemon] that a reload cannot change."""

READY_LIMIT_S = 1.0
"""Longest that readiness waits for the first probe of each backend; a backend that answers later is used then."""

MEASURING_LIMIT_S = 6.0
"""Longest that it waits for the measurement of models on the edge; what is measured later is used then."""

YOUNG_OBJECTS = 10_000
"""Objects that are made beyond those that go before the young ones are searched for cycles. Requests in hand are some
forty each, and none of them is a cycle: with Python's 700 each is looked at again and again."""

WRITING_LIMIT_S = 1.0
"""Part of the drain limit that is kept for writing the last answers."""

_DESCRIPTION = """\
Runs the daemon: accepts inference requests (Open Inference Protocol v2), batches them, and sends each batch to the edge
server or to a function, so that requests meet their deadlines at the lowest cost. Prints one JSON line when it is
ready; writes its log to stderr, one line for each event.

SIGTERM or SIGINT stops the daemon: it first answers the requests that it has accepted, within daemon.drain_limit_s. A
second signal stops it immediately. SIGHUP reloads the configuration; if the new one is not valid, the old one stays.

Exit status: 0 orderly stop, 1 immediate stop or internal error, 2 the daemon could not start."""

_EPILOG = """\
examples:
  edgeburst serve --config edgeburst.toml
  curl --data-binary @digit.png -H 'Content-Type: image/png' http://127.0.0.1:8600/v1/classify/digits"""


def add_parser(subparsers: Any) -> None:
    """Adds the sub-command to the command line."""
    parser = subparsers.add_parser(
        "serve",
        help="run the daemon",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", type=Path, required=True, help="the TOML file")
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="lowest level that is logged (default %(default)s)",
    )
    parser.add_argument("--log-format", choices=logs.FORMATS, default="text", help="of a line (default %(default)s)")
    parser.add_argument(
        "--shadow",
        metavar="FILE",
        type=Path,
        help="another configuration that hears the same requests; its figures are shown beside the live ones, and its"
        " batches are simulated: it sends and spends nothing",
    )
    parser.add_argument(
        "--wait-s",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="how long to wait for a daemon that has the state folder; its folder and port are then taken together"
        " (default 0: refuse to start)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the daemon until a signal stops it; returns the exit status.

    Raises:
        EdgeburstError: the daemon cannot start; the message names what to change.
    """
    logs.set_up(args.log_level, args.log_format, os.environ)
    # Whatever the daemon writes is for its own user: explanations name clients, the state what they cost.
    os.umask(0o077)
    config = load_config(args.config, os.environ)
    loop = new_loop()
    try:
        asyncio.set_event_loop(loop)
        listeners = Listeners.from_systemd(os.environ)
        state = keeper_of(config, wait_s=args.wait_s)
        if state is not None:
            listeners.inherit(state.lock.inherited, addresses_of(config))
        shadow = None if args.shadow is None else Shadow(args.shadow, clock=time.monotonic)
        notifier = Notifier.from_environment(os.environ, warn=_warn)
        daemon = Daemon(config, os.environ, notifier, state, listeners, shadow)
        return loop.run_until_complete(daemon.run())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


class Daemon:
    """Everything that runs in the process, from its start to its end."""

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str],
        notifier: Notifier,
        state: StateKeeper | None = None,
        listeners: Listeners | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        """Assembles the parts; opens no connection and does not listen yet.

        Args:
            config: the configuration.
            environ: the environment that holds its secrets.
            notifier: tells systemd how it goes.
            state: what outlives the process; None: nothing does.
            listeners: sockets that were passed to this process.
            shadow: another configuration beside this one; None: there is none.

        Raises:
            ConfigError: a secret that the configuration refers to is missing.
        """
        self._config = config
        self._environ = environ
        self._notifier = notifier
        self._places, self._tls = places(config, environ), server_tls(config)
        self._state, self._borrower = state, borrower_of(config, environ)
        self._shadow, settings = shadow, leased_settings(config, state, self._borrower)
        assembly = assemble(
            config,
            settings,
            self._places,
            clock=time.monotonic,
            state=state,
            borrower=self._borrower,
            shadow=shadow,
        )
        self._runner, self._explanations, self._recorder = assembly.runner, assembly.explanations, assembly.recorder
        self._note_recalled, self._served = assembly.note_recalled, assembly.served
        self._servers, self._meter, self._trials = assembly.servers, assembly.meter, assembly.trials
        self._edge_models = EdgeModels(
            edge=lambda name: self._runner.edges().get(name),
            config=lambda: self._config,
            measured=self._use_measured,
            served=self._served,
            clock=time.monotonic,
        )
        self._servers.back = self._served.edge_back
        self._app = create_app(assembly.parts, config, environ)
        self._service = self._app[INGRESS].service
        self._history = HistoryKeeper(assembly.parts.feed, None if state is None else state.folder)
        self._front = Front(
            app_runner(self._app, stop_limit_s=WRITING_LIMIT_S),
            grpc_server(config, self._service),
            listeners or Listeners(),
            None if state is None else Bequest(state.folder),
        )
        self._admin_socket: Path | None = None
        self._signals = Signals()
        self._loader = DaemonThreads(limit=1, name="config")
        self._side_tasks: set[asyncio.Task[None]] = set()
        self._failed = asyncio.Event()

    async def run(self) -> int:
        """Starts, serves and stops; returns the exit status."""
        loop = asyncio.get_running_loop()
        self._signals.install(loop)
        await self._front.set_up()
        try:
            self._runner.start()
            if self._borrower is not None:
                self._borrower.when_caps_change(self._use_settings)
                self._side_task(self._borrower.run(), name="borrower")
                await self._borrower.begun()
            if self._state is not None:
                if self._borrower is None and self._config.function is not None and self._config.capped:
                    await self._state.begun()
                self._side_task(self._state.run(), name="state")
            own, host = self._config.daemon, self._config.daemon.host
            self._front.check_reach(self._config)
            port = await self._front.listen(host, own.port, self._tls)
            self._service.read_port = await self._front.listen_read(own.read_address, self._tls)
            grpc_port = await self._front.listen_grpc(self._config.grpc, self._tls)
            self._admin_socket = await self._front.listen_admin(
                socket_path(self._config, self._environ), needed=bool(own.admin_socket)
            )
            self._side_task(watch_clocks(self._service.clocks), name="clocks")
            self._side_task(self._history.run(), name="history")
            self._side_task(self._recorder.run(), name="record")
            self._side_task(self._front.wait_for_successor(), name="successor")
            self._side_task(self._get_ready(host, port, grpc_port), name="get-ready")
            self._side_task(self._watch_engine(), name="watch-engine")
            self._side_task(self._reload_when_told(), name="reload")
            ping_watchdog(self._notifier, loop)
            await first(self._signals.stop, self._failed)
            return await self._stop()
        finally:
            await self._end()

    async def _get_ready(self, host: str, port: int, grpc_port: int | None) -> None:
        await self._runner.open()
        self._note_recalled()
        await self._follow_shadow()
        probes = self._runner.probe_backends()
        if probes:
            await asyncio.wait(probes, timeout=READY_LIMIT_S)
        self._side_task(self._edge_models.run(), name="edge-models")
        if self._config.to_measure():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._edge_models.looked.wait(), MEASURING_LIMIT_S)
        # The objects that exist now live as long as the process: later collections need not scan them.
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
        self._service.ready = True
        models = ",".join(model.name for model in self._config.models)
        listeners: dict[str, object] = {"host": host, "port": port}
        at = f"{host}:{port}"
        if grpc_port is not None and self._config.grpc is not None:
            self._service.grpc_address = f"{self._config.grpc.host}:{grpc_port}"
            listeners["grpc_port"] = grpc_port
            at += f", gRPC at {self._service.grpc_address}"
        if self._service.read_port is not None:
            listeners["read_port"] = self._service.read_port
        if self._admin_socket is not None:
            listeners["admin_socket"] = str(self._admin_socket)
        log(logging.INFO, "ready", **listeners, models=models)
        print(json.dumps({"event": "ready", **listeners}), flush=True)
        self._notifier.send("READY=1", f"STATUS=serving {models} at {at}")

    async def _use_measured(self, profile: Profile, edge: str) -> None:
        """Uses a profile that was measured just now on an edge server, and keeps it for the next process."""
        self._config.note_measured(profile, edge)
        try:
            await self._loader.run(lambda: remember(self._config.state_folder(), profile, edge))
        except ConfigError as error:
            log(logging.WARNING, "edge_profile_not_kept", message=str(error))
        self._served.reload(self._config)
        self._trials.follow(edge_trials(self._config))
        self._use_settings()
        self._service.unmeasured.reload(self._config)
        await self._follow_shadow()

    async def _follow_shadow(self) -> None:
        if self._shadow is not None:
            await self._shadow.follow(self._config, self._environ, self._loader.run)

    def _use_settings(self) -> None:
        self._runner.reload(leased_settings(self._config, self._state, self._borrower))

    async def _watch_engine(self) -> None:
        raise await self._runner.crashed()

    async def _reload_when_told(self) -> None:
        while True:
            await self._signals.reload.wait()
            self._signals.reload.clear()
            self._notifier.reloading()
            try:
                await self._reload()
            except ConfigError as error:
                log(logging.ERROR, "reload_refused", message=f"{error}; the old configuration stays in use")
            self._notifier.send("READY=1")

    async def _reload(self) -> None:
        """Reads the configuration again and uses all of it; nothing changes if it is not valid."""
        config = await self._loader.run(lambda: load_config(self._config.path, self._environ))
        config.recall_measured(self._config)
        settings = leased_settings(config, self._state, self._borrower)
        where = places(config, self._environ)
        self._front.check_reach(config)
        tls = server_tls(config)
        if (tls is None) is not (self._tls is None):
            tls = self._tls  # from plain to encrypted, or back, is another daemon to its clients
        await self._front.renew(tls)
        self._trials.follow(edge_trials(config))
        for place in where.changed(self._places):
            made = make_backend(place, where, time.monotonic, self._servers, self._meter)
            await self._runner.replace_backend(place, made)
        self._runner.reload(settings)
        if new_edges := [place for place in where.changed(self._places) if place.backend is Backend.EDGE]:
            self._runner.probe_backends(*new_edges)
        for place in where.gone(self._places):
            # The engine sends nothing to it any more; it is closed when what was sent is back.
            await self._runner.replace_backend(place, None)
        self._service.reload(config)
        fixed = [name for name in _FIXED if _differ(config, self._config, name)]
        fixed += ["certificate_file"] if bool(config.daemon.certificate_file) is (tls is None) else []
        fixed += ["from"] if config.spend.lender != self._config.spend.lender else []
        tables = ("explain", "record", "grpc", "otel")
        fixed += [name for name in tables if getattr(config, name) != getattr(self._config, name)]
        fixed += ["changepoints"] if config.engine.changepoints != self._config.engine.changepoints else []
        self._config, self._places, self._tls = config, where, tls
        self._served.reload(config, now_s=time.monotonic())
        self._edge_models.reloaded()
        await self._follow_shadow()
        log(logging.INFO, "reloaded", path=config.path, needs_restart=",".join(fixed) or "nothing")

    async def _stop(self) -> int:
        if self._failed.is_set():
            log(logging.ERROR, "stopping", cause="internal error")
            return 1
        limit_s = self._config.daemon.drain_limit_s
        log(logging.INFO, "draining", limit_s=limit_s)
        self._notifier.send("STOPPING=1", "STATUS=answering the accepted requests")
        self._service.unmeasured.close()
        self._history.stop()
        await self._front.leave(limit_s)
        drain = asyncio.get_running_loop().create_task(
            self._runner.drain(max(limit_s - WRITING_LIMIT_S, limit_s / 2)), name="drain"
        )
        await first(self._signals.stop_at_once, self._failed, drain)
        if not drain.done():
            drain.cancel()
            return 1
        log(logging.INFO, "drained", refused=drain.result())
        return 0

    async def _end(self) -> None:
        for task in list(self._side_tasks):
            task.cancel()
        await asyncio.gather(*self._side_tasks, return_exceptions=True)
        if self._shadow is not None:
            self._shadow.close()
        await self._runner.close()
        if self._borrower is not None:
            await self._borrower.close(clean=not self._failed.is_set())
        if self._state is not None:
            await self._state.close(clean=not self._failed.is_set())
        await self._explanations.close()
        await self._recorder.close()
        await self._history.close()
        self._service.large_json.close()
        # Without a successor the listener stays open until here, so that clients get an error while the daemon stops.
        await self._front.end(WRITING_LIMIT_S)
        if self._state is not None:
            self._front.pass_on(self._state.lock.descriptor)
        self._front.close()
        if self._state is not None:
            # Last of all: a successor that gets the folder finds the port free.
            self._state.release()

    def _side_task(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._side_tasks.add(task)
        task.add_done_callback(self._side_task_ended)

    def _side_task_ended(self, task: "asyncio.Task[None]") -> None:
        """Stops the daemon after a bug in a side task, so that systemd restarts it."""
        self._side_tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logging.getLogger("edgeburst").error("task_failed", exc_info=error, extra=logs.fields(task=task.get_name()))
            self._failed.set()


def _warn(message: str) -> None:
    log(logging.WARNING, "notify_failed", message=message)


def _differ(new: Config, old: Config, key: str) -> bool:
    return bool(getattr(new.daemon, key) != getattr(old.daemon, key))
