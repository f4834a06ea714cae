"""Converts a decoded picture to the input of a network. Needs OpenCV and numpy only; runs in decoding threads."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
NetworkInput = npt.NDArray[np.float32]

DIGIT_SIDE = 28
# The values used to train torchvision's ImageNet weights (its documentation of ResNet50_Weights.IMAGENET1K_V1).
_RESIZED_SIDE = 256
_CROPPED_SIDE = 224
_MEAN_RGB = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_DEVIATION_RGB = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def digit_input(image: Image) -> NetworkInput:
    """Reduces a picture of dark ink on light paper to the mean ink of each cell.

    Args:
        image: height x width x 3, uint8, blue-green-red.

    Returns:
        Array of shape 1 x 28 x 28, from 0 for white paper to 1 for black ink.
    """
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (DIGIT_SIDE, DIGIT_SIDE), interpolation=cv2.INTER_AREA)
    return (1.0 - np.asarray(small, dtype=np.float32) / 255.0)[np.newaxis]


def imagenet_input(image: Image) -> NetworkInput:
    """Scales the shorter side to 256, crops the central 224 x 224, and normalises each colour.

    Args:
        image: height x width x 3, uint8, blue-green-red.

    Returns:
        Array of shape 3 x 224 x 224, red-green-blue.
    """
    middle = _middle(_shorter_side_resized(image))
    rgb = cv2.cvtColor(middle, cv2.COLOR_BGR2RGB)
    normalised = (np.asarray(rgb, dtype=np.float32) / 255.0 - _MEAN_RGB) / _DEVIATION_RGB
    return np.ascontiguousarray(normalised.transpose(2, 0, 1))


def _shorter_side_resized(image: Image) -> Image:
    """Returns the central square scaled to 256 x 256; it is cropped first so that only the used part is scaled."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    method = cv2.INTER_AREA if side > _RESIZED_SIDE else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (_RESIZED_SIDE, _RESIZED_SIDE), interpolation=method), dtype=np.uint8)


def _middle(square: Image) -> Image:
    margin = (_RESIZED_SIDE - _CROPPED_SIDE) // 2
    return square[margin : margin + _CROPPED_SIDE, margin : margin + _CROPPED_SIDE]
