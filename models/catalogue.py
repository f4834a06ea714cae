"""The catalogue: which models exist, with their inputs and outputs. Standard library only, so that it loads fast."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from models.errors import ModelError


class UnknownModel(ModelError):
    """Error: the catalogue has no model of that name."""


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One output tensor.

    Attributes:
        name: the tensor's name.
        datatype: its Open Inference Protocol datatype.
        shape: the shape of one item, without the batch axis.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Inputs and outputs of a model.

    Attributes:
        name: the model's name in URLs and on the command line.
        summary: one sentence for users.
        labels: the name of each class, in the order of the probabilities.
        outputs: the output tensors; the first holds the probabilities.
        input_name: the name of the one input tensor.
        input_datatype: BYTES; each element is one encoded picture (PNG or JPEG).
        input_shape: the shape of one item, without the batch axis; () is one element per item.
    """

    name: str
    summary: str
    labels: tuple[str, ...]
    outputs: tuple[OutputSpec, ...]
    input_name: str = "image"
    input_datatype: str = "BYTES"
    input_shape: tuple[int, ...] = ()


def names() -> tuple[str, ...]:
    """Returns the names of all models, the default first."""
    return tuple(_SPECS)


def spec(name: str) -> ModelSpec:
    """Returns the model of that name.

    Raises:
        UnknownModel: there is none; the message suggests the most similar name.

    >>> spec("digits").outputs[0].shape
    (10,)
    """
    found = _SPECS.get(name)
    if found is None:
        raise UnknownModel(_unknown(name))
    return found


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, _SPECS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(_SPECS)}"
    return f"there is no model {name!r}: {hint}"


def _classifier(name: str, summary: str, labels: tuple[str, ...]) -> ModelSpec:
    probabilities = OutputSpec("probabilities", "FP32", (len(labels),))
    return ModelSpec(name=name, summary=summary, labels=labels, outputs=(probabilities,))


# ImageNet's classes are labelled by their number: their names depend on the weights that the user provides.
_IMAGENET_LABELS = tuple(str(number) for number in range(1000))

_SPECS = {
    made.name: made
    for made in (
        _classifier("digits", "Reads one handwritten digit; its weights are included.", tuple("0123456789")),
        _classifier("resnet50", "ResNet-50 of torchvision, 1000 ImageNet classes; bring weights.", _IMAGENET_LABELS),
        _classifier(
            "mobilenet_v3_small",
            "MobileNetV3-Small of torchvision, 1000 ImageNet classes; bring weights.",
            _IMAGENET_LABELS,
        ),
    )
}
