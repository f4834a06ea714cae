"""Decodes pictures to arrays; refuses incomplete and too large pictures before they use memory."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import numpy.typing as npt

from models.errors import ModelError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8\xff"
_JPEG_START_OF_SCAN = 0xDA
# SOF0 to SOF15 without DHT (C4), JPG (C8) and DAC (CC), which share the range (ITU-T T.81, table B.1).
_JPEG_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers that stand alone, without a length: TEM and RST0 to RST7.
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
# A progressive picture has about ten scans. Each further scan takes a pass over all pixels but only a few bytes, so
# that a small file could keep a decoder busy for minutes.
_JPEG_MAX_SCANS = 100


class ImageError(ModelError):
    """Error: the bytes are not a picture that can be decoded; the message says what to do."""


def decode_image(data: bytes | bytearray | memoryview, *, max_pixels: int = 50_000_000) -> npt.NDArray[np.uint8]:
    """Decodes a PNG or JPEG picture.

    Args:
        data: the encoded bytes.
        max_pixels: the largest width times height, checked in the header before decoding.

    Returns:
        Array of shape height x width x 3, uint8, blue-green-red, rotated by its EXIF orientation.

    Raises:
        ImageError: the data is empty, not a PNG or JPEG, truncated, damaged, or over the limit.
    """
    view = memoryview(data).cast("B")
    width, height = _whole_size(view)
    if width * height > max_pixels:
        raise ImageError(f"the image has {width} x {height} pixels, over the limit of {max_pixels}: scale it down")
    try:
        image = cv2.imdecode(np.frombuffer(view, dtype=np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageError(_DAMAGED) from error
    if image is None:
        raise ImageError(_DAMAGED)
    return np.asarray(image, dtype=np.uint8)


_DAMAGED = "the image is damaged and cannot be decoded: encode it again"


def _whole_size(view: memoryview) -> tuple[int, int]:
    """Returns width and height of a picture after checking that it is complete.

    Raises:
        ImageError: the data is empty, not a PNG or JPEG, or truncated.
    """
    if not view:
        raise ImageError("the image is empty: send the bytes of a PNG or JPEG file")
    if view[:8] == _PNG_SIGNATURE[: len(view)]:
        return _png_size(view)
    if view[:3] == _JPEG_SIGNATURE[: len(view)]:
        return _jpeg_size(bytes(view))
    raise ImageError("the data is not a PNG or JPEG image: convert it to one of these")


def _truncated(kind: str, size_bytes: int) -> ImageError:
    return ImageError(f"the {kind} image is truncated after {size_bytes} bytes: send the whole file")


def _png_size(view: memoryview) -> tuple[int, int]:
    """Reads the chunks up to IEND (W3C PNG, section 5) and returns the size; the decoder checks the checksums."""
    size: tuple[int, int] | None = None
    at = len(_PNG_SIGNATURE)
    while at + 12 <= len(view):
        length, kind = struct.unpack_from(">I4s", view, at)
        end = at + 12 + length
        if end > len(view):
            break
        if kind == b"IHDR" and length == 13:
            width, height = struct.unpack_from(">II", view, at + 8)
            size = width, height
        if kind == b"IEND":
            return _present(size)
        at = end
    raise _truncated("PNG", len(view))


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Reads the segments up to the first scan and returns the size; an end marker must follow (ITU-T T.81, annex B)."""
    size: tuple[int, int] | None = None
    at = 2
    while at + 4 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF:
            raise ImageError(_DAMAGED)
        if marker == 0xFF or marker in _JPEG_BARE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in _JPEG_START_OF_FRAME and at + 9 <= len(data):
            height, width = struct.unpack_from(">HH", data, at + 5)
            size = width, height
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
        if marker == _JPEG_START_OF_SCAN:
            _check_scans(data, at)
            return _present(size)
    raise _truncated("JPEG", len(data))


def _check_scans(data: bytes, at: int) -> None:
    # Inside a scan, 0xFF is always followed by a zero, so these two bytes can only be markers.
    if data.rfind(b"\xff\xd9", at) < 0:
        raise _truncated("JPEG", len(data))
    if data.count(b"\xff\xda", at) >= _JPEG_MAX_SCANS:
        raise ImageError(f"the JPEG image has over {_JPEG_MAX_SCANS} scans: encode it again, baseline")


def _present(size: tuple[int, int] | None) -> tuple[int, int]:
    if size is None:
        raise ImageError(_DAMAGED)
    return size
