"""Inference of the Open Inference Protocol over HTTP: from a body to its request, and from an answer to a body."""

from __future__ import annotations

from collections.abc import Mapping

from scheduler import wire
from scheduler.daemon.calls import Answer
from scheduler.daemon.http.rendered import Rendered
from scheduler.daemon.ingress import answers, large_json
from scheduler.daemon.ingress.large_json import LargeJson
from scheduler.daemon.ingress.model_metadata import VERSION, ModelCard
from scheduler.daemon.raw_request import raw_request
from scheduler.wire import InferRequest
from scheduler.wire.ordinary import template_of


def parse_infer(card: ModelCard, body: bytes | memoryview, json_length: int | None) -> InferRequest:
    """Returns the request in a body; with an Inference-Header-Content-Length of 0 the body is the one input's data.

    Raises:
        WireError: the body is not a request.
    """
    return raw_request(card, bytes(body)) if json_length == 0 else wire.parse_request(body, json_length)


async def parsed(
    card: ModelCard, body: bytes | memoryview, headers: Mapping[str, str], *, client: str, large: LargeJson
) -> InferRequest:
    """Returns the request in a body, of which large JSON is read beside the loop; see `parse_infer`.

    Args:
        card: the model's metadata.
        body: the body.
        headers: of the request.
        client: the key of the client's shares.
        large: reads large JSON.
    """
    length = wire.json_length_of(headers)
    if length != 0 and large_json.is_large(body, length):
        pictures = tuple(spec.name for spec in card.inputs if spec.picture)
        return await large.parse(client, bytes(body), length, base64=pictures)
    return parse_infer(card, body, length)


def infer_response(card: ModelCard, request: InferRequest, answer: Answer) -> Rendered:
    """Returns what HTTP answers, with the outputs and in the form that the request asks for."""
    if request.binary_by_default and not request.outputs and answer.outputs:
        parameters = answers.answer_parameters(answer)
        body, length = template_of(answer.outputs, parameters, name=card.name, version=VERSION, id=request.id)
        return Rendered(body, {"Content-Type": "application/octet-stream", wire.JSON_LENGTH_HEADER: str(length)})
    response = answers.infer_response(card, request, answer)
    encoded = wire.encode_response(response, requested=request.outputs, binary_by_default=request.binary_by_default)
    return Rendered(encoded.body, encoded.headers)
