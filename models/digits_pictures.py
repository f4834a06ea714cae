"""Pictures of handwritten digits like those of a camera: dark ink on grained paper, 224 x 224, PNG or JPEG."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

SIDE = 224
_FULL_INK = 16.0
_PAPER = 235.0
_INK_DEPTH = 200.0
# Grain and JPEG quality are chosen for about 17 KB a PNG and 7 KB a JPEG; uniform paper would give 10 and 5 KB.
_GRAIN = 1.8
_GRAIN_SIZE = 1.2
_OPTIONS = {
    "jpeg": (".jpg", (cv2.IMWRITE_JPEG_QUALITY, 92)),
    "png": (".png", (cv2.IMWRITE_PNG_COMPRESSION, 6)),
}


def encode(image8x8: npt.NDArray[np.float64], kind: Literal["jpeg", "png"] = "jpeg", index: int = 0) -> bytes:
    """Draws one digit and encodes it.

    Args:
        image8x8: ink from 0 to 16, as in scikit-learn's digits.
        kind: the encoding.
        index: seed of the paper's grain; the same arguments give the same bytes.

    Returns:
        The encoded picture, about 7 KB as JPEG and 17 KB as PNG.
    """
    extension, options = _OPTIONS[kind]
    _, encoded = cv2.imencode(extension, _picture(image8x8, index), options)
    return encoded.tobytes()


def _picture(image8x8: npt.NDArray[np.float64], index: int) -> npt.NDArray[np.uint8]:
    ink = cv2.resize(image8x8.astype(np.float32) / _FULL_INK, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    grey = _PAPER - _INK_DEPTH * np.asarray(ink) + _GRAIN * _grain(index)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def _grain(index: int) -> npt.NDArray[np.float32]:
    rough = np.random.default_rng(index).standard_normal((SIDE, SIDE), dtype=np.float32)
    smooth = np.asarray(cv2.GaussianBlur(rough, (0, 0), _GRAIN_SIZE), dtype=np.float32)
    return np.asarray(smooth / smooth.std(), dtype=np.float32)
