"""EXIF: how a camera was held (CIPA DC-008)."""

from __future__ import annotations

import struct

PREFIX = b"Exif\0\0"
_ORIENTATION = 0x0112
_SHORT = 3


def orientation(block: bytes) -> int:
    """Returns the orientation, 1 to 8, of an EXIF block (a TIFF header and its directory); 1 if it has none."""
    block = block.removeprefix(PREFIX)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None or len(block) < 8:
        return 1
    at = struct.unpack_from(f"{order}I", block, 4)[0]
    if at + 2 > len(block):
        return 1
    for entry in range(struct.unpack_from(f"{order}H", block, at)[0]):
        begin = at + 2 + 12 * entry
        if begin + 12 > len(block):
            break
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", block, begin)
        if tag == _ORIENTATION:
            return value if kind == _SHORT and 1 <= value <= 8 else 1
    return 1
