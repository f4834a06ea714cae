"""Decodes pictures to the input of the network, in threads beside the device; a broken picture fails alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.images import ImageError, decode_image

Pixels = npt.NDArray[np.float32]
Preprocess = Callable[[npt.NDArray[np.uint8]], Pixels]


@dataclass(frozen=True, slots=True)
class Item:
    """Decoded picture.

    Attributes:
        pixels: input of the network, shape channels x height x width; None if the picture is broken.
        error: why the picture is broken, one sentence; empty if it is not.
        began_s: start of the decoding, monotonic seconds.
        ended_s: end of the decoding, monotonic seconds.
    """

    pixels: Pixels | None
    error: str
    began_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class Decoded:
    """Decoded batch: the items in order, the first start and the last end of decoding (monotonic seconds)."""

    items: tuple[Item, ...]
    began_s: float
    ended_s: float


class Decoding:
    """Decoding of one batch: `start` and `wait` are called once each.

    Args:
        pool: the threads that decode.
        elements: encoded pictures.
        preprocess: converts a decoded picture to the input of the network.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        *,
        pool: ThreadPoolExecutor,
        elements: Sequence[bytes],
        preprocess: Preprocess,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Stores the arguments."""
        self._pool = pool
        self._elements = elements
        self._preprocess = preprocess
        self._clock = clock
        self._futures: list[Future[Item]] = []

    def start(self) -> None:
        """Submits the pictures to the pool."""
        self._futures = [self._pool.submit(self._decode, element) for element in self._elements]

    def wait(self) -> Decoded:
        """Waits for the last picture and returns the decoded batch."""
        items = tuple(future.result() for future in self._futures)
        return Decoded(items, min(item.began_s for item in items), max(item.ended_s for item in items))

    def _decode(self, element: bytes) -> Item:
        began_s = self._clock()
        try:
            pixels = self._preprocess(decode_image(element))
        except ImageError as error:
            return Item(None, str(error), began_s, self._clock())
        return Item(pixels, "", began_s, self._clock())
