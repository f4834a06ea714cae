"""Files beside an ONNX file that hold its weights: their names, read without the package onnx, and their check."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from models.card import CARD_FILE, Card
from models.errors import ModelError

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


def external_files(model: bytes | mmap.mmap) -> tuple[str, ...]:
    """Returns the paths, relative to the file's folder, of the files with external data, each once.

    Args:
        model: a file that ONNX Runtime can read.

    >>> external_files(b"")
    ()
    """
    return tuple(dict.fromkeys(_locations(memoryview(model), "model")))


def external_files_of(path: Path) -> tuple[str, ...]:
    """Returns `external_files` of a file; what is no ONNX file has none.

    Raises:
        OSError: it cannot be read.
    """
    if path.stat().st_size == 0:
        return ()
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return external_files(content)
    except RecursionError:
        return ()


def check_external(card: Card, file: Path, *, own: bool) -> None:
    """Checks that the card names every file with weights of its ONNX file: else their hashes would not be known.

    Args:
        card: the model's card.
        file: the ONNX file.
        own: whether it is the card's own file, not one that the host names in its place.

    Raises:
        ModelError: there is one that it does not name.
    """
    for name in external_files_of(file):
        if not own:
            raise ModelError(
                f"model {card.name}: {file} keeps weights in a second file, {name!r}, whose hash is not given: save the"
                " network in one file, or put both files into the model's folder"
            )
        inside = (PurePosixPath(card.file).parent / name).as_posix()
        if inside not in {PurePosixPath(known).as_posix() for known in card.files()}:
            raise ModelError(
                f"model {card.name}: {card.file} keeps weights in {name!r}, which the card does not name: put"
                f" {inside!r} beside {CARD_FILE}, and into its `files`"
            )


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
