"""A picture's file to the input of a network, in two steps: each picture in any thread, and then the whole batch.

`Pictures.prepare` decodes one picture to a uint8 array of fixed shape; `normalise` turns a batch of them into the
network's float32 input. Between them lies a quarter of the bytes, and a runtime with a device may do the second step
there, by `Preprocess.scales` and `offsets`. Needs OpenCV and numpy only.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from models.images import decode_image
from models.pictures.weight import MAX_PIXELS
from models.preprocess_settings import DIGITS, IMAGENET, Layout, Preprocess

Image = npt.NDArray[np.uint8]
NetworkInput = npt.NDArray[np.float32]

DIGIT_SIDE = DIGITS.height
# Below this factor, linear interpolation still weighs every pixel. Measured on the worst case, noise of all sizes at
# 500 x 375: its mean distance to torchvision's result is 0.4 levels of 255, like that of areas, in a seventh of the
# time. One channel takes little time either way.
_SLIGHT = 1.5


class Pictures:
    """Prepares pictures as a network wants them. Any thread may call it; OpenCV releases the interpreter's lock."""

    def __init__(self, settings: Preprocess, *, max_pixels: int = MAX_PIXELS) -> None:
        """Stores the arguments; `max_pixels` bounds width times height of what is decoded."""
        self.settings = settings
        self._max_pixels = max_pixels

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of a prepared picture: height, width, channels."""
        return self.settings.shape

    def prepare(self, element: bytes | bytearray | memoryview) -> Image:
        """Decodes, scales and crops one picture.

        Returns:
            Contiguous array of the shape `shape`, whatever the layout of the network's input.

        Raises:
            ImageError: the picture cannot be decoded, or is over the limit; the message says what to do.
        """
        return fitted(self.decode(element), self.settings)

    def decode(self, element: bytes | bytearray | memoryview) -> Image:
        """Returns one decoded picture, scaled down by as much as its decoder can without being too small.

        Raises:
            ImageError: see `prepare`.
        """
        return decode_image(
            element,
            max_pixels=self._max_pixels,
            background_rgb=self.settings.background_rgb,
            shrink=self._shrink,
        )

    def _shrink(self, height: int, width: int) -> float:
        down, across = height / self.settings.scaled[0], width / self.settings.scaled[1]
        return max(down, across) if self.settings.resize == "letterbox" else min(down, across)


def fitted(image: Image, settings: Preprocess) -> Image:
    """Scales, crops and orders the colours of a decoded picture.

    Args:
        image: height x width x 3, uint8, blue-green-red.
        settings: of the network.

    Returns:
        Contiguous array of the shape `settings.shape`.
    """
    if settings.colour == "GREY":
        image = _array(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
    scaled = _letterboxed(image, settings) if settings.resize == "letterbox" else _covered(image, settings)
    image = _centre(scaled, settings.height, settings.width)
    if settings.colour == "RGB":
        image = _array(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    return np.ascontiguousarray(image).reshape(settings.shape)


def normalise(batch: Image, settings: Preprocess, *, layout: Layout | None = None) -> NetworkInput:
    """Returns a batch of prepared pictures as the network's input: (value / 255 - mean) / std.

    Args:
        batch: items x height x width x channels.
        settings: of the network.
        layout: order of the axes of one item; None: that of the settings.

    Returns:
        Array of the shape items x `settings.input_shape`, or as `layout` says.
    """
    # A table of 256 values for each channel is the fastest of what OpenCV and numpy offer, and rounds once.
    tables = _tables(settings)
    batch = np.ascontiguousarray(batch)
    items, height, width, channels = batch.shape
    last = (layout or settings.layout) == "HWC"
    if last or channels == 1:
        rows = batch.reshape(items * height, width, channels)
        values = _floats(cv2.LUT(rows, tables.T.reshape(1, 256, channels)))
        return values.reshape(items, *((height, width, channels) if last else (channels, height, width)))
    planes = np.empty((items, channels, height, width), np.float32)
    for picture, of_picture in zip(batch, planes, strict=True):
        for channel in range(channels):
            cv2.LUT(cv2.extractChannel(picture, channel), tables[channel], dst=of_picture[channel])
    return planes


@lru_cache(maxsize=64)
def _tables(settings: Preprocess) -> NetworkInput:
    """Returns what each of the 256 values becomes, a row for each channel."""
    values = np.arange(256, dtype=np.float32) / np.float32(255.0)
    mean, std = (np.array(numbers, np.float32)[:, np.newaxis] for numbers in (settings.means, settings.stds))
    # Adding zero makes a plain zero of a negative one.
    return _floats((values - mean) / std + np.float32(0.0))


def digit_input(image: Image) -> NetworkInput:
    """Reduces a picture of dark ink on light paper to the mean ink of each cell.

    Args:
        image: height x width x 3, uint8, blue-green-red.

    Returns:
        Array of shape 1 x 28 x 28, from 0 for white paper to 1 for black ink.
    """
    return _floats(normalise(fitted(image, DIGITS)[np.newaxis], DIGITS)[0])


def imagenet_input(image: Image) -> NetworkInput:
    """Scales the shorter side to 256, crops the central 224 x 224, and normalises each colour.

    Args:
        image: height x width x 3, uint8, blue-green-red.

    Returns:
        Array of shape 3 x 224 x 224, red-green-blue.
    """
    return _floats(normalise(fitted(image, IMAGENET)[np.newaxis], IMAGENET)[0])


def _covered(image: Image, settings: Preprocess) -> Image:
    """Scales to `size`, or so that it is covered; sides are rounded down, as torchvision does."""
    down, across = settings.scaled
    if settings.resize == "stretch":
        return _resized(image, down, across)
    scale = min(image.shape[0] / down, image.shape[1] / across)
    # What sticks out far is not scaled: a picture of 1 x 20,000 would become one of a billion pixels.
    image = _centre(image, _part(2 * down * scale, image.shape[0]), _part(2 * across * scale, image.shape[1]))
    height, width = image.shape[:2]
    if height * across <= width * down:
        return _resized(image, down, max(across, down * width // height))
    return _resized(image, max(down, across * height // width), across)


def _part(length: float, whole: int) -> int:
    """Returns about this length of the whole, so that the margins on both sides of it are equal.

    >>> [_part(375.0, 375), _part(375.0, 499), _part(375.0, 500), _part(0.2, 2), _part(5.0, 4)]
    [375, 375, 376, 2, 4]
    """
    part = max(1, round(length))
    return min(whole, part + (whole - part) % 2)


def _letterboxed(image: Image, settings: Preprocess) -> Image:
    (height, width), (down, across) = image.shape[:2], settings.scaled
    scale = min(down / height, across / width)
    inner = max(1, min(down, round(height * scale))), max(1, min(across, round(width * scale)))
    red, green, blue = settings.fill_rgb
    box: Image = np.empty((down, across, *image.shape[2:]), np.uint8)
    box[:] = (blue, green, red) if image.ndim == 3 else round(0.299 * red + 0.587 * green + 0.114 * blue)
    top, left = (down - inner[0]) // 2, (across - inner[1]) // 2
    box[top : top + inner[0], left : left + inner[1]] = _resized(image, *inner)
    return box


def _centre(image: Image, height: int, width: int) -> Image:
    """Returns the central part; half a pixel is rounded as torchvision does."""
    top, left = round((image.shape[0] - height) / 2), round((image.shape[1] - width) / 2)
    return image[top : top + height, left : left + width]


def _resized(image: Image, height: int, width: int) -> Image:
    """Shrinks by the mean of areas, and enlarges linearly; each axis has one of the two."""
    smaller = min(image.shape[0], height), min(image.shape[1], width)
    if smaller != image.shape[:2]:
        slight = image.ndim == 3 and image.shape[0] <= _SLIGHT * height and image.shape[1] <= _SLIGHT * width
        method = cv2.INTER_LINEAR if slight else cv2.INTER_AREA
        image = _array(cv2.resize(image, smaller[::-1], interpolation=method))
    if smaller != (height, width):
        image = _array(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR))
    return image


def _array(image: object) -> Image:
    return np.asarray(image, dtype=np.uint8)


def _floats(values: object) -> NetworkInput:
    return np.asarray(values, dtype=np.float32)
