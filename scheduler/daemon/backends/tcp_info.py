"""The kernel's measurements of a TCP connection."""

import socket
import struct
import sys
from typing import Any, NamedTuple

# struct tcp_info of linux/tcp.h: 8 bytes of flags, then 32-bit fields; tcpi_rtt is the 16th of them, in microseconds.
_RTT_OFFSET = 8 + 15 * 4
_RTT = struct.Struct("=I")
_BACKOFF_OFFSET = 4
_UNACKED_OFFSET = 8 + 4 * 4
_BYTES_ACKED_OFFSET = 8 + 24 * 4 + 2 * 8
_NOT_SENT_OFFSET = _BYTES_ACKED_OFFSET + 2 * 8 + 2 * 4
_U32, _U64 = struct.Struct("=I"), struct.Struct("=Q")
_SENT_END = _NOT_SENT_OFFSET + _U32.size


_GIVEN_UP = 3
"""Timeouts in a row, each twice as long, after which a connection is not believed to try. Judgement: the third comes
1.4 s after the loss at the earliest, when the loss is known."""


class Sent(NamedTuple):
    """What a connection has sent."""

    acknowledged_bytes: int
    """Since it was opened."""
    under_way: bool
    """Whether more is to be acknowledged, sent already or not, and is being sent: one that has timed out several times
    waits for its next try, and says nothing about the network meanwhile."""


def sent(sock: Any) -> Sent | None:
    """Returns what the peer of a connection has acknowledged; None if it is closed, or outside Linux 4.6 and later.

    Args:
        sock: a TCP socket; another thread may use it.
    """
    info = _info(sock, _SENT_END)
    if info is None:
        return None
    (unacknowledged,) = _U32.unpack_from(info, _UNACKED_OFFSET)
    (acknowledged_bytes,) = _U64.unpack_from(info, _BYTES_ACKED_OFFSET)
    (not_sent_bytes,) = _U32.unpack_from(info, _NOT_SENT_OFFSET)
    trying = info[_BACKOFF_OFFSET] < _GIVEN_UP
    return Sent(acknowledged_bytes, trying and (unacknowledged > 0 or not_sent_bytes > 0))


def smoothed_rtt_s(sock: Any) -> float | None:
    """Returns the kernel's smoothed round-trip time in seconds; None if there is none, or outside Linux.

    Args:
        sock: a connected TCP socket, or the substitute that asyncio and uvloop return.

    References:
        tcp(7), TCP_INFO.
    """
    info = _info(sock, _RTT_OFFSET + _RTT.size)
    if info is None:
        return None
    rtt_us: int = _RTT.unpack_from(info, _RTT_OFFSET)[0]
    return rtt_us / 1e6 if rtt_us > 0 else None


def _info(sock: Any, size: int) -> bytes | None:
    """Returns the first bytes of the kernel's struct; None where there are not so many."""
    if not sys.platform.startswith("linux") or sock is None:
        return None
    try:
        info: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)
    except OSError:
        return None
    return info if len(info) >= size else None
