"""One process of a function: starts it, watches it, sends it requests over loopback, stops it reliably."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import aiohttp

_LOG = logging.getLogger("edgeburst.local_fc.container")
_TAIL_BYTES = 4096
_PROBE_EVERY_S = 0.01
_HEADER_BYTES_MAX = 8 * 1024
_PR_SET_PDEATHSIG = 1


class ContainerError(Exception):
    """Error: the process could not be started or did not open its port in time."""


class ProcessExited(Exception):
    """Error: the process ended while a request was in flight."""


class BadResponse(Exception):
    """Error: the process runs but its answer cannot be passed on."""


@dataclass(frozen=True, slots=True)
class ContainerAnswer:
    """Answer of the program."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def failed(self) -> bool:
        """Whether the platform counts the answer as a failure of the function."""
        return not 200 <= self.status < 300 or self.headers.get("x-fc-status") == "404"


class Container:
    """Process with its own loopback port.

    Args:
        session: the HTTP client, shared by all containers.
        name: name in the log.
        port: port on which the program must listen.
    """

    def __init__(self, session: aiohttp.ClientSession, *, name: str, port: int) -> None:
        self._session = session
        self._name = name
        self._port = port
        self._tail = bytearray()
        self._process: asyncio.subprocess.Process | None = None
        self._pump: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Process id; None before the start."""
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.returncode is None

    @property
    def last_words(self) -> str:
        """The last line that it printed."""
        lines = self._tail.decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")

    async def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Starts the process.

        Raises:
            ContainerError: the program does not exist or may not be executed.
        """
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                env=dict(environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                # Its own process group, so that its child processes can be ended with it.
                start_new_session=True,
                preexec_fn=_die_with_parent(),
            )
        except OSError as error:
            raise ContainerError(f"{command[0]!r} cannot be run: {error.strerror or error}") from error
        self._pump = asyncio.create_task(self._read_output(), name=f"{self._name} output")

    async def exited(self) -> int:
        """Waits for the end of the process and returns its exit status."""
        assert self._process is not None
        return await self._process.wait()

    async def wait_ready(self, *, health_path: str | None, limit_s: float) -> None:
        """Waits until the port is open and, if there is a health check, until it is answered with 2xx.

        Raises:
            ContainerError: the process ended, or the limit passed.
        """
        try:
            await asyncio.wait_for(self._probe_until_ready(health_path), limit_s)
        except asyncio.TimeoutError:
            raise ContainerError(
                f"the container did not open port {self._port} within {limit_s:g} s; last output: {self.last_words}"
            ) from None

    async def request(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes = b"", limit_s: float, limit_bytes: int
    ) -> ContainerAnswer:
        """Sends a request to the program and returns its answer.

        Raises:
            asyncio.TimeoutError: the limit passed.
            ProcessExited: the process ended before it answered.
            BadResponse: the connection broke while the process runs, or the answer is too large.
        """
        try:
            return await asyncio.wait_for(self._exchange(method, path, headers, body, limit_bytes), limit_s)
        except aiohttp.ClientError as error:
            await self._exit_or_grace()
            if not self.alive:
                raise ProcessExited(self.last_words) from error
            raise BadResponse(f"the container broke the connection: {error}") from error

    async def stop(self, *, limit_s: float) -> None:
        """Ends the process by SIGTERM, and by SIGKILL after the limit; returns when it has ended."""
        if self.alive:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.exited(), limit_s)
        # Also if it ended by itself: its child processes may still run in its group.
        self._signal(signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()
        if self._pump is not None:
            # A grandchild that left the group may hold the pipe open.
            self._pump.cancel()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    async def _exchange(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, limit_bytes: int
    ) -> ContainerAnswer:
        url = f"http://127.0.0.1:{self._port}{path}"
        async with self._session.request(method, url, headers=headers, data=body, allow_redirects=False) as answer:
            if sum(len(name) + len(value) for name, value in answer.raw_headers) > _HEADER_BYTES_MAX:
                raise BadResponse(f"the container's response headers exceed {_HEADER_BYTES_MAX} bytes")
            parts, size = [], 0
            async for part in answer.content.iter_any():
                parts.append(part)
                size += len(part)
                if size > limit_bytes:
                    raise BadResponse(f"the container's answer exceeds {limit_bytes} bytes")
            lower = {name.lower(): value for name, value in answer.headers.items()}
            return ContainerAnswer(answer.status, lower, b"".join(parts))

    async def _probe_until_ready(self, health_path: str | None) -> None:
        while not await self._port_open():
            await self._pause_between_probes()
        while health_path is not None and not await self.healthy(health_path, limit_s=3):
            await self._pause_between_probes()

    async def healthy(self, path: str, *, limit_s: float) -> bool:
        """Returns whether the health check is answered with 2xx in time."""
        try:
            answer = await asyncio.wait_for(self._exchange("GET", path, {}, b"", _TAIL_BYTES), limit_s)
        except (aiohttp.ClientError, asyncio.TimeoutError, BadResponse):
            return False
        return 200 <= answer.status < 300

    async def _port_open(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        writer.close()
        return True

    async def _pause_between_probes(self) -> None:
        if not self.alive:
            raise ContainerError(f"the container's process ended at its start; last output: {self.last_words}")
        await asyncio.sleep(_PROBE_EVERY_S)

    async def _exit_or_grace(self) -> None:
        """Waits a moment for the end of the process: it closes its sockets shortly before its end can be seen."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.exited(), 0.5)

    async def _read_output(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while part := await self._process.stdout.read(_TAIL_BYTES):
            self._tail = (self._tail + part)[-_TAIL_BYTES:]
            _LOG.debug("%s: %s", self._name, part.decode(errors="replace").rstrip())


def free_port() -> int:
    """Returns a free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> Callable[[], None] | None:
    """Returns a function that makes a new process end with this one, whatever ends this one."""
    if sys.platform != "linux":
        return None
    libc, parent = _libc(), os.getpid()

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
