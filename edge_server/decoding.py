"""Encoded pictures to the network's input, in threads beside the device; a broken one fails alone."""

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
    """One decoded picture.

    Attributes:
        pixels: the network's input, channels x height x width; None if the picture is broken.
        error: why it is broken, one sentence; empty if it is not.
        began_s: when its decoding began, monotonic seconds.
        ended_s: when it ended.
    """

    pixels: Pixels | None
    error: str
    began_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class Decoded:
    """One decoded batch: the items in order, when the first began and the last ended (monotonic seconds)."""

    items: tuple[Item, ...]
    began_s: float
    ended_s: float


class Decoding:
    """The decoding of one batch: started once, awaited once.

    Attributes:
        pool: the threads that decode.
        elements: encoded pictures.
        preprocess: from a decoded picture to the network's input.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        pool: ThreadPoolExecutor,
        elements: Sequence[bytes],
        preprocess: Preprocess,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Stores all."""
        self._pool = pool
        self._elements = elements
        self._preprocess = preprocess
        self._clock = clock
        self._futures: list[Future[Item]] = []

    def start(self) -> None:
        """Hands the pictures to the pool."""
        self._futures = [self._pool.submit(self._decode, element) for element in self._elements]

    def wait(self) -> Decoded:
        """Returns the batch once its last picture is decoded."""
        items = tuple(future.result() for future in self._futures)
        return Decoded(items, min(item.began_s for item in items), max(item.ended_s for item in items))

    def _decode(self, element: bytes) -> Item:
        began_s = self._clock()
        try:
            pixels = self._preprocess(decode_image(element))
        except ImageError as error:
            return Item(None, str(error), began_s, self._clock())
        return Item(pixels, "", began_s, self._clock())
