"""systemd's protocols: a datagram for each state (sd_notify(3)), passed sockets (sd_listen_fds(3)), credentials."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""The variable in which systemd names the folder of LoadCredential=."""
_MAX_BYTES = 65536
FIRST_DESCRIPTOR = 3
"""Of the passed sockets; the others follow it."""


def credential(name: str, environ: Mapping[str, str]) -> str:
    """Returns systemd's credential of a name, without white space around it; empty where there is none.

    >>> credential("TOKEN", {})
    ''
    """
    folder = environ.get(CREDENTIALS, "")
    if not name or not folder:
        return ""
    try:
        with (Path(folder) / name).open(encoding="utf-8-sig") as file:
            return file.read(_MAX_BYTES).strip()
    except (OSError, ValueError):
        return ""


def _ignore(_: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Notifier:
    """A sender of a service's states to systemd."""

    address: str = ""
    """Path of the datagram socket, with `@` in front for the abstract namespace; empty: systemd does not listen."""
    watchdog_s: float | None = None
    """Seconds without a ping after which systemd kills the process; None: it does not."""
    warn: Callable[[str], object] = _ignore
    """Takes one sentence when a state cannot be sent."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *, warn: Callable[[str], object] = _ignore) -> Notifier:
        """Returns a notifier as NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID describe it."""
        period_us = environ.get("WATCHDOG_USEC", "")
        watched = period_us.isdecimal() and environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watchdog_s = int(period_us) / 1e6 if watched and int(period_us) else None
        return cls(environ.get("NOTIFY_SOCKET", ""), watchdog_s, warn)

    def send(self, *assignments: str) -> None:
        """Sends assignments such as `READY=1` in one datagram; does nothing where systemd does not listen.

        A socket that is gone or full is a warning and no failure: the service works without its supervisor.
        """
        if not self.address:
            return
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                # A receiver that does not read must not block the service.
                sender.setblocking(False)
                sender.sendto("\n".join(assignments).encode(), address)
        except OSError as error:
            self.warn(f"cannot send {assignments[0][:64]} to NOTIFY_SOCKET {self.address}: {error}")

    def reloading(self) -> None:
        """Sends that the configuration is being read again, with the time, which systemd requires."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def passed_sockets(environ: MutableMapping[str, str]) -> list[tuple[str, socket.socket]]:
    """Takes the sockets that systemd passes to this process, with the name of each (FileDescriptorName).

    Removes the variables that announce them, so that children do not take them for theirs.
    """
    count, pid = environ.get("LISTEN_FDS", ""), environ.get("LISTEN_PID", "")
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    if not count.isdecimal() or pid != str(os.getpid()):
        return []
    for variable in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        environ.pop(variable, None)
    passed = []
    for index in range(int(count)):
        os.set_inheritable(FIRST_DESCRIPTOR + index, False)
        name = names[index] if index < len(names) else ""
        passed.append((name, socket.socket(fileno=FIRST_DESCRIPTOR + index)))
    return passed
