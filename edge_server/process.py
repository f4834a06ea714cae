"""The server process: start, warm-up, serving, drain."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from functools import partial
from types import FrameType
from typing import TextIO

from edge_server.access import check_reach, take_token, warn_of_readable
from edge_server.app import create_app
from edge_server.device import Device
from edge_server.errors import EdgeError, StartupError
from edge_server.service import EdgeModel, Service, State
from edge_server.settings import Settings
from edge_server.warmup import warm_up
from edge_server.wsgi import listen, make_server
from models.batch import rehearsal_request
from models.card import Card
from models.emulation import Emulation, emulation_for
from models.errors import DeviceLost, ModelError
from models.packages import needed
from scheduler.systemd import Notifier, passed_sockets
from scheduler.wire import WireError
from scheduler.wsgi.server import WebServer
from scheduler.wsgi.stopping import Stop
from scheduler.wsgi.tls import TlsError

_log = logging.getLogger("edge_server")
# On a CPU nothing is compiled by batch size, and ResNet-50 would take minutes for all sizes.
_CPU_WARM_UP_S = 5.0
_DRAIN_LIMIT_S = 30.0
MEASURE_S = 10.0
"""Seconds in which the runtimes of one model are compared at the start."""


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
    emulation = _emulation(settings)
    token_sha256 = None if settings.token_env is None else take_token(settings.token_env, os.environ)
    passed = [listener for _, listener in passed_sockets(os.environ)]
    listeners = passed or listen(settings.host, settings.port)
    _check_access(settings, listeners)
    service = _load(settings, emulation)
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
    _warm_up(service, stopped=stop.is_set)
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


def _emulation(settings: Settings) -> Emulation:
    emulation = emulation_for(settings.emulate)
    profile = emulation.profile
    if profile is None:
        return emulation
    if profile.backend != "edge":
        raise StartupError(f"profile {profile.name} is of a {profile.backend}, not of an edge device: choose another")
    if settings.max_batch is not None and settings.max_batch > profile.max_batch:
        raise StartupError(
            f"profile {profile.name} holds up to batches of {profile.max_batch}, not {settings.max_batch}: "
            "lower --max-batch"
        )
    _log.info(
        "Emulating %s (%s): true predictions; a batch of b items takes %g + %g b seconds, not this machine's own time.",
        profile.name,
        profile.device,
        profile.alpha_s,
        profile.beta_s,
    )
    return emulation


def _load(settings: Settings, emulation: Emulation) -> Service:
    # Here, not above: importing a framework takes seconds; a wrong option or a used port should be reported before.
    cv2 = needed("cv2", "the server")

    from models.loading import load

    # The threads of the pool decode in parallel; OpenCV's own threads would multiply them.
    cv2.setNumThreads(1)
    models = []
    for choice in settings.models:
        max_batch = _max_batch(choice.card, settings, emulation)
        served = load(
            choice.card,
            device=settings.device,
            runtime=settings.runtimes.of(choice.card.name),
            threads=settings.torch_threads,
            weights=choice.weights,
            weights_sha256=choice.weights_sha256,
            random_weights=choice.random_weights,
            max_batch=max_batch,
            # An emulated device has the speed of its profile, whatever computes the answers.
            measure_s=MEASURE_S if emulation.profile is None else 0.0,
        )
        models.append(EdgeModel(served, max_batch=max_batch, decode_threads=settings.decode_threads))
    return Service(
        models=models,
        device=Device(limit_s=settings.batch_limit_s),
        emulation=emulation,
        isolation=settings.share.as_given() if settings.share else None,
    )


def _max_batch(card: Card, settings: Settings, emulation: Emulation) -> int:
    limits = (card.max_batch, settings.max_batch, emulation.profile.max_batch if emulation.profile else None)
    return min(limit for limit in limits if limit is not None)


def _warm_up(service: Service, *, stopped: Callable[[], bool]) -> None:
    for model in service.models.values():
        runtime = model.served.runtime
        budget_s = _CPU_WARM_UP_S if runtime.device == "cpu" else math.inf
        work = partial(warm_up, model, budget_s=budget_s, stopped=stopped)
        try:
            sizes = service.device.submit(work).result()
            service.rehearse(model.name, rehearsal_request(model.served.card, model.max_batch))
        except DeviceLost as error:
            service.lose_device(error)
            return
        except (ModelError, WireError, EdgeError) as error:
            _log.warning("Model %s cannot be warmed up with made-up items: %s", model.name, error)
            continue
        _log.info(
            "Model %s (%s weights) by %s on %s, %s: %d of %d batch sizes warmed up.",
            model.name,
            model.served.weights,
            runtime.name,
            runtime.device,
            runtime.precision,
            sizes,
            model.max_batch,
        )
    # All objects loaded so far stay: the garbage collector need not examine them while a batch is served.
    gc.collect()
    gc.freeze()


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
