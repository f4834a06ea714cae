"""The shipped models: their cards, by name. Standard library only, so that it loads fast."""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path

from models.card import CARD_FILE, Card
from models.card_reader import read_card
from models.errors import ModelError

SHIPPED = Path(__file__).parent / "shipped"
DEFAULT = "digits"


class UnknownModel(ModelError):
    """Error: no model of that name is shipped."""


@cache
def names() -> tuple[str, ...]:
    """Returns the names of all shipped models, the default first."""
    found = sorted(path.parent.name for path in SHIPPED.glob(f"*/{CARD_FILE}"))
    return tuple(sorted(found, key=lambda name: name != DEFAULT))


@cache
def shipped(name: str) -> Card:
    """Returns the card of a shipped model.

    Raises:
        UnknownModel: there is none; the message suggests the most similar name.

    >>> shipped("digits").outputs[0].shape
    (10,)
    """
    if name not in names():
        raise UnknownModel(_unknown(name))
    return read_card(SHIPPED / name)


def card_of(model: str) -> Card:
    """Returns the card of a shipped model's name, or of the folder at that path.

    Raises:
        UnknownModel: it is neither.
        CardError: the card cannot be used.
    """
    if model in names():
        return shipped(model)
    folder = Path(model)
    if folder.is_dir():
        return read_card(folder)
    raise UnknownModel(_unknown(model))


def cards_in(folder: Path) -> tuple[Card, ...]:
    """Returns the cards of all folders in a folder, by name.

    Raises:
        ModelError: there is no such folder, no card in it, or two models have the same name.
        CardError: a card cannot be used.
    """
    if not folder.is_dir():
        raise ModelError(f"there is no folder {folder} of models: name the folder that holds the models' folders")
    cards = [read_card(path.parent) for path in sorted(folder.glob(f"*/{CARD_FILE}"))]
    if not cards:
        raise ModelError(f"folder {folder} holds no model: each is a folder in it with a {CARD_FILE}")
    by_name: dict[str, Card] = {}
    for card in cards:
        if card.name in by_name:
            raise ModelError(f"{card.folder} and {by_name[card.name].folder} are both named {card.name}: rename one")
        by_name[card.name] = card
    return tuple(cards)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, names(), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(names())}, or a folder with {CARD_FILE}"
    return f"there is no model {name!r}: {hint}"
