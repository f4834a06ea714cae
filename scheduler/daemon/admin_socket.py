"""The daemon's own Unix socket, over which operators may do everything: its file's mode is the check."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from scheduler.daemon.config.config import Config
from scheduler.domain.errors import EdgeburstError

NAME = "admin.sock"
OFF = "off"
RUNTIME = "RUNTIME_DIRECTORY"
"""The variable in which systemd names the folder of RuntimeDirectory=."""
SYSTEMD_PLACE = Path("/run/edgeburst") / NAME
"""Where it is under the shipped unit."""
ASK_LIMIT_S = 10.0
MOST_BYTES = 107
"""Longest path of a Unix socket (unix(7))."""


def socket_path(config: Config, environ: Mapping[str, str]) -> Path | None:
    """Returns where the daemon's socket is: as configured, else in systemd's folder, else in the state folder.

    Returns:
        The path; None where there is no socket.
    """
    configured = config.daemon.admin_socket
    if configured == OFF:
        return None
    if configured:
        return config.path.parent / configured
    runtime = environ.get(RUNTIME, "").partition(":")[0]
    folder = Path(runtime) if runtime else config.state_folder()
    return None if folder is None else folder / NAME


def places(config: Config, environ: Mapping[str, str]) -> Iterator[Path]:
    """Yields where the socket of a daemon with this configuration may be, as commands on its host look for it."""
    path = socket_path(config, environ)
    if path is not None:
        yield path
        if not config.daemon.admin_socket:
            yield SYSTEMD_PLACE


class NoSocket(EdgeburstError):
    """Error: no daemon can be asked over that socket."""


class _Connection(http.client.HTTPConnection):
    """A connection over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ASK_LIMIT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(path: Path, target: str, *, put: bytes | None = None) -> tuple[int, bytes]:
    """Returns status and body of a GET over a daemon's socket, or of a PUT of a body.

    Raises:
        NoSocket: there is none, or no daemon listens, or this user may not connect.
        EdgeburstError: it does not answer.
    """
    with contextlib.closing(_Connection(path)) as connection:
        try:
            connection.connect()
        except OSError as error:
            why = error.strerror or error
            raise NoSocket(f"cannot ask over the socket {path} ({why}); start the daemon, or ask as its user") from None
        try:
            connection.request("GET" if put is None else "PUT", target, put)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise EdgeburstError(
                f"the daemon does not answer over the socket {path} ({type(error).__name__})"
            ) from None


class AdminSocket:
    """The file of a socket that is served here."""

    def __init__(self, path: Path) -> None:
        """Stores the path."""
        self.path = path
        self._inode: int | None = None

    def opened(self) -> None:
        """Lets only the daemon's user connect; called right after it was made, under a umask that says the same."""
        self.path.chmod(0o600)
        self._inode = self.path.stat().st_ino

    def close(self) -> None:
        """Removes the file, unless another daemon has put its own there."""
        with contextlib.suppress(OSError):
            if self._inode is not None and os.stat(self.path, follow_symlinks=False).st_ino == self._inode:
                self.path.unlink()
        self._inode = None
