"""Pictures of the demo: held-out digits as files, and the model's own answer to each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

_KINDS: tuple[Literal["jpeg", "png"], ...] = ("jpeg", "png")
_EXTENSIONS = {"jpeg": ".jpg", "png": ".png"}
Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Picture:
    """Encoded picture.

    Attributes:
        name: name of its file.
        label: the true digit.
        data: content of the file.
    """

    name: str
    label: int
    data: bytes


def held_out_pictures(*, on_progress: Callable[[int, int], None] | None = None) -> list[Picture]:
    """Draws the held-out digits, alternately as JPEG and as PNG.

    Args:
        on_progress: called with the number of pictures drawn and their total.
    """
    from models import digits_data, digits_pictures

    images, labels = digits_data.held_out()
    pictures = []
    for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        kind = _KINDS[index % len(_KINDS)]
        name = f"{index:03d}-is-{label}{_EXTENSIONS[kind]}"
        pictures.append(Picture(name, label, digits_pictures.encode(image, kind, index)))
        if on_progress is not None:
            on_progress(index + 1, len(images))
    return pictures


def save_pictures(pictures: Sequence[Picture], folder: Path) -> None:
    """Writes the pictures; replaces those of an earlier demo."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.suffix in _EXTENSIONS.values():
            old.unlink()
    for picture in pictures:
        (folder / picture.name).write_bytes(picture.data)


def read_pictures(folder: Path) -> list[Path]:
    """Returns the contents of the files of `save_pictures`, in the order of its pictures."""
    return sorted(path for path in folder.iterdir() if path.suffix in _EXTENSIONS.values())


def answers_alone(model: str, pictures: Sequence[Picture]) -> Probabilities:
    """Runs the model on each picture separately, in this process.

    Returns:
        The probabilities, shape pictures x classes.
    """
    from models.catalogue import shipped
    from models.loading import load

    served = load(shipped(model))
    rows = []
    for picture in pictures:
        [name] = served.encoded_inputs
        answer = served.answer({name: served.prepare(name, picture.data)[np.newaxis]}, errors=[""])
        rows.append(answer[served.card.outputs[0].name][0])
    return np.stack(rows)
