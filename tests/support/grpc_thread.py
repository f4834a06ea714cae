"""The gRPC server on a real socket, in a thread of its own, before a runner that is not the engine's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TypeVar

from support.accounting import assert_accounted

from scheduler.daemon.config.config import Config
from scheduler.daemon.grpc.server import GrpcServer
from scheduler.daemon.ingress.parts import DaemonParts
from scheduler.daemon.ingress.service import InferenceService

T = TypeVar("T")
LIMIT_S = 30.0


class GrpcThread:
    """Serves between `with` and its end."""

    def __init__(self, parts: DaemonParts, config: Config) -> None:
        """Stores its parts."""
        assert config.grpc is not None
        self.service = InferenceService(parts, config)
        self._section = config.grpc
        self._runner = parts.runner
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="grpc-ingress", daemon=True)
        self.server: GrpcServer
        self.port = 0

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def on_loop(self, work: Callable[[], Awaitable[T]]) -> T:
        """Returns what `work()` returns on the server's loop."""

        async def done() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(timeout=LIMIT_S)

    def assert_accounted(self) -> None:
        """Checks that each request that arrived has ended once, or is held."""
        telemetry = self.service.telemetry
        assert_accounted(lambda: telemetry.exposition().decode(), lambda: getattr(self._runner, "held", 0))

    def __enter__(self) -> GrpcThread:
        """Starts it, ready."""
        self._thread.start()
        try:
            self.on_loop(self._start)
        except BaseException:
            self._end_thread()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops it, after a look at its counts."""
        if error is None:
            self.assert_accounted()
        self.on_loop(lambda: self.server.stop(0.1))
        self._end_thread()

    def _end_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=LIMIT_S)
        self._loop.close()

    async def _start(self) -> None:
        self.server = GrpcServer(self.service, self._section)
        self.port = await self.server.start()
        self.service.ready = True
