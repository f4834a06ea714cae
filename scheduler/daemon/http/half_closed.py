"""Clients that have closed their side: some wait for their answer, others have gone, and both look alike."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any

LOOK_AFTER_S = 0.2
"""How long an answer has until it is asked whether its client is still there; most take less."""
LOOK_EVERY_S = 0.05
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""An interim response, which clients skip (RFC 9110, 15.2). The host of one that has gone answers by a reset."""
_TCP_CLOSE = 7
"""State of a connection that was reset (net/tcp_states.h)."""


class HalfClosed:
    """Looks whether the client of a half-closed connection is still there, until it is told to stop."""

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        *,
        may_ask: Callable[[], bool],
        all_answered: Callable[[], bool],
        end: Callable[[], object],
    ) -> None:
        """Begins to look.

        Args:
            transport: of the connection.
            loop: the loop.
            may_ask: returns whether an interim response may be written: not within an answer, nor in HTTP/1.0.
            all_answered: returns whether there is nothing left to answer.
            end: is called once, when there is nothing left to answer, or the client is not there.
        """
        self._transport = transport
        self._loop = loop
        self._may_ask = may_ask
        self._all_answered = all_answered
        self._end = end
        self._asked = False
        self._timer = loop.call_later(LOOK_AFTER_S, self._look)

    def stop(self) -> None:
        """Looks no more."""
        self._timer.cancel()

    def _look(self) -> None:
        if self._all_answered() or is_reset(self._transport.get_extra_info("socket")):
            self._end()
            return
        if not self._asked and self._may_ask():
            self._asked = True
            self._transport.write(_CONTINUE)
        self._timer = self._loop.call_later(LOOK_EVERY_S, self._look)


def is_reset(connected: Any) -> bool:
    """Returns whether the other end of a TCP connection has reset it; False where the system does not tell.

    A socket that is closed here, as under a loop that is late, has no descriptor any more: there is no other end.
    """
    if connected is None or not sys.platform.startswith("linux"):
        return False
    if connected.fileno() < 0:
        return True
    try:
        return bool(connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE)
    except OSError:
        return False
