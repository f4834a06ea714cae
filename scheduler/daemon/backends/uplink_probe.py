"""Measures the uplink to the functions when no batch has measured it for a while, with a small request that is free.

The request is not signed, so the provider refuses it (400, 403) after it has read it, and bills nothing. It uses a
socket of its own, because the kernel then reports the round-trip time.
"""

import asyncio
import fcntl
import ssl
import struct
import sys
import termios
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from scheduler.daemon.backends.batch_send import Clock
from scheduler.daemon.backends.tcp_info import smoothed_rtt_s

PROBE_BYTES = 32 * 1024
PROBE_LIMIT_S = 10.0
"""32 KB in 10 s is 3 KB/s: over a slower uplink no batch is in time."""

_DEFAULT_PORTS: Mapping[bool, int] = {True: 443, False: 80}


@dataclass(frozen=True, slots=True)
class UplinkMeasured:
    """The measurement of an answered probe."""

    rtt_s: float
    sent_bytes: int
    transfer_s: float | None
    """Transfer time of the body without the round trip; None if the answer came before the body was read."""


async def probe_uplink(*, host: str, tls: bool, clock: Clock) -> UplinkMeasured | None:
    """Returns what a probe measured; None if there was no answer within PROBE_LIMIT_S.

    Args:
        host: HOST or HOST:PORT.
        tls: whether the endpoint speaks TLS.
        clock: monotonic seconds.
    """
    name, _, port = host.partition(":")
    try:
        return await asyncio.wait_for(
            _probe(name, int(port) if port else _DEFAULT_PORTS[tls], tls, clock), PROBE_LIMIT_S
        )
    except (OSError, asyncio.TimeoutError, asyncio.LimitOverrunError, ValueError):
        return None


async def _probe(name: str, port: int, tls: bool, clock: Clock) -> UplinkMeasured:
    context = await asyncio.get_running_loop().run_in_executor(None, _tls_context) if tls else None
    asked_at_s = clock()
    reader, writer = await asyncio.open_connection(name, port, ssl=context)
    connected_s = clock() - asked_at_s
    try:
        sock = writer.get_extra_info("socket")
        rtt_s = smoothed_rtt_s(sock) or connected_s
        return UplinkMeasured(rtt_s, PROBE_BYTES, await _transfer_s(reader, writer, name, rtt_s=rtt_s, clock=clock))
    finally:
        writer.close()


async def _transfer_s(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str, *, rtt_s: float, clock: Clock
) -> float | None:
    """Returns the transfer time of the body, seconds; None if it is unknown although the server answers."""
    sent_at_s = clock()
    writer.write(_request(name))
    try:
        status_line = await reader.readuntil(b"\r\n")
    except (ConnectionError, asyncio.IncompleteReadError):
        # A server that does not read unwanted bodies may refuse the request by closing the connection.
        return None
    if not status_line.startswith(b"HTTP/1."):
        raise ValueError("not an HTTP server")
    transfer_s = clock() - sent_at_s - rtt_s
    answered_early = _unsent_bytes(writer.get_extra_info("socket")) > 0 or writer.transport.get_write_buffer_size() > 0
    return transfer_s if transfer_s > 0 and not answered_early else None


def _request(name: str) -> bytes:
    # An unsigned invocation of a function that does not exist. The body is never parsed; it compresses badly, so that a
    # proxy on the path does not change the measurement.
    head = (
        "POST /2023-03-30/functions/edgeburst-uplink-probe/invocations HTTP/1.1\r\n"
        f"Host: {name}\r\nContent-Type: application/octet-stream\r\nConnection: close\r\n"
        f"Content-Length: {PROBE_BYTES}\r\n\r\n"
    )
    pattern = bytes((index * index + (index >> 3)) & 0xFF for index in range(1024))
    return head.encode() + pattern * (PROBE_BYTES // len(pattern))


@cache
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()


def _unsent_bytes(sock: Any) -> int:
    """Returns the bytes in the kernel's send queue without acknowledgement (SIOCOUTQ); 0 on systems without it."""
    if not sys.platform.startswith("linux"):
        return 0
    buffer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
    unsent: int = struct.unpack("i", buffer)[0]
    return unsent
