"""The gRPC messages: made from our description, in a pool of their own, with the names and numbers of clients."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

from scheduler.daemon.grpc import messages
from scripts import grpc_messages

TRITON = {**service_pb2.DESCRIPTOR.message_types_by_name, **model_config_pb2.DESCRIPTOR.message_types_by_name}
TRITON_ENUMS = model_config_pb2.DESCRIPTOR.enum_types_by_name


def ours() -> list[descriptor_pb2.FileDescriptorProto]:
    return list(descriptor_pb2.FileDescriptorSet.FromString(grpc_messages.DESCRIPTION.read_bytes()).file)


def described(path: str, message: descriptor_pb2.DescriptorProto) -> Iterator[tuple[str, Any]]:
    yield path, message
    for nested in message.nested_type:
        yield from described(f"{path}.{nested.name}", nested)


def inference_messages() -> list[tuple[str, Any]]:
    [file] = [file for file in ours() if file.package == "inference"]
    return [entry for message in file.message_type for entry in described(message.name, message)]


def triton_message(path: str) -> descriptor_pb2.DescriptorProto:
    first, *nested = path.split(".")
    found = TRITON[first]
    for name in nested:
        found = found.nested_types_by_name[name]
    copied = descriptor_pb2.DescriptorProto()
    found.CopyToProto(copied)
    return copied


def test_the_committed_description_is_that_of_the_proto_files() -> None:
    assert grpc_messages.DESCRIPTION.read_bytes() == grpc_messages.description(), (
        "run: .venv/bin/python -m scripts.grpc_messages --write"
    )


@pytest.mark.parametrize(("path", "message"), inference_messages(), ids=[path for path, _ in inference_messages()])
def test_every_field_has_the_name_number_and_type_that_triton_gives_it(path: str, message: Any) -> None:
    known = {field.name: field for field in triton_message(path).field}
    for field in message.field:
        assert field.name in known
        theirs = known[field.name]
        form = (theirs.number, theirs.type, theirs.label, theirs.type_name, theirs.HasField("oneof_index"))
        assert (field.number, field.type, field.label, field.type_name, field.HasField("oneof_index")) == form
    theirs_nested = {enum.name: enum for enum in triton_message(path).enum_type}
    for enum in message.enum_type:
        assert [(value.name, value.number) for value in enum.value] == [
            (value.name, value.number) for value in theirs_nested[enum.name].value
        ]


def test_every_data_type_has_tritons_number() -> None:
    [file] = [file for file in ours() if file.package == "inference"]
    for enum in file.enum_type:
        theirs = [(value.name, value.number) for value in TRITON_ENUMS[enum.name].values]
        assert [(value.name, value.number) for value in enum.value] == theirs


def test_every_call_has_the_messages_that_triton_gives_it() -> None:
    [file] = [file for file in ours() if file.package == "inference"]
    [service] = file.service
    theirs = service_pb2.DESCRIPTOR.services_by_name[service.name].methods_by_name
    for method in service.method:
        known = theirs[method.name]
        assert method.input_type == f".{known.input_type.full_name}"
        assert method.output_type == f".{known.output_type.full_name}"


@pytest.mark.parametrize("first", ["scheduler.daemon.grpc.messages", "tritonclient.grpc"])
def test_one_process_may_import_a_client_library_too(first: str) -> None:
    second = "tritonclient.grpc" if first.startswith("scheduler") else "scheduler.daemon.grpc.messages"
    code = (
        f"import {first}, {second}\n"
        "from scheduler.daemon.grpc.messages import POOL, ModelInferRequest\n"
        "from tritonclient.grpc import service_pb2\n"
        "assert ModelInferRequest.DESCRIPTOR is not service_pb2.ModelInferRequest.DESCRIPTOR\n"
        "assert POOL.FindMessageTypeByName('inference.ModelInferRequest') is ModelInferRequest.DESCRIPTOR\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_health_service_has_the_numbers_of_its_specification() -> None:
    [file] = [file for file in ours() if file.package == "grpc.health.v1"]
    fields = {message.name: [(field.name, field.number) for field in message.field] for message in file.message_type}
    assert fields == {"HealthCheckRequest": [("service", 1)], "HealthCheckResponse": [("status", 1)]}
    [status] = file.message_type[1].enum_type
    names = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"]
    assert [(value.name, value.number) for value in status.value] == [(name, at) for at, name in enumerate(names)]
    assert messages.HealthCheckResponse(status=1).SerializeToString() == b"\x08\x01"
