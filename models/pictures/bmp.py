"""BMP (Windows bitmap)."""

from __future__ import annotations

import struct

from models.pictures.header import Header, damaged, truncated

SIGNATURE = b"BM"
_OLD_HEADER = 12
_BIT_FIELDS = 3
# From the third extension of the header on it has a mask of the alpha channel.
_WITH_ALPHA_MASK = 56


def read(view: memoryview) -> Header:
    """Reads the header.

    Raises:
        ImageError: it is truncated or damaged.
    """
    if len(view) < 26:
        raise truncated("BMP", len(view))
    header_bytes = struct.unpack_from("<I", view, 14)[0]
    if header_bytes == _OLD_HEADER:
        width, height = struct.unpack_from("<HH", view, 18)
        return Header(kind="BMP", width=width, height=height, data=view)
    if header_bytes < 40:
        raise damaged("BMP")
    if len(view) < 14 + header_bytes:
        raise truncated("BMP", len(view))
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", view, 18)
    masked = bits == 32 and compression == _BIT_FIELDS and header_bytes >= _WITH_ALPHA_MASK
    transparent = masked and struct.unpack_from("<I", view, 66)[0] != 0
    # A negative height says that the first row is the top one.
    return Header(kind="BMP", width=max(width, 0), height=abs(height), data=view, whole=transparent)
