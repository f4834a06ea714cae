"""The container program as a process; platforms configure it by environment variables."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scheduler.program_options import show_where, take_everywhere
from scheduler.wsgi.limits import NEVER_S, Limits
from scheduler.wsgi.server import WebServer, listen
from scheduler.wsgi.stopping import Stop
from serverless_fn.app import create_app
from serverless_fn.backend import Backend
from serverless_fn.forwarding import ForwardedServer
from serverless_fn.inference import Inference
from serverless_fn.local_models import LocalModels
from serverless_fn.log_tail import LogTail
from serverless_fn.settings import Settings, SettingsError, read_settings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

# The platform's limit for a request is 32 MB. This one is slightly higher, so that clients see the platform's answer.
LIMITS = Limits(
    body_bytes=33 * 2**20,
    connections=1000,
    # The platform sends POSTs on kept connections and does not repeat a POST that meets a closed connection (502).
    idle_s=NEVER_S,
)
"""Of the container."""
_DRAIN_LIMIT_S = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status."""
    try:
        settings = read_settings(os.environ, take_everywhere(sys.argv[1:] if argv is None else argv))
        serve(settings, backend_of(settings))
    except SettingsError as error:
        return _refused(str(error))
    except OSError as error:
        return _refused(f"the function cannot listen: {error.strerror or error}; set FC_CUSTOM_LISTEN_PORT")
    return 0


def backend_of(settings: Settings) -> Backend:
    """Returns what answers the batches by the settings."""
    return LocalModels(settings) if settings.forwarding is None else ForwardedServer(settings.forwarding)


def serve(settings: Settings, backend: Backend) -> None:
    """Listens and answers until SIGTERM or SIGINT, then finishes the running requests; blocks.

    Raises:
        OSError: the port cannot be opened.
    """
    with Stop() as stop:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        inference = Inference(backend, instance_id=settings.instance_id, log_tail=LogTail.of_this_process())
        server = make_server(create_app(inference), listen(settings.host, settings.port))
        server.start()
        stop.wait()
        server.stop_accepting()
        server.wait_until_answered(limit_s=_DRAIN_LIMIT_S)


def make_server(app: WSGIApplication, listeners: Sequence[socket.socket]) -> WebServer:
    """Returns the server of an application, with the limits of the container; `start` begins to serve."""
    return WebServer(app, listeners=listeners, limits=LIMITS)


def _refused(message: str) -> int:
    show_where()
    print(message, file=sys.stderr)
    return 2
