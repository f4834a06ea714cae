"""Inference over HTTP, from a whole body to its counted answer, whichever server of HTTP has read it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from scheduler.daemon.calls import Answer, InferenceCall
from scheduler.daemon.http import classify, infer
from scheduler.daemon.http.classify import Question
from scheduler.daemon.http.compression import LEAST_BYTES, pack
from scheduler.daemon.http.picture_body import picture_of
from scheduler.daemon.http.rendered import Rendered
from scheduler.daemon.ingress.access import Caller
from scheduler.daemon.ingress.checks import infer_call
from scheduler.daemon.ingress.errors import REQUEST_HEADER
from scheduler.daemon.ingress.model_metadata import ModelCard
from scheduler.daemon.ingress.service import InferenceService
from scheduler.wire.trace_context import TraceContext

Render = Callable[[Answer, float], Rendered]
"""From an answer, and the seconds since the request was whole, to what is written."""
Write = Callable[[Rendered], Awaitable[None]]
"""Writes an answer; returns when the client has taken all but what fits into buffers."""


class Inference:
    """POST /v2/models/{model}/infer and POST /v1/classify/{model}."""

    def __init__(self, service: InferenceService) -> None:
        """Stores what answers calls."""
        self._service = service

    async def infer(
        self,
        card: ModelCard,
        headers: Mapping[str, str],
        body: bytes | memoryview,
        *,
        client: str,
        received_at_s: float,
    ) -> tuple[InferenceCall, Render]:
        """Returns the call of a body of the Open Inference Protocol, and what renders its answer.

        Raises:
            WireError: the body is no request, or does not fit the model.
        """
        service = self._service
        asked = await infer.parsed(card, body, headers, client=client, large=service.large_json)
        call = infer_call(
            card,
            asked,
            headers,
            client=client,
            received_at_s=received_at_s,
            max_timeout_s=service.config.daemon.max_timeout_s,
        )
        return call, lambda answer, _: infer.infer_response(card, asked, answer)

    def question(self, card: ModelCard, query: Mapping[str, str], headers: Mapping[str, str]) -> Question:
        """Returns what a request asks of a picture.

        Raises:
            WireError: a key is unknown, or a value is out of range.
        """
        return classify.question(card, query, headers, max_timeout_s=self._service.config.daemon.max_timeout_s)

    def classify(
        self, card: ModelCard, asked: Question, kind: str, body: bytes, *, client: str, received_at_s: float
    ) -> tuple[InferenceCall, Render]:
        """Returns the call for a picture, and what renders its answer.

        Args:
            card: the model's.
            asked: what is asked.
            kind: the Content-Type; empty: none.
            body: the body, with the picture.
            client: the key of the client's shares.
            received_at_s: when the last byte of the body was read.

        Raises:
            Rejected: the body is no picture.
            WireError: the model takes none.
        """
        picture = picture_of(kind, body)
        call = classify.classify_call(card, picture, asked, client=client, received_at_s=received_at_s)
        return call, lambda answer, latency_s: classify.classify_response(card, asked, answer, latency_s=latency_s)

    async def answer(
        self,
        call: InferenceCall,
        render: Render,
        write: Write,
        *,
        caller: Caller,
        trace: TraceContext | None,
        accept_encoding: str,
    ) -> None:
        """Submits a call, writes its answer, and counts how it ended.

        Raises:
            Refused: it has none.
            ConnectionError: its client has gone.
        """
        service = self._service
        if trace is not None:
            call = replace(call, trace=trace)
        call = service.access.of_caller(caller, call)
        answer = await service.answer(call)
        latency_s = service.now() - call.received_at_s
        try:
            rendered = render(answer, latency_s)
            rendered.headers[REQUEST_HEADER] = str(answer.request_id)
            if len(rendered.body) >= LEAST_BYTES:
                await pack(rendered, accept_encoding)
            await write(rendered)
        except BaseException as error:
            service.undelivered(call, error)
            raise
        service.delivered(call, answer, latency_s=latency_s)
