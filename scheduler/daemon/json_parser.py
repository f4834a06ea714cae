"""Reads large JSON bodies in a process of its own, whose interpreter holds up no request.

    python -m scheduler.daemon.json_parser

A thread would not do: the interpreter reads JSON and makes arrays of it without letting other threads go on. The daemon
starts the process when it needs it (`ingress.large_json`), writes bodies to its standard input and reads requests from
its standard output; at the end of its input it ends.
"""

from __future__ import annotations

import os
import pickle
import signal
import struct
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, BinaryIO

from scheduler import wire
from scheduler.wire import InferRequest, WireError, base64_elements

_LENGTH = struct.Struct("<Q")
NICENESS = 5
"""The daemon and its neighbours on the same host go first."""


def write_body(body: bytes, json_length: int | None, base64: Sequence[str], to: BinaryIO) -> None:
    """Writes a body to the process.

    Args:
        body: the body.
        json_length: as in `wire.parse_request`.
        base64: names of the inputs whose texts are base64, which is decoded.
        to: the standard input of the process.
    """
    _write((json_length, tuple(base64)), [body], to)


def read_request(source: BinaryIO) -> InferRequest:
    """Returns the request that the process has read.

    Raises:
        WireError: the body violates the protocol.
        MemoryError: the process had no memory for it.
        EOFError: the process has ended.
    """
    told, parts = _read(source)
    if isinstance(told, BaseException):
        raise told
    assert isinstance(told, InferRequest)
    inputs = tuple(replace(tensor, raw=part) for tensor, part in zip(told.inputs, parts, strict=True))
    return replace(told, inputs=inputs)


def _answer(body: bytes, json_length: int | None, base64: Sequence[str], to: BinaryIO) -> None:
    try:
        request = wire.parse_request(body, json_length)
        # Where this fails the check of the whole request would fail too, with the same sentence.
        inputs = [base64_elements(tensor) if tensor.name in base64 else tensor for tensor in request.inputs]
    except WireError as error:
        _write(WireError(str(error)), [], to)
    except MemoryError:
        _write(MemoryError(), [], to)
    else:
        emptied = tuple(replace(tensor, raw=b"") for tensor in inputs)
        _write(replace(request, inputs=emptied), [tensor.raw for tensor in inputs], to)


def _write(value: object, parts: Sequence[bytes | memoryview], to: BinaryIO) -> None:
    head = pickle.dumps((value, [len(part) for part in parts]), protocol=pickle.HIGHEST_PROTOCOL)
    to.write(_LENGTH.pack(len(head)))
    to.write(head)
    for part in parts:
        to.write(part)
    to.flush()


def _read(source: BinaryIO) -> tuple[Any, list[bytes]]:
    (length,) = _LENGTH.unpack(_exactly(source, _LENGTH.size))
    # Both ends are this module: nothing that a client sends is unpickled.
    value, lengths = pickle.loads(_exactly(source, length))  # noqa: S301
    return value, [_exactly(source, length) for length in lengths]


def _exactly(source: BinaryIO, length: int) -> bytes:
    found = source.read(length)
    if len(found) < length:
        raise EOFError
    return found


def main() -> None:
    """Answers bodies until the input ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # they are for the daemon, whose end closes the input
    os.nice(NICENESS)
    while True:
        try:
            (json_length, base64), parts = _read(sys.stdin.buffer)
        except EOFError:
            return
        _answer(parts.pop(), json_length, base64, sys.stdout.buffer)


if __name__ == "__main__":
    main()
