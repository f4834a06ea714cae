"""A packed body unpacked piece by piece, so that neither a bomb nor one that was cut off passes for a whole one."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from scheduler.daemon.ingress.errors import Rejected

PIECE_BYTES = 256 * 1024
"""Largest piece that comes out at once."""
_GZIP_BITS = 16 + zlib.MAX_WBITS
_ZLIB_METHOD = 8


class Unpacker:
    """One body; `end` says whether it was whole."""

    def __init__(self, coding: str) -> None:
        """Begins a body in this Content-Encoding: "gzip", or "deflate", which some send without the head of zlib."""
        self._decoder = None if coding == "deflate" else zlib.decompressobj(_GZIP_BITS)

    def pieces(self, packed: bytes) -> Iterator[bytes]:
        """Yields what the next bytes, one at least, hold.

        Raises:
            Rejected: they are not in this coding, or go on behind its end.
        """
        if self._decoder is None:
            has_head = packed[0] & 0xF == _ZLIB_METHOD
            self._decoder = zlib.decompressobj(zlib.MAX_WBITS if has_head else -zlib.MAX_WBITS)
        decoder = self._decoder
        try:
            while packed:
                if decoder.eof:
                    raise _broken()
                piece = decoder.decompress(packed, PIECE_BYTES)
                packed = decoder.unused_data or decoder.unconsumed_tail
                if piece:
                    yield piece
            # What the decoder keeps of a full piece comes without further input.
            while not decoder.eof and (piece := decoder.decompress(b"", PIECE_BYTES)):
                yield piece
        except zlib.error:
            raise _broken() from None

    def end(self) -> None:
        """Ends the body.

        Raises:
            Rejected: its end is missing.
        """
        if self._decoder is None or not self._decoder.eof:
            raise _broken()


def _broken() -> Rejected:
    return Rejected(400, "the body does not match its Content-Encoding or Transfer-Encoding; send it again")
