"""The container program as a process; platforms configure it by environment variables."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

from waitress.server import BaseWSGIServer, create_server

from scheduler.strict_wsgi import StrictChannel
from serverless_fn.app import create_app
from serverless_fn.backend import Backend
from serverless_fn.forwarding import ForwardedServer
from serverless_fn.inference import Inference
from serverless_fn.local_models import LocalModels
from serverless_fn.log_tail import LogTail
from serverless_fn.settings import Settings, SettingsError, read_settings

# The platform sends POSTs on kept connections and does not repeat a POST that meets a closed connection (502).
_NEVER_S = 10 * 365 * 86_400
# The platform's limit for a request is 32 MB. This one is slightly higher, so that clients see the platform's answer.
_MAX_BODY_BYTES = 33 * 2**20


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status."""
    try:
        settings = read_settings(os.environ, sys.argv[1:] if argv is None else argv)
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
    """Listens and answers until SIGTERM or SIGINT; blocks.

    Raises:
        OSError: the port cannot be opened.
    """
    signal.signal(signal.SIGTERM, _exit)
    inference = Inference(backend, instance_id=settings.instance_id, log_tail=LogTail.of_this_process())
    listeners: dict[int, Any] = {}
    server = create_server(
        create_app(inference),
        map=listeners,
        host=settings.host,
        port=settings.port,
        # One thread computes; the others answer health checks and hold the requests that wait for it.
        threads=8,
        channel_timeout=_NEVER_S,
        connection_limit=1000,
        asyncore_use_poll=True,
        max_request_body_size=_MAX_BODY_BYTES,
        inbuf_overflow=_MAX_BODY_BYTES,
        recv_bytes=2**16,
        ident="edgeburst-function",
    )
    # One for each address that the host's name has.
    for listener in listeners.values():
        if isinstance(listener, BaseWSGIServer):
            listener.channel_class = StrictChannel
    server.run()


def _exit(_signal: int, _frame: FrameType | None) -> None:
    # waitress ends its loop and finishes the running requests on SystemExit.
    raise SystemExit(0)


def _refused(message: str) -> int:
    print(message, file=sys.stderr)
    return 2
