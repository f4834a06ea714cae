"""Tells systemd how the daemon is: its notification protocol, one datagram a state (sd_notify(3))."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.daemon.logs import log


@dataclass(frozen=True, slots=True)
class Notifier:
    """Where states are sent, and how often systemd wants to hear that the daemon lives."""

    address: str = ""
    """Path of the datagram socket, `@` in front for the abstract namespace; empty: nobody listens."""
    watchdog_s: float | None = None
    """Seconds of silence after which systemd kills the daemon; None: it does not."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Notifier":
        """Returns what NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID say."""
        period_us = environ.get("WATCHDOG_USEC", "")
        watched = period_us.isdecimal() and environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        return cls(environ.get("NOTIFY_SOCKET", ""), int(period_us) / 1e6 if watched and int(period_us) else None)

    def send(self, *assignments: str) -> None:
        """Sends assignments such as `READY=1` in one datagram; a socket that is gone is a warning and no failure."""
        if not self.address:
            return
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(assignments).encode(), address)
        except OSError as error:
            log(logging.WARNING, "notify_failed", socket=self.address, state=assignments[0], message=str(error))

    def reloading(self) -> None:
        """Says that the configuration is being read again; systemd wants the time with it."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def keep_alive(self, loop: asyncio.AbstractEventLoop) -> None:
        """Pings the watchdog from the event loop for ever: a loop that hangs is not pinged for."""
        if self.watchdog_s is None:
            return
        self.send("WATCHDOG=1")
        loop.call_later(self.watchdog_s / 2, self.keep_alive, loop)
