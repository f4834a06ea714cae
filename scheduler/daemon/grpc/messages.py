"""The classes of the protocol's messages, from the description that is installed beside this file.

They belong to a descriptor pool of their own. Client libraries (tritonclient, kserve) register messages of the same
names in protobuf's default pool, which takes each name once: so a process may import those as well.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

DESCRIPTION = "messages.binpb"
"""A serialised FileDescriptorSet, made from the .proto files by `python -m scripts.grpc_messages --write`."""

INFERENCE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"

POOL = descriptor_pool.DescriptorPool()


def _fill(pool: descriptor_pool.DescriptorPool) -> None:
    content = resources.files(__package__).joinpath(DESCRIPTION).read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(content).file:
        pool.AddSerializedFile(file.SerializeToString())


def _message(name: str) -> Any:
    """Returns the class of a message by its full name; typed loosely, because it is made while the program runs."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


_fill(POOL)

ServerLiveResponse = _message("inference.ServerLiveResponse")
ServerReadyResponse = _message("inference.ServerReadyResponse")
ModelReadyRequest = _message("inference.ModelReadyRequest")
ModelReadyResponse = _message("inference.ModelReadyResponse")
ServerMetadataResponse = _message("inference.ServerMetadataResponse")
ModelMetadataRequest = _message("inference.ModelMetadataRequest")
ModelMetadataResponse = _message("inference.ModelMetadataResponse")
ModelInferRequest = _message("inference.ModelInferRequest")
ModelInferResponse = _message("inference.ModelInferResponse")
ModelStreamInferResponse = _message("inference.ModelStreamInferResponse")
ModelConfigRequest = _message("inference.ModelConfigRequest")
ModelConfigResponse = _message("inference.ModelConfigResponse")
ModelStatisticsRequest = _message("inference.ModelStatisticsRequest")
ModelStatisticsResponse = _message("inference.ModelStatisticsResponse")
RepositoryIndexRequest = _message("inference.RepositoryIndexRequest")
RepositoryIndexResponse = _message("inference.RepositoryIndexResponse")
HealthCheckRequest = _message("grpc.health.v1.HealthCheckRequest")
HealthCheckResponse = _message("grpc.health.v1.HealthCheckResponse")
