"""InvokeFunction: passes a call to an instance and maps every outcome to an answer as the provider does."""

from __future__ import annotations

import asyncio
import time
from random import Random

from serverless_fn.local_fc.container import BadResponse, ProcessExited
from serverless_fn.local_fc.errors import FcError, exhausted
from serverless_fn.local_fc.faults import Faults
from serverless_fn.local_fc.fleet import Fleet
from serverless_fn.local_fc.instance import Instance, StartFailed
from serverless_fn.local_fc.messages import BYTES_TYPE, Call, Reply, error_reply
from serverless_fn.local_fc.mishaps import function_error, serve_through
from serverless_fn.local_fc.registry import Registry, Resolved

SYNC_BYTES_MAX = 32 * 2**20
ASYNC_BYTES_MAX = 128 * 1024
_ASYNC_TASKS_MAX = 1000
_UNHANDLED = "UnhandledInvocationError"


class Invoker:
    """Server of invocations.

    Args:
        registry: resolves qualifiers.
        fleet: provides instances.
        faults: faults that act on invocations.
        random: draws between the versions of an alias.
    """

    def __init__(self, registry: Registry, fleet: Fleet, faults: Faults, random: Random) -> None:
        self._registry = registry
        self._fleet = fleet
        self._faults = faults
        self._random = random
        self._async_tasks: set[asyncio.Task[Reply]] = set()

    async def invoke(self, call: Call) -> Reply:
        """Serves one invocation, synchronous or asynchronous, with the faults that act on it.

        Raises:
            FcError: the invocation was not answered by the function.
        """
        asynchronous = call.headers.get("x-fc-invocation-type", "Sync").lower() == "async"
        max_bytes = ASYNC_BYTES_MAX if asynchronous else SYNC_BYTES_MAX
        if call.body_bytes > max_bytes:
            raise FcError(400, "EntityTooLarge", f"payload size exceeds maximum allowed size ({max_bytes} bytes)")
        resolved = self._registry.resolve(call.function, call.qualifier, self._random.random())
        self._refuse_unready(call)

        async def serve() -> Reply:
            return self._start_task(call, resolved) if asynchronous else await self._run(call, resolved)

        return await serve_through(self._faults, call, function=call.function, operation="invoke_function", serve=serve)

    async def stop(self) -> None:
        """Cancels the asynchronous invocations."""
        for task in self._async_tasks:
            task.cancel()
        await asyncio.gather(*self._async_tasks, return_exceptions=True)

    def _refuse_unready(self, call: Call) -> None:
        record = self._registry.get(call.function)
        if record.missing_image is not None:
            message = f"function {call.function!r} is Failed: image {record.missing_image!r} is not in the config"
            raise FcError(502, "FunctionNotStarted", message)
        if call.now < record.busy_until and not record.updated:
            raise FcError(503, "ResourceThrottled", f"function {call.function!r} is Pending; try again in a moment")

    def _start_task(self, call: Call, resolved: Resolved) -> Reply:
        if len(self._async_tasks) >= _ASYNC_TASKS_MAX:
            raise exhausted(f"{_ASYNC_TASKS_MAX} asynchronous invocations are running")
        task = asyncio.get_running_loop().create_task(self._run_unwatched(call, resolved), name=call.request_id)
        self._async_tasks.add(task)
        task.add_done_callback(self._async_tasks.discard)
        task_id = call.headers.get("x-fc-async-task-id") or call.request_id
        return Reply(202, b"", BYTES_TYPE, {"X-Fc-Async-Task-Id": task_id})

    async def _run_unwatched(self, call: Call, resolved: Resolved) -> Reply:
        try:
            return await self._run(call, resolved)
        except FcError as error:
            return error_reply(error, call.request_id)

    async def _run(self, call: Call, resolved: Resolved) -> Reply:
        try:
            instance = await self._fleet.acquire(resolved)
        except StartFailed as error:
            if error.in_initializer:
                return function_error("InitializationError", str(error))
            raise FcError(502, "FunctionNotStarted", str(error)) from error
        try:
            return await self._serve(instance, call)
        finally:
            self._fleet.release(instance)

    async def _serve(self, instance: Instance, call: Call) -> Reply:
        started_s = time.monotonic()
        try:
            answer = await instance.invoke(call.body, call.request_id)
        except asyncio.TimeoutError:
            self._fleet.retire(instance, at_once=True)
            limit_s = instance.version.spec.timeout_s
            return function_error(_UNHANDLED, f"Function timed out after {limit_s} seconds", instance.id)
        except ProcessExited:
            # Called by its end or by this, the instance is gone either way.
            duration_ms = (time.monotonic() - started_s) * 1e3
            message = (
                "Process exited unexpectedly before completing request"
                f" (duration: {duration_ms:.0f}ms, maxMemoryUsage: 0MB)"
            )
            return function_error(_UNHANDLED, message, instance.id)
        except BadResponse as error:
            raise FcError(502, "BadResponse", str(error)) from error
        headers = {"X-Fc-Instance-Id": instance.id}
        if answer.failed:
            headers["X-Fc-Error-Type"] = _UNHANDLED
        return Reply(200, answer.body, BYTES_TYPE, headers)
