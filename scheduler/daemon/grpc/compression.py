"""Compressed messages, unpacked within a limit.

gRPC could unpack them itself, but not every release limits what becomes of a message: 50 KB may become 50 MB. So the
server asks for messages as they arrived, and learns in which form to answer. Neither form can be mistaken for a message
of this protocol, which begins with the tag of a field: those of gzip and deflate would be of a field that there is not.
"""

from __future__ import annotations

import zlib
from enum import Enum

from scheduler.wire import WireError

_GZIP_WINDOW, _ZLIB_WINDOW = 31, 15


class Packing(Enum):
    """How a message is compressed, and how its answer will be."""

    NONE = "identity"
    GZIP = "gzip"
    DEFLATE = "deflate"


def packing_of(message: bytes) -> Packing:
    """Returns how a message that arrived is compressed.

    >>> packing_of(zlib.compress(b"x" * 99)), packing_of(b"\\x0a\\x06digits")
    (<Packing.DEFLATE: 'deflate'>, <Packing.NONE: 'identity'>)
    """
    if message[:3] == b"\x1f\x8b\x08":
        return Packing.GZIP
    # The header of zlib is a multiple of 31, and 0x78 says that it is deflate with the usual window.
    if message[:1] == b"\x78" and len(message) > 1 and (0x7800 + message[1]) % 31 == 0:
        return Packing.DEFLATE
    return Packing.NONE


def unpacked(message: bytes, packing: Packing, *, limit_bytes: int) -> bytes:
    """Returns an unpacked message of at most `limit_bytes`, and one byte more where it is longer.

    Raises:
        WireError: it is damaged.
    """
    if packing is Packing.NONE:
        return message
    reader = zlib.decompressobj(_GZIP_WINDOW if packing is Packing.GZIP else _ZLIB_WINDOW)
    try:
        content = reader.decompress(message, limit_bytes + 1)
    except zlib.error:
        content = b""
    if len(content) <= limit_bytes and not reader.eof:
        raise WireError(f"the message is not what its grpc-encoding, {packing.value}, says; send it again")
    return content
