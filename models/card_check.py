"""Whether a request fits a model: the same checks and sentences on the daemon, the edge and the function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from models.card import TensorSpec


class GivenTensor(Protocol):
    """A tensor of a request, batch axis first."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def datatype(self) -> str:
        """Its datatype."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        ...


def input_problem(
    model: str, inputs: Sequence[TensorSpec], given: Sequence[GivenTensor], *, max_items: int
) -> str | None:
    """Returns what is wrong with the inputs of a request, as one sentence for the client; None if nothing is.

    Args:
        model: the model's name.
        inputs: the inputs that the model takes.
        given: the request's tensors.
        max_items: the largest number of items.

    >>> input_problem("m", [TensorSpec("x", "FP32", (2,))], [TensorSpec("x", "FP32", (3, 2))], max_items=8)
    >>> input_problem("m", [TensorSpec("x", "FP32", (2,))], [TensorSpec("x", "FP32", (9, 2))], max_items=8)
    'the request has 9 items, but model m takes at most 8; send fewer at once'
    """
    by_name = {tensor.name: tensor for tensor in given}
    for spec in inputs:
        if spec.name not in by_name:
            return f"input '{spec.name}' is missing; model {model} takes {_names(inputs)}"
    if len(given) > len(inputs):
        known = {spec.name for spec in inputs}
        unknown = next((tensor.name for tensor in given if tensor.name not in known), None)
        if unknown is None:
            return f"an input is there twice; model {model} takes {_names(inputs)}"
        return f"input {unknown[:64]!r} is unknown; model {model} takes {_names(inputs)}"
    for spec in inputs:
        if (problem := _tensor_problem(spec, by_name[spec.name])) is not None:
            return problem
    return _items_problem(model, [by_name[spec.name] for spec in inputs], max_items)


def _tensor_problem(spec: TensorSpec, tensor: GivenTensor) -> str | None:
    if tensor.datatype != spec.datatype:
        of_pictures = ": one encoded picture for each element" if spec.picture else ""
        return f"input '{spec.name}' must be {spec.datatype}{of_pictures}, not {tensor.datatype}"
    if not tensor.shape or not spec.fits(tensor.shape):
        wanted = ", ".join(["n", *("any" if length == -1 else str(length) for length in spec.shape)])
        return f"input '{spec.name}' must have the shape [{wanted}] for n items, not {list(tensor.shape)}"
    return None


def _items_problem(model: str, tensors: Sequence[GivenTensor], max_items: int) -> str | None:
    items = tensors[0].shape[0]
    for tensor in tensors:
        if tensor.shape[0] != items:
            return (
                f"inputs '{tensors[0].name}' and '{tensor.name}' have {items} and {tensor.shape[0]} items;"
                " send the same number of items in all inputs"
            )
    if items < 1:
        return f"input '{tensors[0].name}' has no items; send at least one"
    if items > max_items:
        return f"the request has {items} items, but model {model} takes at most {max_items}; send fewer at once"
    return None


def _names(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"'{spec.name}'" for spec in specs)
