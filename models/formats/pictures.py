"""Pictures of a card: encoded bytes to pixels of a fixed shape, and a batch of pixels to a network's input."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.images import decode_image
from models.preprocess_settings import Preprocess


class Pictures:
    """The steps of `[preprocess]`. Every method may be called by any thread."""

    def __init__(self, settings: Preprocess) -> None:
        """Stores the settings and what they amount to for each channel."""
        self.settings = settings
        stds = np.array(settings.stds, np.float32)
        self.scale = 1 / (255 * stds)
        self.shift = -np.array(settings.means, np.float32) / stds

    def prepare(self, element: bytes) -> npt.NDArray[np.uint8]:
        """Returns one encoded picture as height x width x channels, uint8.

        Raises:
            ImageError: it is no picture, or a broken one.
        """
        import cv2

        settings = self.settings
        image = decode_image(element)
        height, width = settings.scaled
        rows, columns = image.shape[:2]
        if settings.resize == "stretch":
            scaled = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        else:
            choose = max if settings.resize == "shorter" else min
            ratio = choose(height / rows, width / columns)
            size = max(1, round(columns * ratio)), max(1, round(rows * ratio))
            method = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
            resized = np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)
            scaled = _middle(resized, height, width, settings.fill_rgb)
        cropped = _middle(np.asarray(scaled, np.uint8), settings.height, settings.width, settings.fill_rgb)
        if settings.colour == "GREY":
            return np.asarray(cv2.cvtColor(cropped, cv2.COLOR_BGR2GRAY), np.uint8)[:, :, np.newaxis]
        return np.ascontiguousarray(cropped if settings.colour == "BGR" else cropped[:, :, ::-1])

    def normalise(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Returns a batch of prepared pictures as the network's input, float32."""
        values = batch * self.scale + self.shift
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if self.settings.layout == "CHW" else values


def _middle(image: npt.NDArray[np.uint8], height: int, width: int, fill: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Returns the middle of an image, with a border where the image is smaller."""
    rows, columns = image.shape[:2]
    top, left = max(0, rows - height) // 2, max(0, columns - width) // 2
    image = image[top : top + height, left : left + width]
    if image.shape[:2] == (height, width):
        return image
    whole = np.full((height, width, 3), fill[::-1], np.uint8)
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    whole[top : top + image.shape[0], left : left + image.shape[1]] = image
    return whole
