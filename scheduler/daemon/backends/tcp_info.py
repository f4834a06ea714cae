"""The kernel's measurements of a TCP connection."""

import socket
import struct
import sys
from typing import Any

# struct tcp_info of linux/tcp.h: 8 bytes of flags, then 32-bit fields; tcpi_rtt is the 16th of them, in microseconds.
_RTT_OFFSET = 8 + 15 * 4
_RTT = struct.Struct("=I")


def smoothed_rtt_s(sock: Any) -> float | None:
    """Returns the kernel's smoothed round-trip time in seconds; None if there is none, or outside Linux.

    Args:
        sock: a connected TCP socket, or the substitute that asyncio and uvloop return.

    References:
        tcp(7), TCP_INFO.
    """
    if not sys.platform.startswith("linux") or sock is None:
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT_OFFSET + _RTT.size)
    except OSError:
        return None
    if len(info) < _RTT_OFFSET + _RTT.size:
        return None
    rtt_us: int = _RTT.unpack_from(info, _RTT_OFFSET)[0]
    return rtt_us / 1e6 if rtt_us > 0 else None
