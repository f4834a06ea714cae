"""Names of the files beside an ONNX file that hold its weights, read without the package onnx."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Fields of onnx.proto by message: which of them hold a message that is looked into, and what that is.
_FIELDS: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


def external_files(model: bytes) -> tuple[str, ...]:
    """Returns the paths, relative to the file's folder, of the files with external data, each once.

    Args:
        model: a file that ONNX Runtime can read.

    >>> external_files(b"")
    ()
    """
    return tuple(dict.fromkeys(_locations(memoryview(model), "model")))


def _locations(message: memoryview, kind: str) -> Iterator[str]:
    for field, value in _length_fields(message):
        inner = _FIELDS[kind].get(field)
        if inner == "entry":
            entry = {number: bytes(text).decode("utf-8", "replace") for number, text in _length_fields(value)}
            if entry.get(1) == "location":
                yield entry.get(2, "")
        elif inner is not None:
            yield from _locations(value, inner)


def _length_fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Yields number and content of the fields that have a length (https://protobuf.dev/programming-guides/encoding)."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire = key & 7
        if wire == _LENGTH:
            length, at = _varint(message, at)
            yield key >> 3, message[at : at + length]
            at += length
        elif wire == _VARINT:
            _, at = _varint(message, at)
        else:
            at += {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(wire, len(message))


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if not byte & 128:
            break
    return value, at
