"""How many pixels a picture has and how much work they are, from its first bytes: before any host decodes it."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

MAX_PIXELS: Final = 50_000_000
"""A picture of a camera of 48 megapixels; it takes 150 MB while it is decoded."""
MAX_BATCH_PIXELS: Final = 256_000_000
"""As many as 32 pictures of a screen of 4K have, which take some 7 s of one core."""
_SCALED_BY: Final = 8
"""A baseline JPEG counts as so many times fewer pixels: its decoder scales it down while it reads it."""
_MAX_SEGMENTS: Final = 64
# SOF0, SOF1: baseline and extended; the others have to be decoded whole before they can be scaled down.
_BASELINE: Final = frozenset({0xC0, 0xC1})
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, slots=True)
class Weight:
    """What the first bytes of a picture say of its size."""

    width: int
    height: int
    work: int
    """Pixels that have to be decoded, about."""

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height


def weight_of(picture: bytes | memoryview) -> Weight | None:
    """Returns the weight of a PNG, JPEG, GIF, WebP or BMP; None of other files and of broken ones.

    >>> weight_of(b"BM" + bytes(16) + bytes([200, 0, 0, 0, 100, 0, 0, 0]))
    Weight(width=200, height=100, work=20000)
    """
    view = memoryview(picture).cast("B")
    try:
        size = _size(view)
    except (struct.error, IndexError):
        return None
    if size is None:
        return None
    width, height, is_scaled = size
    pixels = width * height
    return Weight(width, height, pixels // _SCALED_BY if is_scaled else pixels)


def _size(view: memoryview) -> tuple[int, int, bool] | None:
    """Returns width, height and whether the decoder scales it down; struct.error or IndexError if it is cut off."""
    begin = bytes(view[:4])
    if begin == b"\x89PNG":
        return (*struct.unpack_from(">II", view, 16), False)
    if begin[:3] == b"\xff\xd8\xff":
        return _jpeg(view)
    if begin == b"GIF8":
        return _gif(view)
    if begin == b"RIFF" and bytes(view[8:12]) == b"WEBP":
        return _webp(view)
    if begin[:2] == b"BM":
        width, height = struct.unpack_from("<ii", view, 18)
        return abs(width), abs(height), False
    return None


def _jpeg(view: memoryview) -> tuple[int, int, bool] | None:
    at = 2
    for _ in range(_MAX_SEGMENTS):
        mark, marker, length = struct.unpack_from(">BBH", view, at)
        if mark != 0xFF:
            return None
        if marker == 0xFF:
            at += 1
            continue
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", view, at + 5)
            return width, height, marker in _BASELINE
        at += 2 + length
    return None


def _gif(view: memoryview) -> tuple[int, int, bool] | None:
    width, height, flags = struct.unpack_from("<HHB", view, 6)
    at = 13 + (6 << (flags & 7) if flags & 0x80 else 0)
    for _ in range(_MAX_SEGMENTS):
        if view[at] == 0x2C:
            left, top, wide, high = struct.unpack_from("<HHHH", view, at + 1)
            return max(width, left + wide), max(height, top + high), False
        at += 2
        while length := view[at]:
            at += 1 + length
        at += 1
    return None


def _webp(view: memoryview) -> tuple[int, int, bool] | None:
    kind = bytes(view[12:16])
    if kind == b"VP8X":
        wide, high = (int.from_bytes(view[at : at + 3], "little") + 1 for at in (24, 27))
        return wide, high, False
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", view, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, False
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", view, 26)
        return width & 0x3FFF, height & 0x3FFF, False
    return None


def too_large(weight: Weight, max_pixels: int) -> str:
    """Returns why a picture is too large, as one sentence; empty if it is not."""
    if weight.pixels <= max_pixels:
        return ""
    return f"the image has {weight.width} x {weight.height} pixels, over the limit of {max_pixels}: scale it down"


def too_much(weights: Iterable[Weight | None], max_batch_pixels: int) -> Sequence[tuple[int, str]]:
    """Returns which pictures of a batch are left out, the largest first, so that the others keep the budget.

    Args:
        weights: of all pictures of the batch; None: not known.
        max_batch_pixels: the budget of their work.

    Returns:
        Their indices, each with why, as one sentence.
    """
    known = [(index, weight) for index, weight in enumerate(weights) if weight is not None]
    total = whole = sum(weight.work for _, weight in known)
    out: list[tuple[int, str]] = []
    for index, weight in sorted(known, key=lambda one: -one[1].work):
        if total <= max_batch_pixels:
            break
        total -= weight.work
        sentence = (
            f"the image has {weight.width} x {weight.height} pixels, and its batch {whole} to decode, over the limit of"
            f" {max_batch_pixels}: scale it down, or send fewer at once"
        )
        out.append((index, sentence))
    return out
