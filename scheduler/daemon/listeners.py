"""The sockets that the daemon listens on: systemd's, those of the daemon before it, or its own."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterable, MutableMapping, Sequence

from scheduler.daemon.config.config import Config
from scheduler.daemon.config.contradictions import is_loopback
from scheduler.daemon.logs import log
from scheduler.domain.errors import EdgeburstError
from scheduler.systemd import passed_sockets

HTTP = "http"
GRPC = "grpc"
READ = "read"
BACKLOG = 1024
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class Listeners:
    """Listening sockets by protocol."""

    def __init__(self, passed: Iterable[tuple[str, socket.socket]] = (), *, systemd: bool = False) -> None:
        """Stores sockets that were passed.

        Args:
            passed: each with the name of its protocol.
            systemd: whether systemd keeps them open when this process ends.
        """
        self.systemd = systemd
        self._sockets = list(passed)

    @classmethod
    def from_systemd(cls, environ: MutableMapping[str, str]) -> Listeners:
        """Takes the sockets that systemd passes; one with `grpc` or `read` in its name is for gRPC or read-outs.

        Raises:
            EdgeburstError: one of them is no listening TCP socket.
        """
        kinds = (GRPC, READ)
        passed = [
            (next((kind for kind in kinds if kind in name), HTTP), each) for name, each in passed_sockets(environ)
        ]
        for _, each in passed:
            tcp = each.family in (socket.AF_INET, socket.AF_INET6) and each.type == socket.SOCK_STREAM
            if not tcp or not each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise EdgeburstError(
                    "systemd passes a socket that does not listen for TCP; name an address and a port in ListenStream"
                    " of edgeburst.socket, and leave out Accept"
                )
        return cls(passed, systemd=bool(passed))

    def inherit(self, passed: Sequence[tuple[str, socket.socket]], addresses: dict[str, tuple[str, int]]) -> None:
        """Takes the sockets of the daemon before this one, where they are at the configured addresses.

        Args:
            passed: its sockets.
            addresses: host and port by protocol; port 0: any.
        """
        for name, each in passed:
            wanted = addresses.get(name)
            if self.systemd or wanted is None or not _is_at(each, *wanted):
                each.close()
            else:
                self._sockets.append((name, each))

    def take(self, name: str, host: str, port: int, *, opens: bool = True) -> Sequence[socket.socket]:
        """Returns copies of a protocol's sockets to accept on; where none was passed, opens them if that is wanted.

        Raises:
            OSError: the address cannot be listened on.
        """
        if not self.of(name):
            if opens:
                self._sockets += [(name, each) for each in _opened(host, port)]
        else:
            at = ",".join("{}:{}".format(*each.getsockname()[:2]) for each in self.of(name))
            log(logging.INFO, "listeners_passed", protocol=name, by="systemd" if self.systemd else "predecessor", at=at)
        return self.copies(name)

    def of(self, name: str) -> Sequence[socket.socket]:
        """Returns the sockets of a protocol."""
        return [each for known, each in self._sockets if known == name]

    def copies(self, name: str) -> Sequence[socket.socket]:
        """Returns further copies of a protocol's sockets to accept on."""
        return [each.dup() for each in self.of(name)]

    def beyond_loopback(self) -> Sequence[str]:
        """Returns the addresses among all that other hosts reach."""
        addresses = ["{}:{}".format(*each.getsockname()[:2]) for _, each in self._sockets]
        return [at for at in addresses if not is_loopback(at.rpartition(":")[0])]

    @property
    def all(self) -> Sequence[tuple[str, socket.socket]]:
        """All sockets, each with its protocol."""
        return tuple(self._sockets)

    def close(self) -> None:
        """Closes this process's descriptors."""
        for _, each in self._sockets:
            each.close()
        self._sockets.clear()


def _opened(host: str, port: int) -> list[socket.socket]:
    """Returns a listening socket for each address of a host."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    opened: list[socket.socket] = []
    missing: OSError | None = None
    for family, kind, protocol, _, address in dict.fromkeys(found):
        each = socket.socket(family, kind, protocol)
        try:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            each.bind(address)
            each.listen(BACKLOG)
        except OSError as error:
            each.close()
            if error.errno not in _ABSENT:
                for other in opened:
                    other.close()
                raise
            missing = error
        else:
            opened.append(each)
    if not opened:
        raise missing or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    return opened


def _is_at(each: socket.socket, host: str, port: int) -> bool:
    at, its_port = each.getsockname()[:2]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return port in (0, its_port) and at in {info[4][0] for info in found}


def addresses_of(config: Config) -> dict[str, tuple[str, int]]:
    """Returns where the daemon listens, by protocol."""
    addresses = {HTTP: (config.daemon.host, config.daemon.port)}
    if config.daemon.read_address is not None:
        addresses[READ] = config.daemon.read_address
    return addresses if config.grpc is None else {**addresses, GRPC: (config.grpc.host, config.grpc.port)}
