"""The server process: start, warm-up, serving, drain."""

from __future__ import annotations

import gc
import json
import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import FrameType

import cv2

from edge_server.app import create_app
from edge_server.device import Device
from edge_server.errors import StartupError
from edge_server.service import Service, State
from edge_server.settings import Settings
from edge_server.wsgi import WebServer, listen
from models.catalogue import spec
from models.emulation import Emulation, emulation_for
from scheduler.systemd import Notifier

_log = logging.getLogger("edge_server")
# On a CPU nothing is compiled by batch size, and ResNet-50 would take minutes for all sizes.
_CPU_WARM_UP_S = 5.0
_DRAIN_LIMIT_S = 30.0


def run(settings: Settings) -> int:
    """Serves until a signal.

    Returns:
        The exit status: 0 if every accepted request was answered.

    Raises:
        StartupError: the port cannot be opened, the profile is not usable, or a batch does not fit in the device's
            memory.
        ModelError: a model, its weights or the profile cannot be used.
    """
    stop = threading.Event()
    _stop_on_signals(stop)
    notifier = Notifier.from_environment(os.environ, warn=_log.warning)
    for choice in settings.models:
        spec(choice.name)  # finds a misspelt name before torch is imported
    emulation = _emulation(settings)
    listener = listen(settings.host, settings.port)
    service = _load(settings, emulation)
    app = create_app(service, body_limit_bytes=settings.body_limit_bytes)
    server = WebServer(app, listener=listener, body_limit_bytes=settings.body_limit_bytes)
    server.start()
    _warm_up(service, stopped=stop.is_set)
    if not stop.is_set():
        service.state = State.READY
        _announce(service, listener, notifier)
    _watch(service, stop, notifier)
    return _drain(service, server, notifier)


def _stop_on_signals(stop: threading.Event) -> None:
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
    if settings.max_batch > profile.max_batch:
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
    # Here, not above: importing torch takes seconds; a wrong option or a used port should be reported before.
    try:
        import torch

        from models.network import load
    except ImportError as error:
        raise StartupError(
            f"torch is missing ({error}): from the source tree, pip install '.[torch]', or NVIDIA's build on a Jetson"
        ) from None
    torch.set_num_threads(settings.torch_threads)
    # The threads of the pool decode in parallel; OpenCV's own threads would multiply them.
    cv2.setNumThreads(1)
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    models = {
        choice.name: load(
            choice.name,
            weights=choice.weights,
            weights_sha256=choice.weights_sha256,
            random_weights=choice.random_weights,
            device=device,
        )
        for choice in settings.models
    }
    pool = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")
    return Service(models=models, max_batch=settings.max_batch, device=Device(), pool=pool, emulation=emulation)


def _warm_up(service: Service, *, stopped: Callable[[], bool]) -> None:
    from edge_server.warmup import blank_pictures, warm_up

    for model in service.models.values():
        budget_s = _CPU_WARM_UP_S if model.device == "cpu" else math.inf
        work = partial(warm_up, model, max_batch=service.max_batch, budget_s=budget_s, stopped=stopped)
        sizes = service.device.submit(work).result()
        service.rehearse(model.spec.name, blank_pictures())
        _log.info(
            "Model %s (%s weights) on %s: %d of %d batch sizes warmed up.",
            model.spec.name,
            model.weights,
            model.device,
            sizes,
            service.max_batch,
        )
    # All objects loaded so far stay: the garbage collector need not examine them while a batch is served.
    gc.collect()
    gc.freeze()


def _announce(service: Service, listener: socket.socket, notifier: Notifier) -> None:
    host, port = listener.getsockname()[:2]
    emulated = service.emulation.name
    ready = {"event": "ready", "host": host, "port": port, "models": list(service.models), "emulated": emulated}
    print(json.dumps(ready), flush=True)
    notifier.send("READY=1", f"STATUS=Serving {', '.join(service.models)}")


def _watch(service: Service, stop: threading.Event, notifier: Notifier) -> None:
    """Waits for the signal; meanwhile tells systemd that the device works, unless it has been busy for too long."""
    period_s = notifier.watchdog_s
    while not stop.wait(None if period_s is None else period_s / 2):
        if period_s is not None and service.device.busy_s() < period_s:
            notifier.send("WATCHDOG=1")


def _drain(service: Service, server: WebServer, notifier: Notifier) -> int:
    service.state = State.STOPPING
    notifier.send("STOPPING=1")
    _log.info("Stopping: %d batches to finish.", service.device.in_hand)
    if not server.wait_until_answered(limit_s=_DRAIN_LIMIT_S):
        _log.error("The device has not finished within %g seconds; ending without it.", _DRAIN_LIMIT_S)
        # The thread of the device cannot be interrupted, and an orderly exit would wait for it.
        os._exit(1)
    service.device.close()
    return 0
