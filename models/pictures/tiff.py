"""TIFF 6.0, its first page."""

from __future__ import annotations

import struct

from models.pictures.header import Header, damaged, truncated, unreadable

SIGNATURES = (b"II*\0", b"MM\0*")
BIG_SIGNATURES = (b"II+\0", b"MM\0+")
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES = 256, 257, 258, 262, 277
_TILE_WIDTH, _TILE_HEIGHT, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 322, 323, 338, 339
_GREY = frozenset({0, 1})
_RGB = 2
_UNSIGNED = 1
_STRAIGHT_ALPHA = 2
_FORMATS = {1: "B", 3: "H", 4: "I"}


def read(view: memoryview) -> Header:
    """Reads the first directory; the decoder rotates the picture by itself.

    Raises:
        ImageError: it is truncated or damaged, or of a kind that cannot be read.
    """
    if len(view) < 8:
        raise truncated("TIFF", len(view))
    tags = _first_values(view, "<" if view[0] == ord("I") else ">")
    width, height = tags.get(_WIDTH, 0), tags.get(_HEIGHT, 0)
    bits, samples, photometric = tags.get(_BITS, 1), tags.get(_SAMPLES, 1), tags.get(_PHOTOMETRIC, 1)
    if tags.get(_SAMPLE_FORMAT, _UNSIGNED) != _UNSIGNED or bits > 16:
        raise unreadable("TIFF", "has values that are not whole numbers of up to 16 bits")
    if photometric in _GREY and samples > 1:
        raise unreadable("TIFF", "is grey with transparency or further channels")
    if tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_HEIGHT, 0) > max(4 * width * height, 1_000_000):
        raise damaged("TIFF")
    transparent = photometric == _RGB and samples > 3
    return Header(
        kind="TIFF",
        width=width,
        height=height,
        data=view,
        whole=transparent,
        memory=2 if bits == 16 else 1,
        # The decoder multiplies 8-bit colours by their alpha channel, and leaves 16-bit ones as they are stored.
        premultiplied=transparent and (bits == 8 or tags.get(_EXTRA_SAMPLES, 0) != _STRAIGHT_ALPHA),
    )


def _first_values(view: memoryview, order: str) -> dict[int, int]:
    """Returns the first value of each entry of the first directory that holds whole numbers."""
    at = struct.unpack_from(f"{order}I", view, 4)[0]
    if at + 2 > len(view):
        raise truncated("TIFF", len(view))
    count = struct.unpack_from(f"{order}H", view, at)[0]
    if at + 2 + 12 * count > len(view):
        raise truncated("TIFF", len(view))
    found = {}
    for begin in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, length = struct.unpack_from(f"{order}HHI", view, begin)
        code = _FORMATS.get(kind)
        if code is None:
            continue
        where = begin + 8
        if length * struct.calcsize(code) > 4:
            where = struct.unpack_from(f"{order}I", view, where)[0]
        if where + struct.calcsize(code) > len(view):
            raise truncated("TIFF", len(view))
        if tag in found:
            raise damaged("TIFF")
        found[tag] = struct.unpack_from(f"{order}{code}", view, where)[0]
    return found
