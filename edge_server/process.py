"""The server process: start, warm-up, serving, drain."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterable
from types import FrameType
from typing import TextIO

from edge_server.access import check_reach, take_token, warn_of_readable
from edge_server.app import create_app
from edge_server.errors import StartupError
from edge_server.loading import emulation_of, load_service, warm_up_all
from edge_server.service import Service, State
from edge_server.settings import Settings
from edge_server.wsgi import listen, make_server
from scheduler.systemd import Notifier, passed_sockets
from scheduler.wsgi.server import WebServer
from scheduler.wsgi.stopping import Stop
from scheduler.wsgi.tls import TlsError

_log = logging.getLogger("edge_server")
_DRAIN_LIMIT_S = 30.0


def run(settings: Settings) -> int:
    """Serves until a signal.

    Returns:
        The exit status: 0 if every accepted request was answered.

    Raises:
        StartupError: the port cannot be opened, the profile or MPS is not usable, or a batch does not fit in the
            device's memory.
        ModelError: a model, its weights or the profile cannot be used.
    """
    # Standard output has one line, for programs; what handlers print goes to the log.
    announced = sys.stdout
    with contextlib.redirect_stdout(sys.stderr), Stop() as stop:
        return _run(settings, announced, stop)


def _run(settings: Settings, announced: TextIO, stop: Stop) -> int:
    _stop_on_signals(stop)
    notifier = Notifier.from_environment(os.environ, warn=_log.warning)
    if settings.share is not None:
        settings.share.take(os.environ)  # before anything starts CUDA
    emulation = emulation_of(settings)
    token_sha256 = None if settings.token_env is None else take_token(settings.token_env, os.environ)
    passed = [listener for _, listener in passed_sockets(os.environ)]
    listeners = passed or listen(settings.host, settings.port)
    _check_access(settings, listeners)
    service = load_service(settings, emulation)
    app = create_app(service, body_limit_bytes=settings.body_limit_bytes, token_sha256=token_sha256)
    server = make_server(
        app,
        listeners=listeners,
        body_limit_bytes=settings.body_limit_bytes,
        tls=settings.tls,
        refused=service.metrics.responded,
    )
    if settings.tls is not None or notifier.address:
        signal.signal(signal.SIGHUP, lambda *_: _read_again(server, notifier))
    service.on_device_lost = stop.set
    server.start()
    warm_up_all(service, stopped=stop.is_set)
    if not stop.is_set():
        service.state = State.READY
        _announce(service, listeners[0], notifier, announced)
    _watch(service, stop, notifier)
    if passed:
        server.stop_accepting()  # new connections wait for the process that gets the sockets next
    return _drain(service, server, notifier)


def _check_access(settings: Settings, listeners: Iterable[socket.socket]) -> None:
    """Checks before anything is loaded that not all may use the server by accident, and that the files of TLS do.

    Raises:
        StartupError: they do not, or other machines reach the server and it is not said which of them may use it.
    """
    tls = settings.tls
    has_client_ca = tls is not None and tls.client_ca is not None
    check_reach(listeners, is_guarded=settings.token_env is not None or has_client_ca or settings.is_open)
    if tls is not None:
        try:
            tls.context()
        except TlsError as error:
            raise StartupError(str(error)) from None
        warn_of_readable(tls.key)


def _read_again(server: WebServer, notifier: Notifier) -> None:
    notifier.reloading()
    try:
        server.reload_tls()
    except TlsError as error:
        _log.error("The certificate stays as it was: %s", error)
    else:
        _log.info("The certificate was read again.")
    notifier.send("READY=1")


def _stop_on_signals(stop: Stop) -> None:
    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        # A second signal ends the process at once, without waiting for the queue.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


def _announce(service: Service, listener: socket.socket, notifier: Notifier, announced: TextIO) -> None:
    host, port = listener.getsockname()[:2]
    emulated = service.emulation.name
    ready = {"event": "ready", "host": host, "port": port, "models": list(service.models), "emulated": emulated}
    print(json.dumps(ready), file=announced, flush=True)
    notifier.send("READY=1", f"STATUS=Serving {', '.join(service.models)}")


def _watch(service: Service, stop: Stop, notifier: Notifier) -> None:
    """Waits for the signal; meanwhile tells systemd that the device works, unless it has been busy for too long."""
    period_s = notifier.watchdog_s
    while not stop.wait(None if period_s is None else period_s / 2):
        if period_s is not None and service.is_alive(period_s):
            notifier.send("WATCHDOG=1")


def _drain(service: Service, server: WebServer, notifier: Notifier) -> int:
    service.state = State.STOPPING
    notifier.send("STOPPING=1")
    _log.info("Stopping: %d batches to finish.", service.device.in_hand)
    if not server.wait_until_answered(limit_s=_DRAIN_LIMIT_S):
        _log.error("The device has not finished within %g seconds; ending without it.", _DRAIN_LIMIT_S)
        # The thread of the device cannot be interrupted, and an orderly exit would wait for it.
        os._exit(1)
    if service.device_is_lost:
        # An orderly exit would wait for a GPU that does not answer.
        os._exit(1)
    service.device.close()
    if any(model.is_stuck for model in service.models.values()):
        # Its threads cannot be interrupted, and an orderly exit would wait for them.
        os._exit(0)
    return 0
