"""The metadata of each served model, and the check whether a request fits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from models.card import Card, TensorSpec
from models.card_check import input_problem
from scheduler.daemon.config.config import Config
from scheduler.daemon.config.model_sections import ModelSection, TensorSection
from scheduler.daemon.model_outputs import ModelOutputs
from scheduler.domain.plans import ModelSettings, ServiceClass
from scheduler.wire import Tensor, WireError, base64_elements

VERSION = "1"
"""The only version of every model; the backend reports which weights it uses."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The metadata and limits of one served model."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...]
    max_items: int
    priority_levels: int
    default_priority: int
    classes: Mapping[str, ServiceClass]
    default_class: str
    answer: ModelOutputs = ModelOutputs()
    """The outputs as the answers of backends are checked against them."""
    pictures: frozenset[str] = frozenset()
    """Names of the inputs whose elements are encoded pictures."""
    max_pixels: int | None = None
    """Most pixels of a picture; None: not known."""
    max_batch_pixels: int | None = None
    """Most pixels that the pictures of a batch may have to decode; None: not known."""

    def metadata(self) -> dict[str, Any]:
        """Returns the metadata in the form of the Open Inference Protocol."""
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": "edgeburst",
            "inputs": [spec.metadata() for spec in self.inputs],
            "outputs": [spec.metadata() for spec in self.outputs],
        }

    def output_names(self) -> tuple[str, ...]:
        """Returns the names of the outputs that a client may request."""
        return tuple(spec.name for spec in self.outputs)

    def ragged(self) -> frozenset[str]:
        """Returns the names of the outputs of which items have unlike numbers of rows."""
        return frozenset(spec.name for spec in self.outputs if spec.ragged)


def model_cards(config: Config) -> Mapping[str, ModelCard]:
    """Returns the card of every configured model, by name."""
    settings = config.engine_settings().models
    cards = [
        _card(section, model, config.card(index))
        for index, (section, model) in enumerate(zip(config.models, settings, strict=True))
    ]
    return MappingProxyType({card.name: card for card in cards})


def checked_inputs(card: ModelCard, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Returns the tensors in the order and form that batches need.

    Raises:
        WireError: a tensor is missing or unknown, its datatype or shape is not that of the model, or the number of
            items is out of range.
    """
    if len(tensors) == 1 == len(card.inputs):
        [spec], [tensor] = card.inputs, tensors
        named = tensor.name == spec.name and tensor.datatype == spec.datatype
        if named and 1 <= tensor.shape[0] <= card.max_items and spec.fits(tensor.shape):
            return (base64_elements(tensor) if spec.picture and tensor.from_json else tensor,)
    problem = input_problem(card.name, card.inputs, tensors, max_items=card.max_items)
    if problem is not None:
        raise WireError(problem)
    by_name = {tensor.name: tensor for tensor in tensors}
    return tuple(base64_elements(by_name[spec.name]) if spec.picture else by_name[spec.name] for spec in card.inputs)


def _card(section: ModelSection, settings: ModelSettings, card: Card | None) -> ModelCard:
    classes = {service_class.name: service_class for service_class in settings.classes}
    outputs = _outputs(section) if card is None else card.all_outputs()
    inputs = _specs(section.inputs) if card is None else card.inputs
    prepared = card is not None and card.preprocess is not None
    return ModelCard(
        name=section.name,
        inputs=inputs,
        outputs=outputs,
        labels=section.labels if card is None else card.labels,
        max_items=section.max_items,
        priority_levels=section.priority_levels,
        default_priority=section.default_priority,
        classes=MappingProxyType(classes),
        default_class="default" if "default" in classes else settings.classes[0].name,
        answer=ModelOutputs(outputs, section.max_answer_bytes),
        pictures=frozenset(spec.name for spec in inputs if spec.picture),
        max_pixels=card.max_pixels if card is not None and prepared else None,
        max_batch_pixels=card.max_batch_pixels if card is not None and prepared else None,
    )


def _outputs(section: ModelSection) -> tuple[TensorSpec, ...]:
    outputs = _specs(section.outputs)
    return (*outputs, *(TensorSpec(spec.rows_name, "INT64") for spec in outputs if spec.ragged))


def _specs(sections: Sequence[TensorSection]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(**tensor.model_dump()) for tensor in sections)
