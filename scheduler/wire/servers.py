"""Servers of the protocol that are not ours: the form in which each takes tensors, and what it says of a model.

Ours and other servers say `max_batch`, and how many batches they serve at once as `parallel`, in a model's metadata
parameters; Triton says `max_batch_size` in a model's
configuration, with `dynamic_batching` and `instance_group`. A server that says nothing of this is fine.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from enum import Enum
from typing import Any

from scheduler.wire.body import request_parts
from scheduler.wire.tensor import Tensor
from scheduler.wire.values import EncodedParts, InferRequest

BINARY_EXTENSION = "binary_tensor_data"
NAME_CHARACTERS = 128

_JSON_ONLY = frozenset({"mlserver"})
"""Names of servers that are known to take no binary tensors."""
_KEYS = ("max_batch", "max_batch_size")


class TensorForm(str, Enum):
    """Forms of a request's tensors; the values are public words."""

    BINARY = "binary"
    JSON = "json"

    @property
    def other(self) -> TensorForm:
        """The other form."""
        return TensorForm.JSON if self is TensorForm.BINARY else TensorForm.BINARY


def likely_form(server: str) -> TensorForm:
    """Returns the form in which a server of that name probably takes tensors.

    >>> likely_form("mlserver").value, likely_form("triton").value, likely_form("").value
    ('json', 'binary', 'binary')
    """
    return TensorForm.JSON if server in _JSON_ONLY else TensorForm.BINARY


def encoded_in(request: InferRequest, form: TensorForm, *, as_base64: Collection[str]) -> EncodedParts:
    """Encodes a request in a form; in JSON the inputs `as_base64` become that.

    Raises:
        WireError: a tensor has no form in JSON.
    """
    if form is TensorForm.BINARY:
        return request_parts(request)
    return request_parts(replace(request, binary_by_default=False), binary=False, as_base64=as_base64)


def without_text(request: InferRequest) -> list[str]:
    """Returns the names of the BYTES inputs that JSON can carry as base64 only."""
    return [tensor.name for tensor in request.inputs if tensor.datatype == "BYTES" and not _is_text(tensor)]


def _is_text(tensor: Tensor) -> bool:
    try:
        for element in tensor.elements():
            element.decode()
    except UnicodeDecodeError:
        return False
    return True


def said_of_model(metadata: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, object]:
    """Returns what metadata and Triton's configuration of a model say of its batches, and of its card and files.

    >>> said_of_model({"parameters": {"max_batch": 16, "identity": "sha256:1", "parallel": 2}}, {})
    {'max_batch': 16, 'identity': 'sha256:1', 'parallel': 2}
    >>> batching = {"preferred_batch_size": [4, 8]}
    >>> said_of_model({}, {"max_batch_size": 8, "dynamic_batching": batching, "instance_group": [{"count": 2}]})
    {'max_batch': 8, 'preferred_batches': [4, 8], 'instances': 2}
    >>> said_of_model({}, {"instance_group": [{"count": 2, "gpus": [0, 1]}, {"kind": "KIND_CPU", "gpus": []}]})
    {'instances': 5}
    >>> said_of_model({"parameters": None}, {"max_batch_size": 0})
    {}
    """
    found: dict[str, object] = {}
    parameters = metadata.get("parameters")
    sources = (parameters if isinstance(parameters, dict) else {}, config)
    # A batch size of 0 is Triton's word for a model whose tensors have no batch axis of its own making.
    limits = [limit for source in sources for key in _KEYS if (limit := _count(source.get(key))) is not None]
    if limits:
        found["max_batch"] = min(limits)
    identity = sources[0].get("identity")
    if isinstance(identity, str):
        found["identity"] = identity[:NAME_CHARACTERS]
    parallel = _count(sources[0].get("parallel"))
    if parallel is not None:
        found["parallel"] = parallel
    batching = config.get("dynamic_batching")
    preferred = batching.get("preferred_batch_size") if isinstance(batching, dict) else None
    if isinstance(preferred, list) and preferred:
        found["preferred_batches"] = [size for size in map(_count, preferred) if size is not None]
    groups = config.get("instance_group")
    if isinstance(groups, list) and groups:
        found["instances"] = sum(_instances(group) for group in groups if isinstance(group, dict))
    return found


def _instances(group: Mapping[str, Any]) -> int:
    """Returns how many instances Triton runs of a group: its count on each of its GPUs, or on the CPU."""
    gpus = group.get("gpus")
    return (_count(group.get("count")) or 1) * (len(gpus) if isinstance(gpus, list) and gpus else 1)


def _count(value: object) -> int | None:
    """Returns a whole number of at least 1, which some servers write as text; None for anything else."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and 1 <= int(text) <= 2**31 else None
