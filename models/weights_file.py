"""Where a model's weights come from: the card's file, a file that the host names, or random ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.card import Card, file_sha256
from models.errors import ModelError
from models.serving import WeightsOrigin


class WeightsError(ModelError):
    """Error: weights are missing or are not the expected ones."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's weights.

    Attributes:
        origin: the card's file, a file that the host names, or random ones.
        file: the file of the model or of its weights; None: random weights, or a handler without a file.
        sha256: the file's hash; empty without a file.
    """

    origin: WeightsOrigin
    file: Path | None
    sha256: str

    @property
    def identity(self) -> str:
        """What `Card.identity` has to know of them."""
        return {"card": "", "file": self.sha256, "random": "random"}[self.origin]


def weights_of(card: Card, file: Path | None, sha256: str | None, *, random: bool) -> Weights:
    """Returns the weights after checking their hash.

    Args:
        card: the model's card, whose files are checked already.
        file: a file in place of the card's.
        sha256: that file's SHA-256 in hexadecimal, needed with it.
        random: whether an architecture is to have random weights.

    Raises:
        WeightsError: they are missing, or have another hash.
    """
    if file is not None and card.format == "python":
        raise WeightsError(
            f"model {card.name} is a handler, which reads its own files: put {file.name} into its folder"
        )
    if random and file is not None:
        raise WeightsError(f"model {card.name} is given both a weights file and random weights: choose one")
    if random:
        if card.format != "state-dict":
            raise WeightsError(
                f"model {card.name} has its own weights: only an architecture, of format state-dict, can have random"
                " ones"
            )
        return Weights("random", None, "")
    if file is not None:
        if sha256 is None:
            raise WeightsError(f"weights file {file} comes without its SHA-256: give it, `sha256sum` prints it")
        return Weights("file", file, _checked(file, sha256))
    if card.file:
        path = card.path(card.file)
        return Weights("card", path, card.sha256.get(card.file) or file_sha256(path))
    if card.format == "state-dict":
        raise WeightsError(
            f"model {card.name} comes without weights: name a weights file and its SHA-256, or ask for random weights"
        )
    return Weights("card", None, "")


def _checked(path: Path, expected: str) -> str:
    try:
        found = file_sha256(path)
    except OSError as error:
        raise WeightsError(f"weights file {path} cannot be read ({error.strerror}): name one that exists") from error
    if found != expected.strip().lower():
        raise WeightsError(
            f"weights file {path} has SHA-256 {found}, not {expected}: fetch it again or correct the hash"
        )
    return found
