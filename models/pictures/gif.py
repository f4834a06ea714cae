"""GIF and animated GIF (GIF89a specification)."""

from __future__ import annotations

import struct

from models.pictures.header import Header, damaged, truncated

SIGNATURES = (b"GIF87a", b"GIF89a")
_IMAGE = 0x2C
_EXTENSION = 0x21
_GRAPHIC_CONTROL = 0xF9
_TRAILER = b"\x3b"
# Full blocks of them would have 50 MB; each costs a step of a loop.
_MAX_BLOCKS = 200_000


def read(view: memoryview) -> Header:
    """Reads up to the end of the first frame; the decoder gets that frame alone.

    Raises:
        ImageError: it is truncated or damaged.
    """
    if len(view) < 13:
        raise truncated("GIF", len(view))
    width, height, flags = struct.unpack_from("<HHB", view, 6)
    at = 13 + _table_bytes(flags)
    tables = bytes(view[10:at])
    control = b""
    for _ in range(_MAX_BLOCKS):
        if at + 2 > len(view):
            raise truncated("GIF", len(view))
        begin = at
        if view[at] == _EXTENSION:
            at = _after_blocks(view, at + 2)
            if view[begin + 1] == _GRAPHIC_CONTROL:
                control = bytes(view[begin:at])
        elif view[at] == _IMAGE:
            return _frame(view, at, (width, height), tables, control)
        else:
            raise damaged("GIF")
    raise damaged("GIF")


def _frame(view: memoryview, at: int, canvas: tuple[int, int], tables: bytes, control: bytes) -> Header:
    if at + 10 > len(view):
        raise truncated("GIF", len(view))
    left, top, width, height, flags = struct.unpack_from("<HHHHB", view, at + 1)
    end = _after_blocks(view, at + 10 + _table_bytes(flags) + 1)
    size = struct.pack("<HH", width, height)
    data = b"GIF89a" + size + tables + control + b"\x2c\0\0\0\0" + size + bytes(view[at + 9 : end]) + _TRAILER
    # Some encoders leave the canvas smaller than its frames; readers show the frame.
    all_width, all_height = max(canvas[0], left + width), max(canvas[1], top + height)
    part = (left, top, all_width, all_height)
    transparent = len(control) > 3 and bool(control[3] & 1)
    return Header(
        kind="GIF",
        width=width,
        height=height,
        data=data,
        whole=transparent,
        canvas=part if part != (0, 0, width, height) else None,
    )


def _table_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(view: memoryview, at: int) -> int:
    for _ in range(_MAX_BLOCKS):
        if at >= len(view):
            raise truncated("GIF", len(view))
        length = view[at]
        at += 1 + length
        if length == 0:
            return at
    raise damaged("GIF")
