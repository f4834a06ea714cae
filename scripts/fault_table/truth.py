"""Distinct pictures, and the answer of the model to each of them alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scripts.demo.pictures import Picture, answers_alone

MODEL = "digits"
APART = 0.02
"""Answers of two pictures differ by more in some class; right ones differ by less than a tenth of it."""
TOLERANCE = 0.002
_BROKEN = b"\x89PNG\r\n\x1a\n" + b"not a picture after all " * 40


@dataclass(frozen=True, slots=True)
class Item:
    """A picture and its right answer; None: it is broken, and 400 is right."""

    picture: bytes
    answer: npt.NDArray[np.float32] | None


BROKEN = Item(_BROKEN, None)


def distinct_items(count: int, *, seed: int = 0) -> list[Item]:
    """Draws mixtures of two digits until so many have answers that tell them apart.

    Args:
        count: how many.
        seed: of the draws.
    """
    from models import digits_data, digits_pictures

    images, _ = digits_data.held_out()
    rng = np.random.default_rng(seed)
    pictures: list[Picture] = []
    answers = np.zeros((0, 10), np.float32)
    while len(pictures) < count:
        drawn = []
        for index in range(len(pictures), len(pictures) + 2 * (count - len(pictures))):
            first, second = rng.choice(len(images), 2, replace=False)
            share = rng.uniform(0.25, 0.75)
            mixed = share * images[first] + (1 - share) * images[second]
            drawn.append(Picture(f"{index}", 0, digits_pictures.encode(mixed, "jpeg", int(rng.integers(2**31)))))
        for picture, row in zip(drawn, answers_alone(MODEL, drawn), strict=True):
            apart = not len(answers) or float(np.abs(answers - row).max(axis=1).min()) > APART
            if apart and len(pictures) < count:
                pictures.append(picture)
                answers = np.vstack([answers, row])
    return [Item(picture.data, row) for picture, row in zip(pictures, answers, strict=True)]


def is_right(found: object, item: Item) -> bool:
    """Returns whether numbers of an answer are those of the item."""
    if item.answer is None:
        return False
    try:
        row = np.asarray(found, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        return False
    return row.shape == item.answer.shape and bool(np.allclose(row, item.answer, rtol=0, atol=TOLERANCE))
