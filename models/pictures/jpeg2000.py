"""JPEG 2000: the codestream (ITU-T T.800), bare or in the boxes of JP2."""

from __future__ import annotations

import struct

from models.pictures.boxes import boxes
from models.pictures.header import Header, damaged, truncated, unreadable

BOXED = b"\0\0\0\x0cjP  \r\n\x87\n"
BARE = b"\xff\x4f\xff\x51"
_MAX_CHANNELS = 4


def read(view: memoryview) -> Header:
    """Reads the size of the codestream, which is what the decoder goes by.

    Raises:
        ImageError: it is truncated or damaged.
    """
    codestream = view if view[:4] == BARE else _codestream(view)
    if len(codestream) < 42 or codestream[:4] != BARE:
        raise truncated("JPEG 2000", len(view))
    right, bottom, left, top = struct.unpack_from(">IIII", codestream, 8)
    channels = struct.unpack_from(">H", codestream, 40)[0]
    if right < left or bottom < top:
        raise damaged("JPEG 2000")
    if channels > _MAX_CHANNELS:
        raise unreadable("JPEG 2000", f"has {channels} channels")
    # Its decoder holds four bytes for each value of each channel.
    return Header(kind="JPEG 2000", width=right - left, height=bottom - top, data=view, whole=True, memory=4)


def _codestream(view: memoryview) -> memoryview:
    for kind, content in boxes(view, "JPEG 2000"):
        if kind == b"jp2c":
            return content
    raise truncated("JPEG 2000", len(view))
