"""The clients of a world: each sends one request over HTTP or gRPC, and compares the answer with the truth."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scheduler import wire
from scheduler.daemon.grpc.calls import MessageReader
from scheduler.daemon.grpc.inference import InferenceCalls
from scheduler.daemon.grpc.messages import ModelInferRequest, ModelInferResponse
from scheduler.daemon.http.infer import infer_response, parse_infer
from scheduler.daemon.ingress.access import WITHOUT_TOKEN, Caller
from scheduler.daemon.ingress.checks import infer_call, known_card
from scheduler.daemon.ingress.errors import client_error
from scheduler.daemon.ingress.service import InferenceService
from scheduler.domain.errors import EdgeburstError
from scheduler.wire import InferRequest, Tensor, WireError
from scripts.soak import truth
from scripts.soak.script import Call

if TYPE_CHECKING:
    from scripts.soak.world import World

CALLER = Caller(peer="127.0.0.1", scopes=WITHOUT_TOKEN)
OVERTIME_S = 0.05
"""How much later than its deadline a client whose class is not served late may be told."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended: with outputs, or with a status."""

    status: int
    sentence: str = ""
    outputs: tuple[Tensor, ...] = ()
    latency_s: float = 0.0


async def asked(world: World, service: InferenceService, call: Call) -> Outcome:
    """Sends a call and returns how it ended, once that was found to be right."""
    begun_s, leapt_s = world.machine.now(), world.machine.leapt_s
    send = _by_grpc if call.grpc else _by_http
    outputs: tuple[Tensor, ...] = ()
    try:
        outputs, status, sentence = await send(world, service, call), 200, ""
    except (EdgeburstError, WireError) as error:
        told = client_error(error)
        status, sentence = told.status, told.message
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a 500 for the client
        world.fail(f"a request ended with {type(error).__name__}: {error}", cause=error)
        return Outcome(500)
    outcome = Outcome(status, sentence, outputs, world.machine.now() - begun_s)
    _judge(world, call, outcome, leapt=world.machine.leapt_s != leapt_s)
    return outcome


def _judge(world: World, call: Call, outcome: Outcome, *, leapt: bool) -> None:
    content = call.content
    if outcome.status == 200:
        right = truth.outputs(content.model, content.inputs())
        world.check(content.odd != "refused", "a request was answered that every server refuses")
        world.check(truth.same(outcome.outputs, right), f"a wrong answer: {_shown(outcome.outputs)} for {content}")
    else:
        ours = content.spoilt or outcome.status not in (400, 404, 413) or world.reloaded
        ours |= outcome.status == 413 and world.limited
        world.check(ours, f"a good request is refused as bad ({outcome.status}): {outcome.sentence}")
    allowed_s = world.allowed_s(call)
    late = allowed_s is not None and outcome.latency_s > allowed_s + OVERTIME_S
    world.check(not late or leapt, f"told {outcome.latency_s:.3f} s after a request that may take {allowed_s} s")


def _shown(outputs: tuple[Tensor, ...]) -> str:
    return ", ".join(f"{tensor.name} {list(tensor.shape)} {bytes(tensor.raw)[:24]!r}" for tensor in outputs)


def _parameters(call: Call) -> dict[str, Any]:
    found: dict[str, Any] = {"class": call.class_name, "tenant": call.tenant, "priority": call.priority}
    if call.timeout_s is not None:
        found["timeout"] = round(call.timeout_s * 1e6)
    return found


async def _by_http(world: World, service: InferenceService, call: Call) -> tuple[Tensor, ...]:
    """Does what `http.app.Ingress.infer` does with a body, and returns what is in the body of its response."""
    content = call.content
    request = InferRequest(f"c{content.number}", content.inputs(), (), _parameters(call), binary_by_default=True)
    encoded = wire.encode_request(request)
    card = known_card(service.cards, content.model)
    made = parse_infer(card, encoded.body, encoded.json_length)
    limit_s = service.config.daemon.max_timeout_s
    checked = infer_call(card, made, {}, received_at_s=service.now(), max_timeout_s=limit_s)
    checked = service.access.of_caller(CALLER, checked)
    answer = await service.answer(checked)
    latency_s = service.now() - checked.received_at_s
    with service.delivery(checked):
        response = infer_response(card, made, answer)
    service.delivered(checked, answer, latency_s=latency_s)
    body = response.body
    assert isinstance(body, bytes)
    parsed = wire.parse_response(body, wire.json_length_of(response.headers))
    world.check(parsed.id == request.id, f"the answer to {request.id} has the id {parsed.id}")
    return parsed.outputs


async def _by_grpc(world: World, service: InferenceService, call: Call) -> tuple[Tensor, ...]:
    """Calls the handler of ModelInfer with a message, and returns what is in the message that it writes."""
    content = call.content
    message = ModelInferRequest(model_name=content.model, id=f"c{content.number}")
    for name, value in _parameters(call).items():
        setattr(message.parameters[name], "string_param" if isinstance(value, str) else "int64_param", value)
    for tensor in content.inputs():
        message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        message.raw_input_contents.append(bytes(tensor.raw))
    context = _Context(message.SerializeToString())
    await InferenceCalls(service, MessageReader(service.bodies)).infer(context, CALLER)
    parsed = ModelInferResponse.FromString(context.written)
    world.check(parsed.id == message.id, f"the answer to {message.id} has the id {parsed.id}")
    raw = zip(parsed.outputs, parsed.raw_output_contents, strict=True)
    return tuple(Tensor(output.name, output.datatype, tuple(output.shape), data) for output, data in raw)


class _Context:
    """As much of a grpc.aio.ServicerContext as the handler uses."""

    def __init__(self, message: bytes) -> None:
        self._message = message
        self.written = b""

    async def read(self) -> bytes:
        return self._message

    async def write(self, message: bytes) -> None:
        self.written += message

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def time_remaining(self) -> None:
        return None

    def set_trailing_metadata(self, metadata: object) -> None:
        del metadata

    def set_compression(self, compression: object) -> None:
        del compression
