"""Requests, responses and encoded bodies, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scheduler.wire.tensor import Tensor

JSON_LENGTH_HEADER = "Inference-Header-Content-Length"


@dataclass(slots=True)
class OutputRequest:
    """An output that the client asks for; `class_count` > 0 asks for its top classes (Triton's "classification")."""

    name: str
    binary: bool
    class_count: int = 0


@dataclass(slots=True)
class InferRequest:
    """An inference request; its parameter `binary_data_output` is `binary_by_default`, and not in `parameters`."""

    id: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[OutputRequest, ...] = ()
    parameters: Mapping[str, object] = field(default_factory=dict)
    binary_by_default: bool = False


@dataclass(slots=True)
class InferResponse:
    """An inference response."""

    model_name: str
    outputs: tuple[Tensor, ...]
    id: str = ""
    model_version: str = "1"
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class EncodedParts:
    """A body in pieces, and the length in bytes of its JSON object, None where the object is the whole body."""

    parts: Sequence[bytes | memoryview]
    json_length: int | None

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP headers that the body needs."""
        return _headers_of(self.json_length)

    def joined(self) -> Encoded:
        """Returns the same in one piece."""
        first, *others = self.parts
        return Encoded(b"".join(self.parts) if others else bytes(first), self.json_length)


@dataclass(slots=True)
class Encoded:
    """A body and the length in bytes of its JSON object, None where the object is the whole body."""

    body: bytes
    json_length: int | None

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP headers that the body needs."""
        return _headers_of(self.json_length)


def _headers_of(json_length: int | None) -> dict[str, str]:
    if json_length is None:
        return {"Content-Type": "application/json"}
    return {"Content-Type": "application/octet-stream", JSON_LENGTH_HEADER: str(json_length)}
