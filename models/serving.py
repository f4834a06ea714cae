"""A loaded model as both hosts serve it: one item prepared, one batch answered. A broken item fails alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import numpy as np

from models.card import ITEM_ERROR, Card, TensorSpec
from models.errors import ModelError
from models.runtime import NUMPY_DTYPES, Array, Runtime, RuntimeReport

WeightsOrigin = Literal["card", "file", "random"]


class ElementDecoder(Protocol):
    """Turns one encoded element of an input into an array; called by any thread."""

    def __call__(self, element: bytes) -> Array:
        """Returns the item's array, without the batch axis; raises ModelError if the element is broken."""
        ...


class ServedModel:
    """A loaded model. `prepare` may be called by any thread; `answer` by one thread at a time."""

    def __init__(
        self,
        card: Card,
        runtime: Runtime,
        *,
        decoders: Mapping[str, ElementDecoder],
        identity: str | None = None,
        weights: WeightsOrigin = "card",
        files: Mapping[str, str] | None = None,
    ) -> None:
        """Stores its parts.

        Args:
            card: what the model takes and gives.
            runtime: computes the outputs.
            decoders: by input of encoded elements (pictures): what turns one element into an array.
            identity: hash of card and files.
            weights: origin of the weights: the card's file, a file that the host names, or random ones.
            files: SHA-256 of the card and of each file, by name; None: not known.
        """
        self.card = card
        self.identity = identity
        self.weights = weights
        self.files = dict(files or {})
        self._runtime = runtime
        self._decoders = decoders

    @property
    def runtime(self) -> RuntimeReport:
        """Which runtime, device and precision serve the model."""
        return self._runtime.report

    @property
    def encoded_inputs(self) -> tuple[str, ...]:
        """Names of the inputs whose elements `prepare` decodes, before the device has the batch."""
        return tuple(self._decoders)

    def prepare(self, name: str, element: bytes) -> Array:
        """Decodes one element of an encoded input.

        Raises:
            ModelError: the element is broken; the message is one sentence for the client.
        """
        return self._decoders[name](element)

    def answer(self, inputs: Mapping[str, Array], *, errors: Sequence[str]) -> dict[str, Array]:
        """Predicts one batch.

        Args:
            inputs: by name, the arrays of the items that are not broken, batch axis first, in order.
            errors: one text for each item of the batch: empty, or why the item is broken.

        Returns:
            Every output of `Card.all_outputs`, for all items: zeros, or no rows, where the item is broken.

        Raises:
            ModelError: the network failed, or gave something else than the card says.
        """
        good = [index for index, error in enumerate(errors) if not error]
        given = self._runtime.run(inputs) if good else {}
        outputs: dict[str, Array] = {}
        for number, spec in enumerate(self.card.outputs):
            if spec.ragged:
                outputs |= _ragged(spec, given, good, len(errors))
            else:
                array = _checked(spec, given, len(good)) if good else _nothing(spec)
                if number == 0:
                    array = activated(array, self.card.activation)
                outputs[spec.name] = _spread(array, good, len(errors))
        if self.card.has_pictures:
            outputs[ITEM_ERROR] = np.array([error.encode() for error in errors], dtype=np.object_)
        return {spec.name: outputs[spec.name] for spec in self.card.all_outputs()}


def activated(array: Array, activation: str) -> Array:
    """Applies an activation along the last axis; the type stays.

    >>> activated(np.array([[0.0, 0.0]], np.float32), "softmax").tolist()
    [[0.5, 0.5]]
    """
    if activation == "none" or not array.size:
        return array
    wide = array.astype(np.float32, copy=False) if array.dtype.itemsize < 4 else array
    if activation == "sigmoid":
        # 1 / (1 + e^-x) overflows for large -x; this form does not.
        result = 0.5 * (1.0 + np.tanh(0.5 * wide))
    else:
        raised = np.exp(wide - wide.max(axis=-1, keepdims=True))
        result = raised / raised.sum(axis=-1, keepdims=True)
    return np.asarray(result, dtype=array.dtype)


def _checked(spec: TensorSpec, given: Mapping[str, object], items: int) -> Array:
    array = _typed(spec, given.get(spec.name))
    if items == 1 and array.ndim == len(spec.shape):
        # `squeeze()` at a network's end takes the batch axis too, where there is one item.
        array = array[np.newaxis]
    if array.shape[:1] != (items,) or not spec.fits(array.shape):
        ragged = ", or set ragged = true if items have unlike numbers of rows" if spec.fits(array.shape) else ""
        raise ModelError(
            f"output {spec.name!r} of the network has shape {list(array.shape)}, but the card says"
            f" {[items, *spec.shape]}: correct `outputs` in the card{ragged}"
        )
    return array


def _typed(spec: TensorSpec, given: object) -> Array:
    if given is None:
        raise ModelError(f"the network has no output {spec.name!r}: correct `outputs` in the card")
    array = np.asarray(given)
    wanted = NUMPY_DTYPES[spec.datatype]
    if array.dtype == wanted:
        return array
    if wanted.kind == "O" or array.dtype.kind not in "biuf" or (wanted.kind in "biu" and array.dtype.kind == "f"):
        raise ModelError(
            f"output {spec.name!r} of the network is {array.dtype}, but the card says {spec.datatype}:"
            " correct `outputs` in the card"
        )
    return array.astype(wanted)


def _nothing(spec: TensorSpec) -> Array:
    return np.zeros((0, *(1 if length == -1 else length for length in spec.shape)), NUMPY_DTYPES[spec.datatype])


def _spread(array: Array, good: Sequence[int], items: int) -> Array:
    """Returns the rows at their items, zeros (BYTES: empty texts) elsewhere."""
    if len(good) == items:
        return array
    whole = np.zeros((items, *array.shape[1:]), array.dtype)
    if array.dtype.kind == "O":
        whole.fill(b"")
    whole[list(good)] = array
    return whole


def _ragged(spec: TensorSpec, given: Mapping[str, object], good: Sequence[int], items: int) -> dict[str, Array]:
    rows = np.zeros(items, np.int64)
    if not good:
        return {spec.name: _nothing(spec), spec.rows_name: rows}
    value = given.get(spec.name)
    if isinstance(value, Sequence):
        parts = [_typed(spec, part) for part in value]
        counts = np.array([len(part) for part in parts], np.int64)
        array = np.concatenate(parts) if parts else _nothing(spec)
    else:
        array = _typed(spec, value)
        if len(good) == 1 and spec.rows_name not in given:
            given = {spec.rows_name: np.array([len(array)])}  # all rows are those of the one item
        counts = np.asarray(_typed(TensorSpec(spec.rows_name, "INT64"), given.get(spec.rows_name)))
    if counts.shape != (len(good),) or (counts < 0).any() or counts.sum() != len(array) or not spec.fits(array.shape):
        raise ModelError(
            f"output {spec.name!r} of the network has shape {list(array.shape)} and the row counts"
            f" {counts.tolist()[:16]}, which do not fit {len(good)} items of rows {list(spec.shape)}: correct the"
            " network, or `outputs` in the card"
        )
    rows[list(good)] = counts
    return {spec.name: array, spec.rows_name: rows}
