"""Tell systemd how the service is: its notification protocol, one datagram a state (sd_notify(3))."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

_log = logging.getLogger(__name__)


def notify(state: str, *, environ: Mapping[str, str] = os.environ) -> None:
    """Send a state such as "READY=1"; does nothing where systemd does not listen.

    Parameters:
        state: newline-separated assignments.
        environ: where NOTIFY_SOCKET names the socket; a leading "@" means the abstract namespace.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)  # a receiver that does not read must not hold us up
            sender.sendto(state.encode(), address)
    except OSError as error:
        _log.warning("NOTIFY_SOCKET %r cannot be told %s: %s", address, state, error)


def watchdog_s(*, environ: Mapping[str, str] = os.environ, pid: int) -> float | None:
    """Return the seconds of silence after which systemd kills this process, None if it does not watch it."""
    period_us = environ.get("WATCHDOG_USEC", "")
    if not period_us.isdigit() or environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(period_us) / 1e6
