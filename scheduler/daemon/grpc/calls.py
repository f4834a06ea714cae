"""One gRPC call at a time: its message read within the limits, its errors as status codes, its answer written."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

import grpc
from grpc import aio

from scheduler.daemon.grpc import statuses
from scheduler.daemon.grpc.compression import Packing, packing_of, unpacked
from scheduler.daemon.ingress.access import Caller
from scheduler.daemon.ingress.body_limits import BodyLimits, TimeLimit
from scheduler.daemon.ingress.errors import FAULT, NO_MEMORY, ClientError, client_error
from scheduler.daemon.logs import fields, log
from scheduler.daemon.telemetry import Telemetry
from scheduler.daemon.threads import DaemonThreads
from scheduler.domain.errors import EdgeburstError
from scheduler.wire import WireError

SIZES_KEPT = 64
"""Number of latest messages of which the largest says how much room the next one needs."""

UNPACKED_BESIDE_BYTES = 2**16
"""Compressed size from which a message is unpacked in a thread: smaller ones take less than a millisecond."""

_COMPRESSION = {
    Packing.NONE: grpc.Compression.NoCompression,
    Packing.GZIP: grpc.Compression.Gzip,
    Packing.DEFLATE: grpc.Compression.Deflate,
}
_logger = logging.getLogger("edgeburst")

Context = Any
"""A grpc.aio.ServicerContext."""


class MessageReader:
    """Reads messages within the limits that HTTP bodies have too.

    gRPC shows a message when it is whole. So the room for it is reserved before it is asked for: as much as the largest
    of the latest messages took, and at first as much as one may take. Until then flow control keeps it with the client.
    """

    def __init__(self, limits: BodyLimits) -> None:
        """Stores the limits, which are shared with HTTP."""
        self._limits = limits
        self._sizes: deque[int] = deque(maxlen=SIZES_KEPT)
        self._threads = DaemonThreads(limit=2, name="grpc-unpack")

    def close(self) -> None:
        """Ends the threads that unpack messages."""
        self._threads.close()

    async def only(self, context: Context, client: str = "") -> bytes:
        """Returns the only message of a call, unpacked; its answer will be packed likewise.

        Args:
            context: the call.
            client: the key of the shares of the client that makes it.

        Raises:
            Rejected: it is too large or too slow, or too many arrive at once.
            WireError: there is none, or it is damaged.
        """
        limits = self._limits
        room_bytes = min(max(self._sizes, default=limits.body_limit_bytes), limits.body_limit_bytes)
        arrival, limit_s = limits.begin(client), limits.time_limit_of(client)
        reserved, time_limit = False, TimeLimit(limit_s)
        try:
            await limits.reserve(room_bytes, client)
            reserved = True
            message = await self.next(context)
        except asyncio.CancelledError:
            if not time_limit.caught():
                raise
            raise limits.too_slow(limit_s) if reserved else limits.too_many() from None
        finally:
            time_limit.end()
            arrival.end()
            if reserved:
                limits.release(room_bytes, client)
        if message is None:
            raise WireError("the call has no message; send one")
        self._sizes.append(len(message))
        return message

    async def next(self, context: Context, *, answer_alike: bool = True) -> bytes | None:
        """Returns the next message of a call, unpacked; None where the client has sent all.

        Args:
            context: the call.
            answer_alike: whether its answers are packed as this message is; only before the first answer.

        Raises:
            Rejected: it is too large.
            WireError: it is damaged.
        """
        message = await context.read()
        if message is aio.EOF:
            return None
        packing = packing_of(message)
        if packing is not Packing.NONE:
            if answer_alike:
                context.set_compression(_COMPRESSION[packing])
            message = await self._unpacked(message, packing)
        self._limits.check_size(len(message))
        return bytes(message)

    async def _unpacked(self, message: bytes, packing: Packing) -> bytes:
        limit_bytes = self._limits.body_limit_bytes
        if len(message) < UNPACKED_BESIDE_BYTES:
            return unpacked(message, packing, limit_bytes=limit_bytes)
        return await self._threads.run(lambda: unpacked(message, packing, limit_bytes=limit_bytes))


def told(error: Exception, method: str) -> ClientError:
    """Returns what the client is told of an exception; a fault of the program is logged with its traceback."""
    if isinstance(error, EdgeburstError | WireError):
        return client_error(error)
    if isinstance(error, MemoryError):
        log(logging.WARNING, "no_memory", method="gRPC", path=method, message=NO_MEMORY)
        return ClientError(503, NO_MEMORY)
    _logger.error("request_bug", exc_info=error, extra=fields(method="gRPC", path=method))
    return ClientError(500, FAULT)


Work = Callable[[Context, Caller], Awaitable[None]]
Admit = Callable[[Context], AbstractContextManager[Caller]]
"""Returns, while a call lasts, where it comes from; raises Rejected where that may not make it."""


def handler(method: str, telemetry: Telemetry, work: Work, admit: Admit) -> Any:
    """Returns the handler of a call, in which the work's exceptions become status codes.

    On the wire a message alone is a stream of one. So all calls are handled as streams, whose messages come as they
    are, and only when they are asked for.

    Args:
        method: the call's name.
        telemetry: counts errors.
        work: reads and writes the call's messages.
        admit: looks where the call comes from.
    """

    async def handle(_: object, context: Context) -> None:
        try:
            with admit(context) as caller:
                await work(context, caller)
            return
        except Exception as error:  # noqa: BLE001 - the client gets a sentence, the log the traceback
            if context.done():
                return  # the client has gone, so there is nothing to answer
            refusal = told(error, method)
        code = statuses.code_of(refusal)
        telemetry.grpc_error(code.name)
        log(logging.DEBUG, "refused", method="gRPC", path=method, status=code.name)
        await context.abort(code, refusal.message, statuses.metadata_of(refusal.headers))

    return grpc.stream_stream_rpc_method_handler(handle)
