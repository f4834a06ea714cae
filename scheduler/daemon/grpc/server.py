"""The gRPC server: its address, its options, its calls."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from grpc import aio

from scheduler.daemon.config.sections import GrpcSection
from scheduler.daemon.grpc.access import address_of, admission
from scheduler.daemon.grpc.calls import Context, MessageReader, Work, handler
from scheduler.daemon.grpc.health import HealthCalls
from scheduler.daemon.grpc.inference import InferenceCalls
from scheduler.daemon.grpc.messages import HEALTH, INFERENCE
from scheduler.daemon.grpc.models import ModelCalls
from scheduler.daemon.grpc.open_calls import OpenCalls
from scheduler.daemon.grpc.relay import Relay
from scheduler.daemon.ingress.service import InferenceService
from scheduler.daemon.listeners import BACKLOG
from scheduler.domain.errors import EdgeburstError

_MAX_MESSAGE_BYTES = 2**31 - 1


class GrpcServer:
    """Serves an inference service on the running event loop."""

    def __init__(self, service: InferenceService, section: GrpcSection) -> None:
        """Stores its parts; it does not listen yet."""
        self._service = service
        self._section = section
        self._server: Any = None
        self._reader = MessageReader(service.bodies)
        self._calls = OpenCalls(self._most_calls)
        self._relay: Relay | None = None

    async def start(self, passed: Sequence[socket.socket] = (), tls: ssl.SSLContext | None = None) -> int:
        """Listens; returns the port.

        Args:
            passed: listening sockets; none: the server opens its own.
            tls: what connections to these are encrypted with; None: they are not.

        Raises:
            EdgeburstError: the address cannot be listened on.
        """
        # The library writes warnings of its own to stderr, which is the daemon's log.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        # The limit of open calls is that of `OpenCalls`; this one adds those whose clients do not take their status.
        server = aio.server(options=self._options(), maximum_concurrent_rpcs=3 * self._most_calls())
        for name, works in self._works().items():
            handlers = {method: self._handler(method, work) for method, work in works.items()}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        if passed:
            self._relay, port = Relay(), int(passed[0].getsockname()[1])
            server.add_insecure_port(self._relay.target)
        else:
            port = self._bound(server)
        await server.start()
        self._server = server
        if self._relay is not None:
            await self._relay.start(passed, BACKLOG, tls)
        return port

    async def renew(self, passed: Sequence[socket.socket], tls: ssl.SSLContext) -> None:
        """Accepts on these sockets from now on, with other certificates."""
        if self._relay is not None:
            await self._relay.start(passed, BACKLOG, tls)

    def leave(self) -> None:
        """Leaves clients to the process that has the passed sockets next, once their calls are answered."""
        if self._relay is not None:
            self._relay.leave()

    async def stop(self, limit_s: float) -> None:
        """Accepts no more calls, and ends those that have not ended within `limit_s`."""
        if self._server is not None:
            await self._server.stop(limit_s)
        if self._relay is not None:
            await self._relay.close()
        self._reader.close()

    @property
    def open_calls(self) -> int:
        """Number of calls and streams that are open, those that only end left out."""
        return self._calls.count

    def _handler(self, method: str, work: Work) -> Any:
        admit = admission(method, self._service.access, self._peer, self._calls)
        return handler(method, self._service.telemetry, work, admit)

    def _peer(self, context: Context) -> str:
        """Returns the address of a call's peer.

        Raises:
            Rejected: it is none of the connections that came over the network, but one of this host past the listener.
        """
        peer = str(context.peer())
        return address_of(peer) if self._relay is None else self._relay.peer(peer)

    def _works(self) -> Mapping[str, Mapping[str, Work]]:
        """Returns what is done for each call, by service and name."""
        reader = self._reader
        inference = InferenceCalls(self._service, reader)
        infer: dict[str, Work] = {"ModelInfer": inference.infer, "ModelStreamInfer": inference.stream}
        return {
            INFERENCE: infer | ModelCalls(self._service, reader).works(),
            HEALTH: HealthCalls(self._service, reader).works(),
        }

    def _bound(self, server: Any) -> int:
        host, port = self._section.host, self._section.port
        at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            bound = int(server.add_insecure_port(at))
        except RuntimeError:
            bound = 0
        if bound == 0:
            raise EdgeburstError(
                f"cannot listen for gRPC on {at}; stop the program that listens there, or correct grpc.host and"
                " grpc.port (0: a free port)"
            )
        return bound

    def _options(self) -> list[tuple[str, int]]:
        limit_bytes = self._service.config.daemon.body_limit_bytes
        return [
            # Another daemon on the same port would share its connections unnoticed.
            ("grpc.so_reuseport", 0),
            # The limit of a message is checked by `MessageReader`, whose sentence says what to do; this one protects
            # memory from messages that are far larger.
            ("grpc.max_receive_message_length", min(2 * limit_bytes, _MAX_MESSAGE_BYTES)),
            ("grpc.max_send_message_length", -1),
            ("grpc.per_message_decompression", 0),
            # Clients that keep idle connections alive are welcome to.
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5000),
        ]

    def _most_calls(self) -> int:
        """Returns how many calls may be open: those that may wait, and as many whose messages arrive."""
        return 2 * self._service.config.engine.queue_max_requests
