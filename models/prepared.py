"""Batches as a runtime takes them: pictures decoded, everything else as it came."""

from __future__ import annotations

from collections.abc import Mapping

from models.card import Card
from models.rehearsal import rehearsal_inputs
from models.runtime import Array, stacked
from models.serving import ElementDecoder


def decoded(inputs: Mapping[str, Array], decoders: Mapping[str, ElementDecoder]) -> dict[str, Array]:
    """Returns inputs as clients send them, as a runtime takes them."""
    return {
        name: stacked([decoders[name](element) for element in array]) if name in decoders else array
        for name, array in inputs.items()
    }


def prepared_rehearsal(card: Card, items: int, *, seed: int = 0) -> dict[str, Array]:
    """Returns a made-up batch as a runtime takes it, of a card whose pictures have [preprocess]."""
    decoders: dict[str, ElementDecoder] = {}
    if card.preprocess is not None:
        # OpenCV is for pictures only.
        from models.preprocess import Pictures

        prepare = Pictures(card.preprocess).prepare
        decoders = {spec.name: prepare for spec in card.inputs if spec.picture}
    return decoded(rehearsal_inputs(card, items, seed=seed), decoders)
