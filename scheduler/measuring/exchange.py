"""One request to an Open Inference Protocol server and its answer, over aiohttp."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np
import numpy.typing as npt
import orjson

from scheduler import wire
from scheduler.client_access import NO_ACCESS, ClientAccess
from scheduler.measuring.payloads import Payload
from scheduler.wire import InferRequest, InferResponse, WireError

_ERROR_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Target:
    """The server and the model that requests are sent to.

    Attributes:
        url: URL of the daemon or another server of the protocol, without a slash at its end.
        model: name of the model.
        input_name: name of the input that takes encoded pictures, for payloads that are one.
        log_tail: whether the daemon shall record the end of the containers' logs.
    """

    url: str
    model: str
    input_name: str = "image"
    log_tail: bool = False

    @property
    def infer_url(self) -> str:
        """The URL of inference requests."""
        return f"{self.url.rstrip('/')}/v2/models/{self.model}/infer"


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """The outcome of a request.

    Attributes:
        status: the HTTP status; 0 if there was no response.
        error: one sentence; empty for an answer.
        parameters: the parameters of the response.
        output: the first output, flat; None if it was not kept or does not exist.
    """

    status: int
    error: str = ""
    parameters: Mapping[str, object] = field(default_factory=dict)
    output: npt.NDArray[Any] | None = None


def open_session(*, give_up_s: float | None = None, access: ClientAccess = NO_ACCESS) -> aiohttp.ClientSession:
    """Returns a session with one connection for each request in flight, so that no request waits for a connection.

    Args:
        give_up_s: longest wait for one answer; None: any.
        access: what servers are shown.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=access.context()),
        headers=access.headers,
        timeout=aiohttp.ClientTimeout(total=give_up_s),
    )


async def exchange(
    session: aiohttp.ClientSession,
    target: Target,
    payload: Payload,
    *,
    request_id: str,
    keep_output: bool,
    tenant: str = "",
) -> Reply:
    """Sends one item and returns the outcome; a failure is an outcome too."""
    parameters: dict[str, object] = {"log_tail": True} if target.log_tail else {}
    if tenant:
        parameters["tenant"] = tenant
    inputs = payload.inputs(target.input_name)
    request = InferRequest(request_id, inputs, parameters=parameters, binary_by_default=True)
    body = wire.encode_request(request)
    try:
        async with session.post(target.infer_url, data=body.body, headers=body.headers) as response:
            content = await response.read()
    except asyncio.TimeoutError:
        return Reply(0, f"no answer within {session.timeout.total:g} s")
    except (aiohttp.ClientError, OSError) as error:
        return Reply(0, _one_line(str(error) or type(error).__name__))
    if response.status != 200:
        return Reply(response.status, _error_sentence(content, response.status))
    return _read(content, response.headers, request_id=request_id, keep_output=keep_output)


def _read(content: bytes, headers: Mapping[str, str], *, request_id: str, keep_output: bool) -> Reply:
    try:
        answer = wire.parse_response(content, wire.json_length_of(headers))
        complaint = _complaint(answer, request_id)
    except WireError as error:
        return Reply(200, f"the answer cannot be read: {error}")
    if complaint:
        return Reply(200, complaint, answer.parameters)
    return Reply(200, "", answer.parameters, _first_output(answer) if keep_output else None)


def _complaint(answer: InferResponse, request_id: str) -> str:
    if answer.id != request_id:
        return f"the answer is to request {answer.id[:64]!r}, not to {request_id!r}"
    failed = [sentence for sentence in wire.item_errors(answer.outputs) if sentence]
    return _one_line(failed[0]) if failed else ""


def _first_output(answer: InferResponse) -> npt.NDArray[Any] | None:
    """Returns a copy of the first output, so that the body that holds it can be freed."""
    found = next((tensor for tensor in answer.outputs if tensor.name != wire.ITEM_ERROR), None)
    return None if found is None else np.array(found.to_numpy()).ravel()


def _error_sentence(content: bytes, status: int) -> str:
    try:
        return _one_line(str(orjson.loads(content)["error"]))
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {status} without an error message"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_ERROR_CHARACTERS]


def number(parameters: Mapping[str, object], name: str) -> float | None:
    """Returns a response parameter if it is a finite number, else None."""
    value = parameters.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
