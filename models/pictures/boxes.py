"""AVIF, in the boxes of ISO base media files (ISO/IEC 14496-12, 23008-12), and what else comes in them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from models.pictures.header import Header, ImageError, damaged, truncated

_AVIF = frozenset({b"avif", b"avis"})
_HEIC = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})
_CONTAINERS = frozenset({b"iprp", b"ipco"})
_MAX_BOXES = 10_000
# EXIF's number for a rotation by 90 degrees to the left, so many times, and for one with a reflection after it:
# about the horizontal axis (top and bottom change places) or about the vertical one.
_ROTATED = (1, 8, 3, 6)
_REFLECTED = ((4, 5, 2, 7), (2, 7, 4, 5))


def is_boxes(view: memoryview) -> bool:
    """Returns whether it begins like an ISO base media file."""
    return bytes(view[4:8]) == b"ftyp"


def read(view: memoryview) -> Header:
    """Reads the properties of the pictures in it; the largest size counts.

    Raises:
        ImageError: it is no AVIF, truncated or damaged.
    """
    brands = _brands(view)
    if not brands & _AVIF:
        if brands & _HEIC:
            raise ImageError("this is a HEIC picture, which cannot be read here: convert it to JPEG or PNG")
        raise ImageError("this is a video, not a picture: send one of its pictures as JPEG or PNG")
    width = height = turns = 0
    axis: int | None = None
    for kind, content in _properties(view):
        if kind == b"ispe" and len(content) >= 12:
            sized = struct.unpack_from(">II", content, 4)
            if sized[0] * sized[1] > width * height:
                width, height = sized
        elif kind == b"irot" and len(content) >= 1:
            turns = content[0] & 3
        elif kind == b"imir" and len(content) >= 1:
            axis = content[0] & 1
    if not width:
        raise damaged("AVIF")
    turned = _ROTATED[turns] if axis is None else _REFLECTED[axis][turns]
    return Header(kind="AVIF", width=width, height=height, data=view, orientation=turned, whole=True)


def _brands(view: memoryview) -> set[bytes]:
    end = min(struct.unpack_from(">I", view)[0], len(view), 1024)
    return {bytes(view[at : at + 4]) for at in (8, *range(16, end - 3, 4))}


def _properties(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    for kind, content in boxes(view, "AVIF"):
        if kind == b"meta":
            yield from _within(content[4:])


def _within(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    for kind, content in boxes(view, "AVIF"):
        if kind in _CONTAINERS:
            yield from _within(content)
        else:
            yield kind, content


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
