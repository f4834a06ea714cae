"""WebP and animated WebP (RFC 9649)."""

from __future__ import annotations

import struct

from models.pictures import exif
from models.pictures.header import Header, damaged, truncated

_ALPHA = 0x10
_ANIMATED = 0x02
_LOSSY = b"VP8 "
_LOSSLESS = b"VP8L"
_START_CODE = b"\x9d\x01\x2a"
# An hour of animation; each chunk costs a step of a loop.
_MAX_CHUNKS = 100_000

_Chunks = dict[bytes, memoryview]


def is_webp(view: memoryview) -> bool:
    """Returns whether it begins like a WebP file."""
    return bytes(view[:4]) == b"RIFF" and bytes(view[8:12]) == b"WEBP"


def read(view: memoryview) -> Header:
    """Reads the chunks; of an animation the decoder gets the first frame alone.

    Raises:
        ImageError: it is truncated or damaged.
    """
    if len(view) < 20:
        raise truncated("WebP", len(view))
    end = 8 + struct.unpack_from("<I", view, 4)[0]
    if end > len(view):
        raise truncated("WebP", len(view))
    whole = view[:end]
    chunks = _chunks(whole[12:])
    turned = exif.orientation(bytes(chunks[b"EXIF"])) if b"EXIF" in chunks else 1
    extended = chunks.get(b"VP8X")
    if extended is None:
        return _still(chunks, whole, turned)
    if len(extended) < 10:
        raise damaged("WebP")
    if not extended[0] & _ANIMATED:
        if (_three(extended, 4) + 1, _three(extended, 7) + 1) != _bitstream_size(chunks)[:2]:
            raise damaged("WebP")
        return _still(chunks, whole, turned, transparent=bool(extended[0] & _ALPHA))
    frame = chunks.get(b"ANMF")
    if frame is None or len(frame) < 16:
        raise damaged("WebP")
    return _first_frame(frame, (_three(extended, 4) + 1, _three(extended, 7) + 1), turned)


def _chunks(view: memoryview) -> _Chunks:
    """Returns the first chunk of each kind."""
    found: _Chunks = {}
    at = 0
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(view):
            return found
        kind, length = struct.unpack_from("<4sI", view, at)
        if at + 8 + length > len(view):
            raise damaged("WebP")
        found.setdefault(kind, view[at + 8 : at + 8 + length])
        at += 8 + length + (length & 1)
    raise damaged("WebP")


def _still(chunks: _Chunks, data: bytes | memoryview, turned: int, *, transparent: bool = False) -> Header:
    width, height, alpha = _bitstream_size(chunks)
    return Header(kind="WebP", width=width, height=height, data=data, orientation=turned, whole=transparent or alpha)


def _first_frame(frame: memoryview, canvas: tuple[int, int], turned: int) -> Header:
    chunks = _chunks(frame[16:])
    width, height, alpha = _bitstream_size(chunks)
    transparent = alpha or b"ALPH" in chunks
    extended = struct.pack("<I", _ALPHA if transparent else 0) + _pack_three(width - 1) + _pack_three(height - 1)
    parts = {b"VP8X": extended, **{kind: chunks[kind] for kind in (b"ALPH", _LOSSY, _LOSSLESS) if kind in chunks}}
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(part)) + bytes(part) + bytes(len(part) & 1) for kind, part in parts.items()
    )
    part = (2 * _three(frame, 0), 2 * _three(frame, 3), *canvas)
    if part[0] + width > canvas[0] or part[1] + height > canvas[1]:
        raise damaged("WebP")
    return Header(
        kind="WebP",
        width=width,
        height=height,
        data=b"RIFF" + struct.pack("<I", len(body)) + body,
        orientation=turned,
        whole=transparent,
        canvas=part if part != (0, 0, width, height) else None,
    )


def _bitstream_size(chunks: _Chunks) -> tuple[int, int, bool]:
    """Returns width and height of the frame, and whether it has an alpha channel of its own."""
    lossy, lossless = chunks.get(_LOSSY), chunks.get(_LOSSLESS)
    if lossy is not None and len(lossy) >= 10 and lossy[3:6] == _START_CODE:
        width, height = struct.unpack_from("<HH", lossy, 6)
        if width & 0x3FFF and height & 0x3FFF:
            return width & 0x3FFF, height & 0x3FFF, False
    if lossless is not None and len(lossless) >= 5 and lossless[0] == 0x2F:
        bits = struct.unpack_from("<I", lossless, 1)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    raise damaged("WebP")


def _three(view: memoryview, at: int) -> int:
    return int.from_bytes(view[at : at + 3], "little")


def _pack_three(number: int) -> bytes:
    return number.to_bytes(3, "little")
