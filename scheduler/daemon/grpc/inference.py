"""ModelInfer and ModelStreamInfer: from a message to a call of the inference service, and from its answer back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from scheduler.daemon.calls import Answer, InferenceCall
from scheduler.daemon.grpc.calls import Context, MessageReader, told
from scheduler.daemon.grpc.conversion import (
    ModelRequest,
    parse_request,
    response_message,
    streamed_error,
    streamed_message,
)
from scheduler.daemon.grpc.statuses import code_of, metadata_of
from scheduler.daemon.ingress.access import Caller
from scheduler.daemon.ingress.answers import infer_response
from scheduler.daemon.ingress.checks import CLASS_HEADER, TENANT_HEADER, infer_call, known_card
from scheduler.daemon.ingress.errors import REQUEST_HEADER
from scheduler.daemon.ingress.service import InferenceService
from scheduler.domain.errors import EdgeburstError
from scheduler.wire import InferResponse, WireError
from scheduler.wire.trace_context import PARENT_HEADER, STATE_HEADER, trace_of

STREAM_REQUESTS = 256
"""Most requests of one stream that are not answered; the next is read when one is."""

_LEAST_S = 1e-6
Encode = Callable[[InferResponse, ModelRequest], bytes]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What is written for a request, and what is counted then; an error has been counted already."""

    message: bytes
    call: InferenceCall | None = None
    answer: Answer | None = None
    latency_s: float = 0.0


class InferenceCalls:
    """The handlers of both calls."""

    def __init__(self, service: InferenceService, reader: MessageReader) -> None:
        """Stores what answers requests, and what reads messages."""
        self._service = service
        self._reader = reader

    async def infer(self, context: Context, caller: Caller) -> None:
        """ModelInfer: one request, one answer.

        Raises:
            EdgeburstError, WireError: there is no answer.
        """
        message = await self._reader.only(context, caller.key)
        received_at_s = self._service.now()
        outcome = await self._outcome(parse_request(message), context, caller, received_at_s, response_message)
        assert outcome.answer is not None
        context.set_trailing_metadata(metadata_of({REQUEST_HEADER: str(outcome.answer.request_id)}))
        await self._write(outcome, context)

    async def stream(self, context: Context, caller: Caller) -> None:
        """ModelStreamInfer: requests are served at the same time and answered in their order, each by one message."""
        loop, room = asyncio.get_running_loop(), asyncio.Semaphore(STREAM_REQUESTS)
        unanswered: set[asyncio.Task[None]] = set()
        latest: asyncio.Task[None] | None = None
        stream = asyncio.current_task()
        assert stream is not None

        def ended(task: asyncio.Task[None]) -> None:
            unanswered.discard(task)
            room.release()
            if not task.cancelled() and task.exception() is not None:
                stream.cancel()  # its answer could not be written, so the client has gone

        try:
            while True:
                await room.acquire()
                message = await self._next(context, first=latest is None)
                if message is None:
                    break
                latest = loop.create_task(self._in_turn(message, context, caller, latest), name="grpc-stream")
                unanswered.add(latest)
                latest.add_done_callback(ended)
            await asyncio.gather(*unanswered)
        finally:
            left = list(unanswered)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _next(self, context: Context, *, first: bool) -> bytes | Exception | None:
        """Returns the next message of a stream or what is wrong with it; None at the stream's end."""
        try:
            return await self._reader.next(context, answer_alike=first)
        except (EdgeburstError, WireError) as error:
            return error

    async def _in_turn(
        self, message: bytes | Exception, context: Context, caller: Caller, before: asyncio.Task[None] | None
    ) -> None:
        """Serves a request of a stream, and writes its answer when the one before it is written."""
        await self._write(await self._streamed(message, context, caller), context, before)

    async def _streamed(self, message: bytes | Exception, context: Context, caller: Caller) -> _Outcome:
        asked, received_at_s = None, self._service.now()
        try:
            if isinstance(message, Exception):
                raise message
            asked = parse_request(message)
            with self._service.access.turn(caller):
                return await self._outcome(asked, context, caller, received_at_s, streamed_message)
        except Exception as error:  # noqa: BLE001 - the client gets a sentence, the log the traceback
            refusal = told(error, "ModelStreamInfer")
            self._service.telemetry.grpc_error(code_of(refusal).name)
            return _Outcome(streamed_error(refusal.message, asked))

    async def _outcome(
        self, asked: ModelRequest, context: Context, caller: Caller, received_at_s: float, encode: Encode
    ) -> _Outcome:
        service = self._service
        card = known_card(service.cards, asked.model, asked.version)
        given = _texts(context)
        call = infer_call(
            card,
            asked.request,
            {name: given[name.lower()][-1] for name in (CLASS_HEADER, TENANT_HEADER) if name.lower() in given},
            client=caller.key,
            received_at_s=received_at_s,
            max_timeout_s=service.config.daemon.max_timeout_s,
        )
        call = _within(call, context.time_remaining(), allowed_s=service.slo_s(call))
        if PARENT_HEADER in given:
            call = replace(call, trace=trace_of(given[PARENT_HEADER], given.get(STATE_HEADER, ())))
        call = service.access.of_caller(caller, call)
        answer = await service.answer(call)
        latency_s = service.now() - received_at_s
        with service.delivery(call):
            message = encode(infer_response(card, asked.request, answer), asked)
        return _Outcome(message, call, answer, latency_s)

    async def _write(self, outcome: _Outcome, context: Context, before: asyncio.Task[None] | None = None) -> None:
        """Writes a message, after that of another task, and counts it."""
        try:
            if before is not None:
                await asyncio.wait((before,))
            await context.write(outcome.message)
        except BaseException:
            # The client has gone before its answer was written.
            if outcome.call is not None:
                self._service.lost(outcome.call)
            raise
        if outcome.call is not None and outcome.answer is not None:
            self._service.delivered(outcome.call, outcome.answer, latency_s=outcome.latency_s)


def _texts(context: Context) -> dict[str, list[str]]:
    """Returns a call's metadata by name, in small letters: every value that is text, in order."""
    found: dict[str, list[str]] = {}
    for name, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            found.setdefault(name, []).append(value)
    return found


def _within(call: InferenceCall, left_s: float | None, *, allowed_s: float) -> InferenceCall:
    """Returns the call with the deadline of the RPC where that is earlier than its own."""
    if left_s is None or left_s >= allowed_s:
        return call
    return replace(call, timeout_s=max(left_s, _LEAST_S))
