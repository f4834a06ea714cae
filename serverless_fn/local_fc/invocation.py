"""InvokeFunction: from the caller's bytes to an instance and back, as the provider maps what can happen."""

from __future__ import annotations

import asyncio
import json
import time
from random import Random

from serverless_fn.local_fc.container import BadResponse, ProcessExited
from serverless_fn.local_fc.errors import FcError, exhausted
from serverless_fn.local_fc.faults import Faults, Hit
from serverless_fn.local_fc.fleet import Fleet
from serverless_fn.local_fc.instance import Instance, StartFailed
from serverless_fn.local_fc.messages import BYTES_TYPE, Call, Reply, error_reply
from serverless_fn.local_fc.registry import Registry, Resolved

SYNC_BYTES_MAX = 32 * 2**20
ASYNC_BYTES_MAX = 128 * 1024
_ASYNC_TASKS_MAX = 1000
_UNHANDLED = "UnhandledInvocationError"
_HTML = b"<html><head><title>Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>"
_WIRE_KINDS = frozenset({"reset", "close", "stall", "truncate", "drip"})


class Invoker:
    """Serves invocations.

    Parameters:
        registry: resolves qualifiers.
        fleet: lends instances.
        faults: what is to go wrong.
        random: draws between the versions of an alias.
    """

    def __init__(self, registry: Registry, fleet: Fleet, faults: Faults, random: Random) -> None:
        self._registry = registry
        self._fleet = fleet
        self._faults = faults
        self._random = random
        self._async_tasks: set[asyncio.Task[Reply]] = set()

    async def invoke(self, call: Call) -> Reply:
        """Serve one invocation, synchronous or not, with the faults that hit it.

        Raises:
            FcError: whatever is not an answer of the function.
        """
        asynchronous = call.headers.get("x-fc-invocation-type", "Sync").lower() == "async"
        most = ASYNC_BYTES_MAX if asynchronous else SYNC_BYTES_MAX
        if call.body_bytes > most:
            raise FcError(400, "EntityTooLarge", f"payload size exceeds maximum allowed size ({most} bytes)")
        resolved = self._registry.resolve(call.function, call.qualifier, self._random.random())
        self._refuse_unready(call)
        hits = self._faults.strike(call.function)
        for hit in hits:
            if not hit.fault.after:
                self._faults.happened(hit)
                if (reply := await _befall(hit, call)) is not None:
                    return reply
        reply = self._start_task(call, resolved) if asynchronous else await self._run(call, resolved)
        for hit in hits:
            if hit.fault.after:
                self._faults.happened(hit)
                reply = await _befall(hit, call, reply) or reply
        return reply

    async def stop(self) -> None:
        """Give up what runs asynchronously."""
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
                return _function_error("InitializationError", str(error))
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
            return _function_error(_UNHANDLED, f"Function timed out after {limit_s} seconds", instance)
        except ProcessExited:
            # Called by its end or by this, the instance is gone either way.
            duration_ms = (time.monotonic() - started_s) * 1e3
            message = (
                "Process exited unexpectedly before completing request"
                f" (duration: {duration_ms:.0f}ms, maxMemoryUsage: 0MB)"
            )
            return _function_error(_UNHANDLED, message, instance)
        except BadResponse as error:
            raise FcError(502, "BadResponse", str(error)) from error
        headers = {"X-Fc-Instance-Id": instance.id}
        if answer.failed:
            headers["X-Fc-Error-Type"] = _UNHANDLED
        return Reply(200, answer.body, BYTES_TYPE, headers)


async def _befall(hit: Hit, call: Call, reply: Reply | None = None) -> Reply | None:
    """Let a fault act on a call; return what the caller gets in place of the reply, None if nothing changes."""
    fault = hit.fault
    if fault.kind == "delay":
        await asyncio.sleep(hit.delay_s)
        return None
    if fault.kind == "error_type":
        return _function_error(fault.error_type, fault.message)
    if fault.kind in _WIRE_KINDS:
        base = reply or Reply(200)
        return Reply(base.status, base.body, base.content_type, base.headers, (*base.wire_faults, hit))
    error = FcError(fault.status, fault.code, fault.message, fault.retry_after_ms or None)
    whole = error_reply(error, call.request_id)
    if fault.body == "json":
        return whole
    body, content_type = (_HTML, "text/html") if fault.body == "html" else (b"", BYTES_TYPE)
    return Reply(whole.status, body, content_type, whole.headers)


def _function_error(error_type: str, message: str, instance: Instance | None = None) -> Reply:
    """What failed in the function is HTTP 200 with a header; it is billed."""
    content = {"errorMessage": message, "errorType": error_type, "stackTrace": []}
    headers = {"X-Fc-Error-Type": error_type}
    if instance is not None:
        headers["X-Fc-Instance-Id"] = instance.id
    return Reply(200, json.dumps(content).encode(), BYTES_TYPE, headers)
