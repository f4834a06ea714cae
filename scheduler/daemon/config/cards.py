"""`card` of a model: the folder whose card says what the configuration otherwise repeats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from models import catalogue, toml_lines
from models.card import Card, CardError, TensorSpec
from models.card_reader import read_card
from scheduler.daemon.config.model_sections import ModelSection, TensorSection
from scheduler.daemon.config.source import Source

MOST_ITEMS = 1024
"""Largest `max_items`; a card may allow more."""
_FROM_THE_CARD = ("inputs", "outputs", "labels")


def read_cards(models: Sequence[ModelSection], source: Source) -> tuple[Card | None, ...]:
    """Returns the card of each model: of its folder, or the one that is shipped; None for one that describes itself.

    Raises:
        ConfigError: a card cannot be used, or contradicts the configuration.
    """
    cards = []
    for index, model in enumerate(models):
        card = None
        if model.card:
            card = _named(model.card, source, ("model", index, "card"))
            for at, sentence in _contradictions(model, card, ("model", index)):
                raise source.error(at, sentence)
        elif not model.name:
            raise source.error(
                ("model", index), "[[model]] lacks the key `name`: name of the model for clients; or name its `card`"
            )
        elif not model.inputs and model.name in catalogue.names():
            card = catalogue.shipped(model.name)
        cards.append(card)
    return tuple(cards)


def described(model: ModelSection, card: Card | None) -> ModelSection:
    """Returns a model with what the card in its folder says; as it is, if it names none."""
    if card is None or not model.card:
        return model
    told = {"name": card.name, "inputs": _sections(card.inputs), "outputs": _sections(card.outputs)}
    max_items = model.max_items if "max_items" in model.model_fields_set else min(card.max_batch, MOST_ITEMS)
    return model.model_copy(update={**told, "labels": card.labels, "max_items": max_items})


def _named(name: str, source: Source, at: toml_lines.KeyPath) -> Card:
    """Returns the card in a folder, or the shipped one of that name where there is no such folder."""
    folder = source.path.parent / name
    return catalogue.shipped(name) if name in catalogue.names() and not folder.is_dir() else _read(folder, source, at)


def _read(folder: Path, source: Source, at: toml_lines.KeyPath) -> Card:
    try:
        return read_card(folder)
    except CardError as error:
        raise source.error(at, f"the card cannot be used: {error}") from None


def _contradictions(
    model: ModelSection, card: Card, at: toml_lines.KeyPath
) -> Iterator[tuple[toml_lines.KeyPath, str]]:
    if model.name and model.name != card.name:
        yield (
            (*at, "name"),
            f"the card in {card.folder} names its model {card.name}, not {model.name}; remove `name` here",
        )
    for key in _FROM_THE_CARD:
        if getattr(model, key):
            yield (*at, key), f"`{key}` of model {card.name} are those of its card; remove them here"
    if "max_items" in model.model_fields_set and model.max_items > card.max_batch:
        yield (
            (*at, "max_items"),
            f"`max_items` of model {card.name} is {model.max_items}, but its card says max_batch = {card.max_batch};"
            " correct one",
        )


def _sections(specs: Sequence[TensorSpec]) -> tuple[TensorSection, ...]:
    return tuple(TensorSection(**asdict(spec)) for spec in specs)
