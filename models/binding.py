"""Which tensor of a network is which of its card: by name where the names agree, else by order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.card import Card, TensorSpec
from models.errors import ModelError


def bind_inputs(card: Card, names: Sequence[str]) -> tuple[str, ...]:
    """Returns for each input of the network the card's input that goes there.

    Args:
        card: the model's card.
        names: the network's names of its inputs, in its order.

    Raises:
        ModelError: neither the names nor the numbers agree.
    """
    wanted = [spec.name for spec in card.inputs]
    if sorted(wanted) == sorted(names):
        return tuple(names)
    if len(wanted) == len(names):
        return tuple(wanted)
    raise ModelError(
        f"model {card.name} takes {len(names)} inputs ({', '.join(names)}), but its card names {len(wanted)}"
        f" ({', '.join(wanted)}): correct `inputs` in {card.folder / 'model.toml'}"
    )


def bind_outputs(card: Card, names: Sequence[str]) -> dict[str, int]:
    """Returns for each output of the card, rows of ragged ones included, the index of the network's output.

    Several ragged outputs may share one output of rows: named like one of them, or the last.

    Args:
        card: the model's card.
        names: the network's names of its outputs, in its order; those that the card does not name are left out.

    Raises:
        ModelError: neither the names nor the numbers agree.
    """
    wanted = [spec.name for spec in card.outputs]
    ragged = [spec for spec in card.outputs if spec.ragged]
    if set(wanted) <= set(names):
        bound = {name: names.index(name) for name in wanted}
        return bound | _rows_by_name(ragged, names)
    if len(names) < len(wanted) or (not ragged and len(names) != len(wanted)):
        raise ModelError(
            f"model {card.name} gives {len(names)} outputs ({', '.join(names)}), but its card names {len(wanted)}"
            f" ({', '.join(wanted)}): correct `outputs` in {card.folder / 'model.toml'}"
        )
    bound = {name: index for index, name in enumerate(wanted)}
    counts = range(len(wanted), len(names))
    if len(counts) == len(ragged):
        bound |= {spec.rows_name: index for spec, index in zip(ragged, counts, strict=True)}
    elif len(counts) == 1:
        bound |= {spec.rows_name: counts[0] for spec in ragged}
    return bound


def _rows_by_name(ragged: Sequence[TensorSpec], names: Sequence[str]) -> dict[str, int]:
    own = {spec.rows_name: names.index(spec.rows_name) for spec in ragged if spec.rows_name in names}
    shared = next(iter(own.values()), None)
    if shared is None:
        return {}
    return {spec.rows_name: own.get(spec.rows_name, shared) for spec in ragged}


def named_outputs(card: Card, result: Any) -> dict[str, Any]:
    """Returns what a network without declared outputs gave, by the card's names.

    Args:
        card: the model's card.
        result: one tensor; tuple or list of tensors, in the order of the card; a mapping by name; or detections, a
            list with one mapping for each item, also as the last of a tuple.

    Raises:
        ModelError: neither the names nor the numbers agree.
    """
    if isinstance(result, (tuple, list)) and len(result) and _is_detections(result[-1]):
        result = result[-1]
    if _is_detections(result):
        return _by_item(card, result)
    if isinstance(result, Mapping):
        names, values = [str(name) for name in result], list(result.values())
    elif isinstance(result, list) and len(card.outputs) == 1 and card.outputs[0].ragged:
        # One tensor of rows for each item, as detectors give them after non-maximum suppression.
        return {card.outputs[0].name: result}
    elif isinstance(result, (tuple, list)):
        names, values = [f"output {index}" for index in range(len(result))], list(result)
    else:
        names, values = ["output 0"], [result]
    return {name: values[index] for name, index in bind_outputs(card, names).items()}


def _is_detections(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _by_item(card: Card, items: Sequence[Mapping[Any, Any]]) -> dict[str, Any]:
    bound = bind_outputs(card, [str(name) for name in items[0]])
    columns = [list(item.values()) for item in items]
    return {spec.name: [values[bound[spec.name]] for values in columns] for spec in card.outputs}
