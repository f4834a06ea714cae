"""Sends a reply, with the faults that act on it on the wire."""

from __future__ import annotations

import asyncio
import socket
import struct

from aiohttp import web

from serverless_fn.local_fc.faults import Hit
from serverless_fn.local_fc.messages import Reply

# SO_LINGER with zero seconds: closing sends a reset.
_RESET = struct.pack("ii", 1, 0)


async def deliver(
    request: web.BaseRequest, reply: Reply, request_id: str, *, close: bool = False
) -> web.StreamResponse:
    """Sends the reply or breaks the connection, as its faults say; returns the response for the server.

    Args:
        request: the request to answer.
        reply: the reply and its faults.
        request_id: value of the header that every answer carries.
        close: whether to close the connection after the answer.
    """
    headers = {"X-Fc-Request-Id": request_id, **reply.headers}
    # By RFC 9110, a 204 has no body and needs no content type.
    if reply.status != 204:
        headers["Content-Type"] = reply.content_type
    for hit in reply.wire_faults:
        if hit.fault.kind in ("truncate", "drip"):
            return await _send_badly(request, web.StreamResponse(status=reply.status, headers=headers), reply.body, hit)
        await _break(request, hit)
    response = web.Response(status=reply.status, body=reply.body, headers=headers)
    if close:
        response.force_close()
    return response


async def _break(request: web.BaseRequest, hit: Hit) -> None:
    if hit.fault.kind == "stall":
        await asyncio.sleep(hit.delay_s)
    transport = request.transport
    if transport is None:
        return
    if hit.fault.kind == "reset":
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()
    else:
        transport.close()


async def _send_badly(
    request: web.BaseRequest, response: web.StreamResponse, body: bytes, hit: Hit
) -> web.StreamResponse:
    response.content_length = len(body)
    await response.prepare(request)
    if hit.fault.kind == "truncate":
        await response.write(body[: int(len(body) * hit.fault.fraction)])
        if request.transport is not None:
            request.transport.close()
        return response
    for i in range(len(body)):
        await response.write(body[i : i + 1])
        await asyncio.sleep(1 / hit.fault.bytes_per_s)
    await response.write_eof()
    return response
