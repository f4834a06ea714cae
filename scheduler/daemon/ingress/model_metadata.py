"""The metadata of each served model, and the check whether a request fits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from models import catalogue
from scheduler.daemon.config.config import Config
from scheduler.daemon.config.sections import ModelSection, TensorSection
from scheduler.domain.plans import ModelSettings, ServiceClass
from scheduler.wire import ITEM_ERROR, Tensor, WireError, base64_elements

VERSION = "1"
"""The only version of every model; the backend reports which weights it uses."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a model; `shape` is that of one item, without the batch axis."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    picture: bool = False
    """Whether each element is an encoded picture, which JSON carries as base64."""

    def metadata(self) -> dict[str, Any]:
        """Returns the metadata in the form of the Open Inference Protocol."""
        return {"name": self.name, "datatype": self.datatype, "shape": [-1, *self.shape]}


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


def model_cards(config: Config) -> Mapping[str, ModelCard]:
    """Returns the card of every configured model, by name."""
    settings = config.engine_settings().models
    cards = (_card(section, model) for section, model in zip(config.models, settings, strict=True))
    return MappingProxyType({card.name: card for card in cards})


def checked_inputs(card: ModelCard, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Returns the tensors in the order and form that batches need.

    Raises:
        WireError: a tensor is missing or unknown, its datatype or shape is not that of the model, or the number of
            items is out of range.
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    for spec in card.inputs:
        if spec.name not in by_name:
            raise WireError(f"input '{spec.name}' is missing; model {card.name} takes {_names(card.inputs)}")
    if len(by_name) > len(card.inputs):
        unknown = next(name for name in by_name if name not in {spec.name for spec in card.inputs})
        raise WireError(f"input {unknown[:64]!r} is unknown; model {card.name} takes {_names(card.inputs)}")
    checked = tuple(_checked(spec, by_name[spec.name]) for spec in card.inputs)
    _check_items(card, checked)
    return checked


def _checked(spec: TensorSpec, tensor: Tensor) -> Tensor:
    if tensor.datatype != spec.datatype:
        raise WireError(f"input '{spec.name}' must be {spec.datatype}, not {tensor.datatype}")
    if tensor.shape[1:] != spec.shape:
        wanted = ", ".join(["n", *map(str, spec.shape)])
        raise WireError(f"input '{spec.name}' must have the shape [{wanted}] for n items, not {list(tensor.shape)}")
    return base64_elements(tensor) if spec.picture else tensor


def _check_items(card: ModelCard, tensors: Sequence[Tensor]) -> None:
    items = tensors[0].items
    for tensor in tensors:
        if tensor.items != items:
            raise WireError(
                f"inputs '{tensors[0].name}' and '{tensor.name}' have {items} and {tensor.items} items;"
                " send the same number of items in all inputs"
            )
    if items < 1:
        raise WireError(f"input '{tensors[0].name}' has no items; send at least one")
    if items > card.max_items:
        raise WireError(
            f"the request has {items} items, but model {card.name} takes at most {card.max_items}; send fewer at once"
        )


def _card(section: ModelSection, settings: ModelSettings) -> ModelCard:
    inputs, outputs, labels = _described(section) if section.inputs else _catalogued(section.name)
    classes = {service_class.name: service_class for service_class in settings.classes}
    return ModelCard(
        name=section.name,
        inputs=inputs,
        outputs=outputs,
        labels=labels,
        max_items=section.max_items,
        priority_levels=section.priority_levels,
        default_priority=section.default_priority,
        classes=MappingProxyType(classes),
        default_class="default" if "default" in classes else settings.classes[0].name,
    )


def _catalogued(name: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], tuple[str, ...]]:
    spec = catalogue.spec(name)
    taken = TensorSpec(spec.input_name, spec.input_datatype, spec.input_shape, spec.input_datatype == "BYTES")
    given = tuple(TensorSpec(output.name, output.datatype, output.shape) for output in spec.outputs)
    return (taken,), (*given, TensorSpec(ITEM_ERROR, "BYTES", ())), spec.labels


def _described(section: ModelSection) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], tuple[str, ...]]:
    return _specs(section.inputs), _specs(section.outputs), section.labels


def _specs(sections: Sequence[TensorSection]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(tensor.name, tensor.datatype, tensor.shape, tensor.picture) for tensor in sections)


def _names(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"'{spec.name}'" for spec in specs)
