"""Instance of a function: its process, its state and its meter."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

import aiohttp

from serverless_fn.local_fc.config import Account, Image
from serverless_fn.local_fc.container import (
    BadResponse,
    Container,
    ContainerAnswer,
    ContainerError,
    ProcessExited,
)
from serverless_fn.local_fc.contract import instance_command, instance_environment, request_headers
from serverless_fn.local_fc.ids import Ids, utc_now
from serverless_fn.local_fc.meter import ActivityMeter, Residence, Usage
from serverless_fn.local_fc.registry import Version

# No limit is documented for the answer of a synchronous call; that of the request is used.
ANSWER_BYTES_MAX = 32 * 2**20


class Status(Enum):
    """State of an instance; it changes only to states further down."""

    STARTING = "Starting"
    READY = "Running"
    STOPPING = "Stopping"
    STOPPED = "Destroyed"


class StartFailed(Exception):
    """Error: an instance could not be started.

    Args:
        message: one sentence.
        in_initializer: whether the process ran but /initialize failed, which the provider answers as a function error.
    """

    def __init__(self, message: str, *, in_initializer: bool) -> None:
        super().__init__(message)
        self.in_initializer = in_initializer


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Objects that all instances share."""

    account: Account
    images: Mapping[str, Image]
    session: aiohttp.ClientSession
    ids: Ids


class Instance:
    """Process that serves one version under one qualifier.

    Args:
        surroundings: objects that all instances share.
        instance_id: id in the provider's form.
        version: the version that it runs.
        qualifier: the qualifier under which it is called.
        provisioned: whether it is kept without requests.
        port: port on which its program listens.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        *,
        instance_id: str,
        version: Version,
        qualifier: str,
        provisioned: bool,
        port: int,
    ) -> None:
        self._surroundings = surroundings
        self.id = instance_id
        self.version = version
        self.qualifier = qualifier
        self.provisioned = provisioned
        self.port = port
        self.container = Container(surroundings.session, name=f"{version.spec.name}/{instance_id}", port=port)
        self.meter = ActivityMeter()
        self.status = Status.STARTING
        self.draining = False
        self.hibernated = False
        self.in_flight = 0
        self.served = 0
        self.last_used_ns = 0
        self.created = utc_now()
        self.destroyed: datetime | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.reclaim: asyncio.TimerHandle | None = None

    @property
    def function(self) -> str:
        """Name of the function."""
        return self.version.spec.name

    @property
    def has_free_slot(self) -> bool:
        """Whether another request may be sent to it, now or as soon as it is ready."""
        lives = self.status is Status.STARTING or (self.status is Status.READY and self.container.alive)
        return lives and not self.draining and self.in_flight < self.version.spec.concurrency

    def used(self) -> Usage:
        """Returns its usage up to now."""
        return self.meter.used(time.monotonic_ns())

    async def start(self, residence: Residence) -> None:
        """Starts the process, waits for its port and runs its initializer.

        Raises:
            StartFailed: one of the steps failed.
        """
        spec, account = self.version.spec, self._surroundings.account
        image = self._surroundings.images[spec.image]
        environment = instance_environment(
            image=image,
            spec=spec,
            account=account,
            instance_id=self.id,
            version_id=self.version.version_id,
            port=self.port,
        )
        try:
            await self.container.start(instance_command(image, spec), environment)
            health_path = spec.health.path if spec.health else None
            await self.container.wait_ready(health_path=health_path, limit_s=account.ready_limit_s)
        except ContainerError as error:
            raise StartFailed(str(error), in_initializer=False) from error
        await self._initialize()
        self.status = Status.READY
        self.meter.reside(residence, time.monotonic_ns())

    async def invoke(self, body: bytes, request_id: str) -> ContainerAnswer:
        """Serves one request; raises the errors of `Container.request`."""
        spec = self.version.spec
        self.served += 1
        self.meter.begin(time.monotonic_ns())
        try:
            return await self._ask("POST", "/invoke", request_id, limit_s=spec.timeout_s, body=body)
        finally:
            self.last_used_ns = time.monotonic_ns()
            self.meter.end(self.last_used_ns)

    async def watch_health(self) -> None:
        """Ends the process after too many failed health checks in a row; returns when it has ended."""
        check = self.version.spec.health
        failures = 0
        while check is not None and self.container.alive:
            await asyncio.sleep(check.period_s)
            failures = 0 if await self.container.healthy(check.path, limit_s=check.timeout_s) else failures + 1
            if failures >= check.failure_threshold:
                self.draining = True
                await self.container.stop(limit_s=0)

    async def stop(self, *, gracefully: bool) -> None:
        """Runs the pre-stop hook if requested and present, then ends the process."""
        self.meter.reside(Residence.ON_DEMAND, time.monotonic_ns())
        hook = self.version.spec.pre_stop
        if gracefully and hook and self.container.alive:
            # The instance ends whatever the hook answers.
            with contextlib.suppress(asyncio.TimeoutError, ProcessExited, BadResponse):
                await self._hook("GET", "/pre-stop", limit_s=hook.timeout_s)
        await self.container.stop(limit_s=self._surroundings.account.stop_limit_s if gracefully else 0)
        self.status, self.destroyed = Status.STOPPED, utc_now()

    async def _initialize(self) -> None:
        hook = self.version.spec.initializer
        if hook is None:
            return
        try:
            answer = await self._hook("POST", "/initialize", limit_s=hook.timeout_s)
        except asyncio.TimeoutError:
            raise StartFailed(f"/initialize took over {hook.timeout_s} s", in_initializer=True) from None
        except (ProcessExited, BadResponse) as error:
            raise StartFailed(f"/initialize broke off: {error}", in_initializer=True) from error
        if answer.failed:
            said = answer.body[:500].decode(errors="replace")
            raise StartFailed(f"/initialize failed with status {answer.status}: {said}", in_initializer=True)

    async def _hook(self, method: str, path: str, *, limit_s: float) -> ContainerAnswer:
        self.meter.begin(time.monotonic_ns(), hook=True)
        try:
            return await self._ask(method, path, self._surroundings.ids.request(), limit_s=limit_s)
        finally:
            self.meter.end(time.monotonic_ns())

    async def _ask(
        self, method: str, path: str, request_id: str, *, limit_s: float, body: bytes = b""
    ) -> ContainerAnswer:
        headers = request_headers(
            path=path,
            request_id=request_id,
            spec=self.version.spec,
            account=self._surroundings.account,
            qualifier=self.qualifier,
            version_id=self.version.version_id,
        )
        return await self.container.request(
            method, path, headers=headers, body=body, limit_s=limit_s, limit_bytes=ANSWER_BYTES_MAX
        )
