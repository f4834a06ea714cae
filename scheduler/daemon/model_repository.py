"""The served models as Triton's extension "model_repository" lists them, and its calls that are not supported here."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from scheduler.daemon.model_statistics import VERSION


class Unsupported(str, Enum):
    """Groups of Triton's calls that get one sentence instead of an answer: status 501, in gRPC UNIMPLEMENTED."""

    MODEL_CONTROL = "model-control"
    TRACE = "trace"
    LOGGING = "logging"
    SHARED_MEMORY = "shared-memory"


SENTENCES: Mapping[Unsupported, str] = MappingProxyType(
    {
        Unsupported.MODEL_CONTROL: "models are not loaded or unloaded by calls; change the [[model]] tables of the"
        " daemon's configuration, and reload it with SIGHUP",
        Unsupported.TRACE: "there are no trace settings; name a collector in [otel] of the daemon's configuration, or"
        " ask GET /v1/explain/REQUEST",
        Unsupported.LOGGING: "log settings cannot be read or changed by calls; start the daemon with --log-level",
        Unsupported.SHARED_MEMORY: "shared memory is not supported; send tensors in the body of the request",
    }
)


def repository_index(unready: Mapping[str, str], *, ready_only: bool = False) -> list[dict[str, str]]:
    """Returns the index of the models.

    Args:
        unready: by the name of each model, why it cannot be asked now, in one sentence; empty: it can.
        ready_only: whether only models that can be asked are listed.
    """
    return [
        {"name": name, "version": VERSION, "state": "UNAVAILABLE" if why else "READY", "reason": why}
        for name, why in unready.items()
        if not (why and ready_only)
    ]
