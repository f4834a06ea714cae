"""The outer fields of a serialised message, taken out and put in without copying what they hold.

Protobuf's own classes copy each `bytes` field when a message is read and twice when it is written. The data of tensors
are by far the largest part of a message, so they are cut out of the bytes that arrived, and joined to those that leave.
"""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.wire import WireError

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10
_BROKEN = "the message is not valid protobuf; send a message of inference.GRPCInferenceService"


def cut_out(message: bytes, number: int) -> tuple[bytes, list[memoryview]]:
    """Returns a message without one of its fields, and what that field holds, in order, as views.

    Args:
        message: the serialised message.
        number: the number of a field of type `bytes`.

    Raises:
        WireError: the message is not valid.

    >>> rest, taken = cut_out(b"\\x0a\\x01a\\x3a\\x02xy", 7)
    >>> rest, [bytes(each) for each in taken]
    (b'\\n\\x01a', [b'xy'])
    """
    view, end = memoryview(message), len(message)
    kept, taken = [], []
    at = kept_from = 0
    while at < end:
        start = at
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _LENGTH:
            length, at = _varint(message, at)
            if at + length > end:
                raise WireError(_BROKEN)
            if tag >> 3 == number:
                kept.append(view[kept_from:start])
                taken.append(view[at : at + length])
                kept_from = at + length
            at += length
        elif kind == _VARINT:
            _, at = _varint(message, at)
        elif kind == _FIXED64:
            at += 8
        elif kind == _FIXED32:
            at += 4
        else:
            raise WireError(_BROKEN)
    if at != end:
        raise WireError(_BROKEN)
    kept.append(view[kept_from:])
    return b"".join(kept), taken


def fields_of(number: int, contents: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
    """Returns the pieces of a repeated `bytes` field, to be joined to a serialised message.

    >>> b"".join(fields_of(6, [b"xy", b""]))
    b'2\\x02xy2\\x00'
    """
    tag = varint(number << 3 | _LENGTH)
    pieces: list[bytes | memoryview] = []
    for content in contents:
        pieces += (tag + varint(len(content)), content)
    return pieces


def varint(value: int) -> bytes:
    """Returns a number of at least 0 in protobuf's variable length.

    >>> varint(300)
    b'\\xac\\x02'
    """
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Returns the number at an offset, and the offset behind it."""
    value = shift = 0
    for index in range(at, min(at + _MAX_VARINT_BYTES, len(message))):
        byte = message[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, index + 1
        shift += 7
    raise WireError(_BROKEN)
