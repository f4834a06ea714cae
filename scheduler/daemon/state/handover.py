"""How a daemon passes its listening sockets, with the lock of the state folder, to the one that follows it.

The successor connects to a Unix socket in the folder and waits. When the daemon has answered what it accepted and has
written its state, it sends the descriptors (SCM_RIGHTS). Connections that clients open meanwhile wait in the sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NAME = "handover"
_MESSAGE_BYTES = 4096
_MOST_DESCRIPTORS = 32

Named = Sequence[tuple[str, socket.socket]]
"""Listening sockets, with the protocol that each is for."""


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What a daemon gets from the one before it."""

    lock: int
    """Descriptor of the locked file."""
    sockets: Named


class Bequest:
    """The side of the daemon that ends."""

    def __init__(self, folder: Path) -> None:
        """Listens in a folder whose lock is held, where that is possible; opens nothing else."""
        self.claimed = asyncio.Event()
        """Set while a successor waits."""
        self._path = folder / NAME
        self._heir: socket.socket | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        try:
            # Of a daemon that was killed.
            self._path.unlink(missing_ok=True)
            self._listener.bind(str(self._path))
            self._path.chmod(0o600)
            self._listener.listen(1)
        except OSError:
            # The path is too long or the disk is full: a successor waits for the lock alone.
            self._listener.close()

    async def run(self) -> None:
        """Waits for a successor; another one takes the place of one that has gone."""
        loop = asyncio.get_running_loop()
        while self._listener.fileno() >= 0:
            heir, _ = await loop.sock_accept(self._listener)
            heir.setblocking(False)
            self._heir = heir
            self.claimed.set()
            with contextlib.suppress(OSError):
                # It sends nothing, so that this ends when it is gone.
                await loop.sock_recv(heir, 1)
            self.claimed.clear()
            self._heir = None
            heir.close()

    def give(self, lock: int, sockets: Named) -> bool:
        """Sends the descriptors; returns whether there was a successor to take them."""
        if self._heir is None:
            return False
        # Before the lock is given: afterwards the name is the successor's.
        self._withdraw()
        message = json.dumps({"sockets": [name for name, _ in sockets]}).encode()
        try:
            socket.send_fds(self._heir, [message], [lock, *(each.fileno() for _, each in sockets)])
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Ends it."""
        self._withdraw()
        if self._heir is not None:
            self._heir.close()
            self._heir = None

    def _withdraw(self) -> None:
        if self._listener.fileno() >= 0:
            self._listener.close()
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)


class Heir:
    """The side of the daemon that follows; it blocks, before there is a loop."""

    def __init__(self, folder: Path) -> None:
        """Stores the folder; connects when asked."""
        self._path = folder / NAME
        self._connection: socket.socket | None = None

    def wait(self, limit_s: float) -> Inheritance | None:
        """Waits for the descriptors for a while; None: they have not come."""
        if self._connection is None and not self._connected():
            return None
        assert self._connection is not None
        self._connection.settimeout(limit_s)
        try:
            message, descriptors, _, _ = socket.recv_fds(self._connection, _MESSAGE_BYTES, _MOST_DESCRIPTORS)
        except TimeoutError:
            return None
        except OSError:
            message, descriptors = b"", []
        if not descriptors:
            # The daemon has gone without a will; its lock is free then.
            self.close()
            return None
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        lock, *rest = descriptors
        names = json.loads(message)["sockets"]
        sockets = [(name, socket.socket(fileno=each)) for name, each in zip(names, rest, strict=True)]
        return Inheritance(lock, sockets)

    def close(self) -> None:
        """Stops waiting."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> bool:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(self._path))
        except OSError:
            connection.close()
            return False
        self._connection = connection
        return True
