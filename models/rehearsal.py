"""Made-up batches by a model's card: for warm-up, for measurements at a start, and for the check of a new model."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

from models.card import Card, TensorSpec
from models.runtime import NUMPY_DTYPES, Array

ANY_LENGTH = 8
"""Length that an axis gets for which the card leaves it open."""
PICTURE_SIDE = 224


def rehearsal_inputs(card: Card, items: int, *, seed: int = 0, side: int = PICTURE_SIDE) -> dict[str, Array]:
    """Returns the inputs of one batch as a client sends them, batch axis first; the same for the same arguments.

    Args:
        card: the model.
        items: number of items.
        seed: of the made-up values; batches of the same seed begin with the same items.
        side: height and width of pictures, pixels.

    Returns:
        By input: pictures as encoded PNG (an object array of bytes), other bytes as short texts, numbers that any
        network survives: from 0 to 1, or 0 and 1.
    """
    return made_up_inputs(card.inputs, items, seed=seed, side=side)


def made_up_inputs(
    specs: Sequence[TensorSpec], items: int, *, seed: int = 0, side: int = PICTURE_SIDE
) -> dict[str, Array]:
    """Returns the same for inputs that are described so."""
    return {spec.name: _values(spec, items, seed, side) for spec in specs}


def _values(spec: TensorSpec, items: int, seed: int, side: int) -> Array:
    shape = tuple(ANY_LENGTH if length == -1 else length for length in spec.shape)
    made = np.empty((items, *shape), NUMPY_DTYPES[spec.datatype])
    for index in range(items):
        # One generator for each item, so that an item does not depend on the size of its batch.
        made[index] = _item(spec, shape, np.random.default_rng([seed, index]), side)
    return made


def _item(spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator, side: int) -> Array | bytes:
    dtype = NUMPY_DTYPES[spec.datatype]
    if dtype.kind == "f":
        return random.random(shape).astype(dtype)
    if dtype.kind != "O":
        return random.integers(0, 2, shape).astype(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    made = [_picture(random, side) if spec.picture else b"rehearsal" for _ in range(count)]
    if not shape:
        return made[0]
    array = np.empty(count, np.object_)
    array[:] = made
    return array.reshape(shape)


def _picture(random: np.random.Generator, side: int) -> bytes:
    """Returns a PNG of coloured tiles, about 1 KB: neither blank nor noise, both of which decode unlike photographs."""
    tiles = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    cell = -(-side // 4)
    pixels = np.repeat(np.repeat(tiles, cell, axis=0), cell, axis=1)[:side, :side]
    return png(pixels)


def png(pixels: Array) -> bytes:
    """Encodes height x width x 3 values, uint8, red-green-blue, as PNG; for hosts without OpenCV."""
    height, width, _ = pixels.shape
    # Filter 0 in front of each row (W3C PNG, section 9).
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
