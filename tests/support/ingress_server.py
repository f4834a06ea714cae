"""The ingress application on a real socket, in a thread of its own, as clients see it."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from aiohttp import web
from support.accounting import assert_accounted

from scheduler.daemon.config.config import Config
from scheduler.daemon.http.app import INGRESS, Ingress, app_runner, create_app
from scheduler.daemon.http.connection import Connection
from scheduler.daemon.http.malformed import JsonServer
from scheduler.daemon.ingress.parts import DaemonParts

READERS = {"own": True, "aiohttp": False}
"""Which reads requests for inference, as `hot` of IngressServer: what clients see is the same."""


class IngressServer:
    """Serves between `with` and its end; `url` has no slash at its end."""

    def __init__(
        self,
        parts: DaemonParts,
        config: Config,
        environ: Mapping[str, str],
        *,
        hot: bool = True,
        loop: asyncio.AbstractEventLoop | None = None,
        tls: ssl.SSLContext | None = None,
        unix: Path | None = None,
    ) -> None:
        """Stores its parts; `hot` as in `app_runner`, `unix`: a socket that it listens on too."""
        self._tls, self._unix = tls, unix
        self._app_parts = (parts, config, environ)
        self._hot = hot
        self._loop = loop or asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ingress", daemon=True)
        self.port = 0
        self.ingress: Ingress

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.address}"

    def on_loop(self, action: Callable[[], None]) -> None:
        """Runs `action` on the server's loop and waits for it."""

        async def act() -> None:
            action()

        asyncio.run_coroutine_threadsafe(act(), self._loop).result(timeout=10)

    def assert_accounted(self) -> None:
        """Checks that each request that arrived has ended once, or is held."""
        telemetry, runner = self.ingress.service.telemetry, self._app_parts[0].runner
        assert_accounted(lambda: telemetry.exposition().decode(), lambda: getattr(runner, "held", 0))

    def connections(self) -> list[Connection]:
        """Returns the open connections of the daemon's own reader."""
        server = self._runner.server
        assert isinstance(server, JsonServer)
        return list(server.kept)

    def pre_shutdown(self) -> None:
        """Takes no further requests; on its loop."""
        assert self._runner.server is not None
        self._runner.server.pre_shutdown()

    def __enter__(self) -> IngressServer:
        """Starts it, ready."""
        self._thread.start()
        assert self._started.wait(timeout=10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops it, after a look at its counts."""
        if error is None:
            self.assert_accounted()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        site_runner = self._loop.run_until_complete(self._start())
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(site_runner.cleanup())
        self._loop.close()

    async def _start(self) -> web.AppRunner:
        app = create_app(*self._app_parts)
        self.ingress = app[INGRESS]
        self.ingress.service.ready = True
        self._runner = site_runner = app_runner(app, stop_limit_s=1, hot=self._hot)
        await site_runner.setup()
        site = web.TCPSite(site_runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        if self._unix is not None:
            await web.UnixSite(site_runner, str(self._unix)).start()
        self.port = site_runner.addresses[0][1]
        return site_runner
