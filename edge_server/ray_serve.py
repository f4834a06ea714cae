"""The same service as a Ray Serve application: each replica has one device and serves one batch at a time.

`serve run edge_server/serve.yaml` starts it. Answers and refusals are those of our own server, whose application it is;
Ray starts and watches replicas, adds and removes them, and leads requests to them.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve.schema import ReplicaState

from edge_server.access import take_token
from edge_server.app import create_app
from edge_server.asgi import AsgiInterface
from edge_server.loading import emulation_of, load_service, warm_up_all
from edge_server.replica import Replicas, settings_of
from edge_server.service import Service, State

_REQUESTS = 16
"""Requests that a replica has at once: the batch on its device, those that wait for it, and questions."""
_LAST_WORDS_S = 1.0
"""Left for the answers of a replica that has lost its GPU."""


@serve.deployment(
    max_ongoing_requests=_REQUESTS,
    health_check_period_s=2.0,
    health_check_timeout_s=20.0,
    graceful_shutdown_timeout_s=35.0,
)
@serve.ingress()
class EdgeServer:
    """A replica."""

    def __init__(self, options: str) -> None:
        """Reads the options.

        Args:
            options: those of `python -m edge_server`, without addresses and certificates.

        Raises:
            StartupError: an option is wrong, or is not for Ray Serve.
            ModelError: there is no such model, or its card or the profile cannot be used.
        """
        self._settings = settings_of(options)
        context = serve.get_replica_context()
        self._replicas = Replicas(lambda: _running(context.app_name, context.deployment))
        self._service: Service | None = None

    async def __serve_build_asgi_app__(self) -> AsgiInterface:
        """Loads the models and runs made-up batches, as our own server does at its start; returns the application.

        Ray asks for it once, after the constructor, and sends requests when it is there.

        Raises:
            StartupError: the token is missing, or a batch does not fit in the device's memory.
            ModelError: a model or its weights cannot be used.
        """
        settings = self._settings
        token_sha256 = None if settings.token_env is None else take_token(settings.token_env, os.environ)
        # Not here: Ray asks meanwhile how the replica is.
        self._service = service = await asyncio.to_thread(self._ready_service)
        app = create_app(service, body_limit_bytes=settings.body_limit_bytes, token_sha256=token_sha256)
        return AsgiInterface(
            app,
            body_limit_bytes=settings.body_limit_bytes,
            threads=_REQUESTS,
            refused=service.metrics.responded,
        )

    def _ready_service(self) -> Service:
        service = load_service(self._settings, emulation_of(self._settings), parallel=self._replicas.count)
        service.on_device_lost = lambda: threading.Timer(_LAST_WORDS_S, os._exit, (1,)).start()
        warm_up_all(service, stopped=lambda: False)
        if not service.device_is_lost:
            service.state = State.READY
        self._replicas.watch()
        return service

    def check_health(self) -> None:
        """Is called by Ray from time to time.

        Raises:
            RuntimeError: the device is stuck; Ray starts another replica instead of this one.
        """
        if self._service is not None and not self._service.is_alive(2 * self._settings.batch_limit_s):
            raise RuntimeError("no batch comes back from the device; see what the models' code waits for")


def _running(app: str, deployment: str) -> int:
    found = serve.status().applications[app].deployments[deployment].replica_states
    return int(found.get(ReplicaState.RUNNING, 0))


def application(arguments: Mapping[str, Any]) -> Any:
    """Returns the application, as `serve.yaml` names it.

    Args:
        arguments: `options`, those of `python -m edge_server` in one text.
    """
    return EdgeServer.bind(str(arguments.get("options", "")))  # type: ignore[attr-defined]
