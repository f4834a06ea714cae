"""Applies faults to a call, before and after it is served."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from serverless_fn.local_fc.errors import FcError
from serverless_fn.local_fc.faults import Faults, Hit
from serverless_fn.local_fc.messages import BYTES_TYPE, Call, Reply, error_reply

_HTML = b"<html><head><title>Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>"
_WIRE_KINDS = frozenset({"reset", "close", "stall", "truncate", "drip"})


async def serve_through(
    faults: Faults, call: Call, *, function: str, operation: str, serve: Callable[[], Awaitable[Reply]]
) -> Reply:
    """Serves a call with the faults that act on it.

    Args:
        faults: the faults in force.
        call: the call to serve.
        function: name of the called function.
        operation: name of the operation.
        serve: does the work; not called if a fault replaces it.

    Raises:
        FcError: raised by `serve`.
    """
    hits = faults.strike(function, operation)
    for hit in hits:
        if not hit.fault.after:
            faults.happened(hit)
            if (instead := await _befall(hit, call)) is not None:
                return instead
    reply = await serve()
    for hit in hits:
        if hit.fault.after:
            faults.happened(hit)
            reply = await _befall(hit, call, reply) or reply
    return reply


def function_error(error_type: str, message: str, instance_id: str = "") -> Reply:
    """Returns the reply to a failure in the function: HTTP 200 with a header; it is billed."""
    content = {"errorMessage": message, "errorType": error_type, "stackTrace": []}
    headers = {"X-Fc-Error-Type": error_type}
    if instance_id:
        headers["X-Fc-Instance-Id"] = instance_id
    return Reply(200, json.dumps(content).encode(), BYTES_TYPE, headers)


async def _befall(hit: Hit, call: Call, reply: Reply | None = None) -> Reply | None:
    """Applies a fault to a call; returns the reply that replaces the original one, or None to keep it."""
    fault = hit.fault
    if fault.kind == "delay":
        await asyncio.sleep(hit.delay_s)
        return None
    if fault.kind == "error_type":
        return function_error(fault.error_type, fault.message)
    if fault.kind in _WIRE_KINDS:
        base = reply or Reply(200)
        return Reply(base.status, base.body, base.content_type, base.headers, (*base.wire_faults, hit))
    error = FcError(fault.status, fault.code, fault.message, fault.retry_after_ms or None)
    whole = error_reply(error, call.request_id)
    if fault.body == "json":
        return whole
    body, content_type = (_HTML, "text/html") if fault.body == "html" else (b"", BYTES_TYPE)
    return Reply(whole.status, body, content_type, whole.headers)
