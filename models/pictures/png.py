"""PNG and animated PNG (W3C Portable Network Graphics, third edition)."""

from __future__ import annotations

import struct
import zlib

from models.pictures import exif
from models.pictures.header import Header, damaged, truncated

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY = 0
_WITH_ALPHA = frozenset({4, 6})
# Chunks of the animation; without them the decoder sees the picture that every reader of PNG shows.
_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})
# The decoder checks the pixels' own checksums.
_UNCHECKED = _ANIMATION | {b"IDAT"}
# A picture of 4 KB chunks would have 400 MB; each chunk costs a step of a loop.
_MAX_CHUNKS = 100_000


def read(view: memoryview) -> Header:
    """Reads the chunks up to IEND.

    Raises:
        ImageError: it is truncated or damaged.
    """
    header: tuple[int, int, int, int] | None = None
    key: bytes | None = None
    turned = 1
    kept: list[memoryview] = [view[: len(SIGNATURE)]]
    at = len(SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        if at + 12 > len(view):
            raise truncated("PNG", len(view))
        length, kind = struct.unpack_from(">I4s", view, at)
        end = at + 12 + length
        if end > len(view):
            raise truncated("PNG", len(view))
        content = view[at + 8 : end - 4]
        if kind not in _UNCHECKED and zlib.crc32(view[at + 4 : end - 4]) != struct.unpack_from(">I", view, end - 4)[0]:
            raise damaged("PNG")
        if (kind == b"IHDR") != (header is None) or (kind == b"IHDR" and length != 13):
            raise damaged("PNG")
        if kind == b"IHDR":
            width, height, bits, colour = struct.unpack_from(">IIBB", content)
            header = width, height, bits, colour
        elif kind == b"tRNS":
            key = bytes(content)
        elif kind == b"eXIf":
            turned = exif.orientation(bytes(content))
        if kind not in _ANIMATION:
            kept.append(view[at:end])
        at = end
        if kind == b"IEND":
            assert header is not None
            animated = sum(len(part) for part in kept) < at
            return _header(header, key, turned, b"".join(kept) if animated else view[:at])
    raise damaged("PNG")


def _header(header: tuple[int, int, int, int], key: bytes | None, turned: int, data: bytes | memoryview) -> Header:
    width, height, bits, colour = header
    grey_key = struct.unpack(">H", key)[0] if colour == _GREY and key is not None and len(key) == 2 else None
    return Header(
        kind="PNG",
        width=width,
        height=height,
        data=data,
        orientation=turned,
        whole=bits == 16 or colour in _WITH_ALPHA or key is not None,
        transparent_value=grey_key,
        memory=2 if bits == 16 else 1,
        deepest=2**bits - 1,
    )
