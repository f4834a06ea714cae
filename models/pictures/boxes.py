"""Boxes, in which AVIF, JPEG 2000 and videos come (ISO/IEC 14496-12)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from models.pictures.header import damaged, truncated

_MAX_BOXES = 10_000
_BRANDS_BYTES = 1024


def is_boxes(view: memoryview) -> bool:
    """Returns whether it begins like an ISO base media file."""
    return bytes(view[4:8]) == b"ftyp"


def brands(view: memoryview) -> set[bytes]:
    """Returns what a file says that it is compatible with."""
    end = min(struct.unpack_from(">I", view)[0], len(view), _BRANDS_BYTES)
    return {bytes(view[at : at + 4]) for at in (8, *range(16, end - 3, 4))}


def boxes(view: memoryview, what: str) -> Iterator[tuple[bytes, memoryview]]:
    """Yields kind and content of each box.

    Raises:
        ImageError: the last one is truncated, or there are too many; `what` names the format.
    """
    at = 0
    for _ in range(_MAX_BOXES):
        if at + 8 > len(view):
            return
        length, kind = struct.unpack_from(">I4s", view, at)
        begin = at + 8
        if length == 1 and at + 16 <= len(view):
            length = struct.unpack_from(">Q", view, begin)[0]
            begin += 8
        end = at + length if length else len(view)
        if end > len(view):
            raise truncated(what, len(view))
        if end < begin:
            raise damaged(what)
        yield kind, view[begin:end]
        at = end
    raise damaged(what)
