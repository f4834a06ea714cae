"""Messages of the gRPC ingress. First byte: which message; the rest: as serialised.

What is cut out of a message without its classes is compared with what protobuf's own classes read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from fuzz.target import Target, one_sentence
from google.protobuf.message import DecodeError

from scheduler.daemon.grpc import messages
from scheduler.daemon.grpc.conversion import (
    parse_request,
    parsed,
    response_message,
    streamed_error,
    streamed_message,
)
from scheduler.daemon.grpc.framing import cut_out, varint
from scheduler.wire import InferResponse, WireError

INSTRUMENTED = ("scheduler.daemon.grpc", "scheduler.wire")
_RAW_INPUTS = messages.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number
_OTHERS = (
    messages.ModelMetadataRequest,
    messages.ModelConfigRequest,
    messages.ModelStatisticsRequest,
    messages.RepositoryIndexRequest,
    messages.HealthCheckRequest,
    messages.ModelInferResponse,
)


def check(data: bytes) -> None:
    """Reads a message, and writes an answer to it."""
    if not data:
        return
    kind, message = data[0] % 8, data[1:]
    if kind >= 2:
        try:
            parsed(_OTHERS[kind - 2], message)
        except WireError as error:
            one_sentence(error)
        return
    _cut_as_protobuf_reads(message)
    try:
        asked = parse_request(message)
    except WireError as error:
        one_sentence(error)
        return
    answer = InferResponse("m", asked.request.inputs, id=asked.request.id, parameters={"a": 1, "b": 0.5, "c": "d"})
    write = streamed_message if kind else response_message
    try:
        written = write(answer, asked)
    except WireError as error:
        one_sentence(error)  # it asks for outputs that are not there
        streamed_error(str(error), asked)
        return
    if kind == 0:
        again = messages.ModelInferResponse.FromString(written)
        assert [output.name for output in again.outputs] == [t.name for t in _wanted(asked.request.outputs, answer)]


def _wanted(outputs, answer):
    by_name = {tensor.name: tensor for tensor in answer.outputs}
    return [by_name[wanted.name] for wanted in outputs] if outputs else answer.outputs


def _cut_as_protobuf_reads(message: bytes) -> None:
    try:
        rest, taken = cut_out(message, _RAW_INPUTS)
    except WireError as error:
        one_sentence(error)
        return
    try:
        whole = messages.ModelInferRequest.FromString(message)
    except DecodeError:
        return
    assert [bytes(each) for each in taken] == list(whole.raw_input_contents)
    del whole.raw_input_contents[:]
    # Of NaN it is only the same text that is equal.
    assert messages.ModelInferRequest.FromString(rest).SerializeToString(deterministic=True) == (
        whole.SerializeToString(deterministic=True)
    )


def seeds() -> Iterable[bytes]:
    """Yields requests in both forms, and the other messages."""
    fields = {"FP32": "fp32_contents", "INT8": "int_contents", "BOOL": "bool_contents", "UINT64": "uint64_contents"}
    for datatype, field in fields.items():
        request = messages.ModelInferRequest(model_name="digits", id="7")
        request.parameters["timeout"].double_param = 0.5
        tensor = request.inputs.add(name="x", datatype=datatype, shape=[1, 2])
        getattr(tensor.contents, field).extend([1, 0])
        request.outputs.add(name="x").parameters["binary_data"].bool_param = True
        yield b"\0" + request.SerializeToString()
        yield b"\1" + request.SerializeToString()
    request = messages.ModelInferRequest(model_name="digits", model_version="1")
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(b"\2\0\0\0hi")
    yield b"\0" + request.SerializeToString()
    request.inputs.add(name="y", datatype="FP16", shape=[math.prod((1, 2))])
    request.raw_input_contents.append(bytes(4))
    yield b"\1" + request.SerializeToString()
    for number, kind in enumerate(_OTHERS):
        yield bytes([number + 2]) + kind().SerializeToString()
    yield b"\3" + messages.ModelConfigRequest(name="digits", version="1").SerializeToString()


TARGET = Target(
    name="grpc",
    check=check,
    seeds=seeds,
    instrumented=INSTRUMENTED,
    words=(varint(_RAW_INPUTS << 3 | 2), b"BYTES", b"FP32", b"FP16", b"\xff" * 9 + b"\x01", b"classification"),
    longest_bytes=512,
)
