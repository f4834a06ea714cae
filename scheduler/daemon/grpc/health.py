"""gRPC's own health checking, as balancers and Kubernetes ask: the daemon's readiness."""

from __future__ import annotations

import asyncio

from scheduler.daemon.grpc.calls import Context, MessageReader, Work
from scheduler.daemon.grpc.conversion import parsed
from scheduler.daemon.grpc.messages import HEALTH, INFERENCE, HealthCheckRequest, HealthCheckResponse
from scheduler.daemon.ingress.access import Caller
from scheduler.daemon.ingress.errors import Rejected
from scheduler.daemon.ingress.service import InferenceService

WATCH_INTERVAL_S = 1.0
"""How often a watch looks for a change."""

_SERVICES = ("", INFERENCE, HEALTH)
_STATUS = HealthCheckResponse.DESCRIPTOR.enum_types_by_name["ServingStatus"].values_by_name


class HealthCalls:
    """The handlers of Check and Watch."""

    def __init__(self, service: InferenceService, reader: MessageReader) -> None:
        """Stores what knows whether the daemon is ready, and what reads messages."""
        self._service = service
        self._reader = reader

    def works(self) -> dict[str, Work]:
        """Returns what is done for each call, by its name."""
        return {"Check": self._check, "Watch": self._watch}

    async def _check(self, context: Context, _: Caller) -> None:
        asked = await self._asked(context)
        if asked not in _SERVICES:
            raise Rejected(404, f"service {asked[:64]!r} is unknown; ask for {INFERENCE}, or for none")
        await context.write(_response("NOT_SERVING" if self._service.not_ready() else "SERVING"))

    async def _watch(self, context: Context, _: Caller) -> None:
        """Writes the status now and whenever it has changed; ends when the daemon stops."""
        known, written = await self._asked(context) in _SERVICES, ""
        while True:
            stopping = self._service.draining
            status = ("NOT_SERVING" if self._service.not_ready() else "SERVING") if known else "SERVICE_UNKNOWN"
            if status != written:
                await context.write(_response(status))
                written = status
            if stopping:
                return
            await asyncio.sleep(WATCH_INTERVAL_S)

    async def _asked(self, context: Context) -> str:
        message = await self._reader.next(context)
        return str(parsed(HealthCheckRequest, message or b"").service)


def _response(status: str) -> bytes:
    message: bytes = HealthCheckResponse(status=_STATUS[status].number).SerializeToString()
    return message
