"""The calls about the server and its models: health, metadata, configuration, statistics, index."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf import json_format

from scheduler.daemon.grpc import messages
from scheduler.daemon.grpc.calls import Context, MessageReader, Work
from scheduler.daemon.grpc.conversion import parsed
from scheduler.daemon.ingress.access import Caller
from scheduler.daemon.ingress.checks import known_card
from scheduler.daemon.ingress.errors import Rejected
from scheduler.daemon.ingress.model_metadata import ModelCard
from scheduler.daemon.ingress.service import InferenceService, server_metadata
from scheduler.daemon.model_repository import SENTENCES, Unsupported
from scheduler.wire import WireError

_REFUSED: Mapping[str, Unsupported] = {
    "RepositoryModelLoad": Unsupported.MODEL_CONTROL,
    "RepositoryModelUnload": Unsupported.MODEL_CONTROL,
    "TraceSetting": Unsupported.TRACE,
    "LogSettings": Unsupported.LOGGING,
    **{
        f"{kind}SharedMemory{action}": Unsupported.SHARED_MEMORY
        for kind in ("System", "Cuda")
        for action in ("Status", "Register", "Unregister")
    },
}
"""Calls of Triton that get one sentence."""

Answering = Callable[[Any], Any]
"""From a call's request to its response."""


class ModelCalls:
    """The handlers of these calls."""

    def __init__(self, service: InferenceService, reader: MessageReader) -> None:
        """Stores what answers them, and what reads messages."""
        self._service = service
        self._reader = reader

    def works(self) -> dict[str, Work]:
        """Returns what is done for each call, by its name."""
        answering: Mapping[str, tuple[Any, Answering]] = {
            "ServerLive": (None, lambda _: messages.ServerLiveResponse(live=True)),
            "ServerReady": (None, lambda _: messages.ServerReadyResponse(ready=not self._service.not_ready())),
            "ModelReady": (messages.ModelReadyRequest, self._model_ready),
            "ServerMetadata": (None, lambda _: messages.ServerMetadataResponse(**server_metadata())),
            "ModelMetadata": (messages.ModelMetadataRequest, self._model_metadata),
            "ModelConfig": (messages.ModelConfigRequest, self._model_config),
            "ModelStatistics": (messages.ModelStatisticsRequest, self._statistics),
            "RepositoryIndex": (messages.RepositoryIndexRequest, self._index),
        }
        works = {name: self._work(kind, answer) for name, (kind, answer) in answering.items()}
        return works | {name: _refusing(group) for name, group in _REFUSED.items()}

    def _work(self, kind: Any, answer: Answering) -> Work:
        async def work(context: Context, _: Caller) -> None:
            message = await self._reader.next(context)
            if message is None:
                raise WireError("the call has no message; send one")
            response = answer(None if kind is None else parsed(kind, message))
            await context.write(response.SerializeToString())

        return work

    def _card(self, request: Any) -> ModelCard:
        return known_card(self._service.cards, request.name, request.version)

    def _model_ready(self, request: Any) -> Any:
        model = self._card(request).name
        return messages.ModelReadyResponse(ready=not self._service.not_ready(model))

    def _model_metadata(self, request: Any) -> Any:
        return _filled(messages.ModelMetadataResponse(), self._card(request).metadata())

    def _model_config(self, request: Any) -> Any:
        return _filled(messages.ModelConfigResponse(), {"config": self._service.model_config(self._card(request))})

    def _statistics(self, request: Any) -> Any:
        names = [self._card(request).name] if request.name else list(self._service.cards)
        return _filled(messages.ModelStatisticsResponse(), self._service.statistics(names))

    def _index(self, request: Any) -> Any:
        models = self._service.repository_index(ready_only=request.ready)
        return _filled(messages.RepositoryIndexResponse(), {"models": models})


def _filled(message: Any, values: Mapping[str, object]) -> Any:
    """Returns a message with values in the form of JSON; those that its description leaves out are empty ones."""
    return json_format.ParseDict(values, message, ignore_unknown_fields=True)


def _refusing(group: Unsupported) -> Work:
    async def refuse(_: Context, __: Caller) -> None:
        raise Rejected(501, SENTENCES[group])

    return refuse
