"""Pixels as they are stored to pixels as they are shown: upright, opaque, eight bits in each of three channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from models.pictures.header import Header, unreadable

Image = npt.NDArray[np.uint8]
Stored = npt.NDArray[Any]

# Rows that are composed at a time, so that a large picture needs little memory beside itself.
_ROWS: Final = 256
_UPRIGHT: Final[dict[int, Callable[[Image], Any]]] = {
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.flip(cv2.transpose(image), -1),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def shown(stored: Stored, header: Header, background_bgr: tuple[int, int, int]) -> Image:
    """Returns the picture upright and opaque.

    Args:
        stored: height x width, or height x width x 1, 3 or 4; what the decoder gave.
        header: of the picture.
        background_bgr: what transparent pixels show.

    Returns:
        Array of shape height x width x 3, blue-green-red.

    Raises:
        ImageError: the values are not whole numbers of up to 16 bits.
    """
    alpha = None
    if header.transparent_value is not None and stored.ndim == 2:
        # The decoder widens values of fewer than eight bits to the whole range.
        widest = 65535 if stored.dtype == np.uint16 else 255
        transparent = header.transparent_value * widest // header.deepest
        alpha = np.where(stored == transparent, 0, 255).astype(np.uint8)
    pixels = _eight_bits(stored, header.kind)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        pixels = _array(cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR))
    elif pixels.shape[2] == 4:
        pixels, alpha = pixels[:, :, :3], np.ascontiguousarray(pixels[:, :, 3])
    if header.canvas is not None:
        pixels, alpha = _on_canvas(pixels, alpha, header.canvas)
    if alpha is not None:
        pixels = _composed(pixels, alpha, background_bgr, premultiplied=header.premultiplied)
    return upright(pixels, header.orientation)


def upright(image: Image, orientation: int) -> Image:
    """Returns a picture rotated and reflected by EXIF's number."""
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else _array(turn(image))


def _eight_bits(stored: Stored, kind: str) -> Image:
    if stored.dtype == np.uint8:
        return stored
    if stored.dtype == np.uint16:
        return _array(cv2.convertScaleAbs(stored, alpha=1 / 257))
    raise unreadable(kind, f"has values of type {stored.dtype}")


def _on_canvas(pixels: Image, alpha: Image | None, canvas: tuple[int, int, int, int]) -> tuple[Image, Image]:
    left, top, width, height = canvas
    place = slice(top, top + pixels.shape[0]), slice(left, left + pixels.shape[1])
    all_pixels = np.zeros((height, width, 3), np.uint8)
    all_alpha = np.zeros((height, width), np.uint8)
    all_pixels[place] = pixels
    all_alpha[place] = 255 if alpha is None else alpha
    return all_pixels, all_alpha


def _composed(pixels: Image, alpha: Image, background_bgr: tuple[int, int, int], *, premultiplied: bool) -> Image:
    composed = np.empty(pixels.shape, np.uint8)
    for top in range(0, len(pixels), _ROWS):
        rows = slice(top, top + _ROWS)
        ahead = np.ascontiguousarray(pixels[rows])
        weight = alpha[rows].astype(np.float32) * np.float32(1 / 255)
        back = np.empty_like(ahead)
        back[:] = background_bgr
        if premultiplied:
            behind = cv2.blendLinear(back, np.zeros_like(back), 1 - weight, weight)
            composed[rows] = cv2.add(ahead, behind)
        else:
            composed[rows] = cv2.blendLinear(ahead, back, weight, 1 - weight)
    return composed


def _array(image: Any) -> Image:
    return np.asarray(image, dtype=np.uint8)
