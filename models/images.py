"""Decodes pictures to arrays; refuses incomplete and too large pictures before they use memory."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from models.pictures import jpeg
from models.pictures.header import Header, ImageError, damaged, truncated
from models.pictures.kinds import read_header
from models.pictures.pixels import shown
from models.pictures.weight import MAX_PIXELS

__all__ = ["MAX_PIXELS", "ImageError", "decode_image"]

Image = npt.NDArray[np.uint8]

# A file of a few kilobytes can hold pixels without end, all of one colour, that take a second to decode. Below this
# number any file may; above it, it must have a byte for each thousand: deflate itself cannot do with less.
_FREE_PIXELS: Final = 16_000_000
_PIXELS_A_BYTE: Final = 1000

_AS_STORED: Final = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_REDUCED: Final = {
    1: _AS_STORED,
    2: cv2.IMREAD_REDUCED_COLOR_2 | cv2.IMREAD_IGNORE_ORIENTATION,
    4: cv2.IMREAD_REDUCED_COLOR_4 | cv2.IMREAD_IGNORE_ORIENTATION,
    8: cv2.IMREAD_REDUCED_COLOR_8 | cv2.IMREAD_IGNORE_ORIENTATION,
}
# How far the far edge of a reduced picture may be out of place, in pixels of what it will be scaled to.
_MOVED: Final = 0.25
# What a decoder shows where a JPEG's data has ended: grey; half of it where black ink multiplies it once more.
_PADDING: Final = frozenset({127, 128, 129, 63, 64, 65})
# The name of each optional format in OpenCV's build information.
_BUILD_NAMES: Final = {"GIF": "GIF", "WebP": "WEBP", "TIFF": "TIFF", "AVIF": "AVIF", "JPEG 2000": "JPEG 2000"}


def decode_image(
    data: bytes | bytearray | memoryview,
    *,
    max_pixels: int = MAX_PIXELS,
    background_rgb: tuple[int, int, int] = (255, 255, 255),
    shrink: Callable[[int, int], float] | None = None,
) -> Image:
    """Decodes a picture; of several in one file, the first.

    Args:
        data: the encoded bytes: PNG, JPEG, and what else OpenCV reads of WebP, GIF, BMP, TIFF, AVIF and JPEG 2000.
        max_pixels: the largest width times height, checked in the header before decoding.
        background_rgb: what transparent pixels show.
        shrink: by how much a picture of this height and width will be scaled down; then it may come scaled down by as
            much or less, which takes less time. None: it comes as it is.

    Returns:
        Array of shape height x width x 3, uint8, blue-green-red, rotated by its EXIF orientation.

    Raises:
        ImageError: the data is empty, of no known format, truncated, damaged, or over the limit.
    """
    header = read_header(memoryview(data).cast("B"))
    _check_size(header, max_pixels, len(data))
    flags = cv2.IMREAD_UNCHANGED if header.whole else _REDUCED[_reduction(header, shrink)]
    stored = _decoded(header.data, flags)
    if stored is None:
        raise _undecodable(header.kind)
    if header.padded and (header.always_doubtful or set(stored[-1, -1].tolist()) <= _PADDING):
        _check_end(header)
    red, green, blue = background_rgb
    return shown(stored, header, (blue, green, red))


def _check_size(header: Header, max_pixels: int, size_bytes: int) -> None:
    width, height = header.stored_size
    pixels = max(width * height, header.width * header.height)
    limit = max_pixels // header.memory
    if pixels > limit:
        of_this = "" if header.memory == 1 else f" for such a {header.kind} image"
        raise ImageError(f"the image has {width} x {height} pixels, over the limit of {limit}{of_this}: scale it down")
    if pixels > _FREE_PIXELS + _PIXELS_A_BYTE * size_bytes:
        raise ImageError(f"the image has {width} x {height} pixels in {size_bytes} bytes, too many: scale it down")
    if header.width * header.height == 0:
        raise damaged(header.kind)


def _reduction(header: Header, shrink: Callable[[int, int], float] | None) -> int:
    """Returns 1, 2, 4 or 8: by how much the decoder itself may scale down."""
    if shrink is None or not header.reducible:
        return 1
    sides = header.height, header.width
    factor = shrink(*(reversed(sides) if header.orientation >= 5 else sides))
    # A side that is no multiple of the reduction is padded to one by the decoder, which moves the far edge.
    return max(
        reduction
        for reduction in _REDUCED
        if reduction == 1 or (reduction <= factor and max(-side % reduction for side in sides) <= _MOVED * factor)
    )


def _decoded(data: bytes | memoryview, flags: int) -> npt.NDArray[Any] | None:
    try:
        return cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error:
        return None


def _check_end(header: Header) -> None:
    """Raises ImageError if a decoder reads further pixels where the file has its end marker."""
    smallest = _REDUCED[8]
    seen = _decoded(header.data, smallest)
    for further in jpeg.continuations(header):
        seen_further = _decoded(further, smallest)
        if seen is None or seen_further is None or not np.array_equal(seen, seen_further):
            raise truncated(header.kind, len(header.data))


def _undecodable(kind: str) -> ImageError:
    name = _BUILD_NAMES.get(kind)
    if name is not None and name not in _built_with():
        return ImageError(
            f"this is a {kind} picture, which OpenCV {cv2.__version__} as installed here cannot read:"
            " convert it to PNG or JPEG"
        )
    return damaged(kind)


@lru_cache(maxsize=1)
def _built_with() -> frozenset[str]:
    found = re.findall(r"^ +([A-Z][\w ]*): +(\S+)", cv2.getBuildInformation(), re.MULTILINE)
    return frozenset(name for name, value in found if value != "NO")


def _silence() -> None:
    """Turns off OpenCV's own messages: a broken picture becomes a sentence for its sender, not lines in a log."""
    logging = getattr(getattr(cv2, "utils", None), "logging", None)
    set_level = getattr(cv2, "setLogLevel", None) or getattr(logging, "setLogLevel", None)
    if set_level is not None:
        set_level(0)


_silence()
