"""One batch at a served model: its request checked, its elements decoded, its outputs as tensors; for both hosts."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from models.card import Card
from models.card_check import input_problem
from models.errors import ModelError
from models.pictures.kinds import weigh
from models.pictures.weight import too_much
from models.rehearsal import rehearsal_inputs
from models.runtime import Array
from models.serving import ServedModel
from scheduler.wire import InferRequest, OutputRequest, Tensor, WireError, base64_elements

_log = logging.getLogger("models")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch whose elements are decoded.

    Attributes:
        inputs: by name, the arrays of the items that are not broken, batch axis first.
        errors: one text for each item: empty, or why it is broken.
        began_s: start of the decoding, monotonic seconds.
        ended_s: end of the decoding, monotonic seconds.
    """

    inputs: Mapping[str, Array]
    errors: tuple[str, ...]
    began_s: float
    ended_s: float


def output_problem(card: Card, wanted: Sequence[OutputRequest]) -> str | None:
    """Returns what is wrong with the outputs that a request asks for, as one sentence; None if nothing is."""
    names = [spec.name for spec in card.all_outputs()]
    for output in wanted:
        if output.name not in names:
            return f"model {card.name!r} has no output {output.name[:64]!r}; it has {', '.join(names)}"
        if output.class_count:
            return (
                f"output {output.name!r} is asked for as classification, which this server does not do: "
                "ask for the output itself and take its largest values"
            )
    return None


class Batch:
    """The inputs of one request, from checking to decoding. `start` or `prepare_here` is called once.

    The decoding threads take one element after the other, so that a large picture delays no other one.
    """

    def __init__(
        self,
        model: ServedModel,
        request: InferRequest,
        *,
        max_items: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Checks the request; its tensors become views of its body.

        Args:
            model: the model that it asks for.
            request: the request.
            max_items: the largest number of items.
            clock: returns monotonic seconds.

        Raises:
            WireError: inputs or outputs are not those of the model, there are too many items, or a text is not base64.
        """
        card = model.card
        problem = input_problem(card.name, card.inputs, request.inputs, max_items=max_items)
        if problem is None:
            problem = output_problem(card, request.outputs)
        if problem is not None:
            raise WireError(problem)
        self.model = model
        self.items = request.inputs[0].items
        self._clock = clock
        self._arrays: dict[str, Array] = {}
        self._encoded: dict[str, tuple[tuple[int, ...], list[bytes]]] = {}
        for tensor in request.inputs:
            if tensor.name in model.encoded_inputs:
                self._encoded[tensor.name] = (tensor.shape, base64_elements(tensor).elements())
            else:
                self._arrays[tensor.name] = _array(tensor)
        self._work = [(name, index) for name, (_, texts) in self._encoded.items() for index in range(len(texts))]
        self._decoded: dict[str, list[Array | None]] = {
            name: [None] * len(texts) for name, (_, texts) in self._encoded.items()
        }
        self._errors = [""] * self.items
        self._leave_out_what_is_too_much(card)
        self._lock = threading.Lock()
        self._taken = 0
        self._left = len(self._work)
        self._ended = threading.Event()
        self._began_s = 0.0
        self._ended_s = 0.0

    def _leave_out_what_is_too_much(self, card: Card) -> None:
        """Fails the items with the largest pictures, as many as exceed the card's budget, before any is decoded."""
        if card.preprocess is None:
            return
        weights = [weigh(memoryview(self._encoded[name][1][index])) for name, index in self._work]
        for number, sentence in too_much(weights, card.max_batch_pixels):
            name, index = self._work[number]
            item = self._item_of(name, index)
            self._errors[item] = self._errors[item] or sentence
        self._work = [one for one in self._work if not self._errors[self._item_of(*one)]]

    def _item_of(self, name: str, index: int) -> int:
        return index // math.prod(self._encoded[name][0][1:])

    @property
    def decodes(self) -> bool:
        """Whether there is anything to decode."""
        return bool(self._work)

    def start(self, pool: Executor, threads: int) -> None:
        """Begins to decode, with up to so many threads of the pool; `wait` returns the result."""
        self._began_s = self._clock()
        if not self._work:
            self._finish()
        for _ in range(min(threads, len(self._work))):
            pool.submit(self._decode_all)

    def wait(self) -> Prepared:
        """Waits for the last element and returns the decoded batch.

        Raises:
            ModelError: items of the batch were decoded to unlike shapes, or an item failed whose error has no output.
        """
        self._ended.wait()
        bad = [index for index, error in enumerate(self._errors) if error]
        if bad and not self.model.card.has_pictures:
            raise WireError(f"item {bad[0]} of the request is broken: {self._errors[bad[0]]}")
        good = [index for index in range(self.items) if not self._errors[index]] if bad else None
        return Prepared(self._inputs(good), tuple(self._errors), self._began_s, self._ended_s)

    def prepare_here(self) -> Prepared:
        """Decodes in this thread; errors are those of `wait`."""
        self._began_s = self._clock()
        if not self._work:
            self._finish()
        self._decode_all()
        return self.wait()

    def _decode_all(self) -> None:
        while True:
            with self._lock:
                number = self._taken
                self._taken += 1
            if number >= len(self._work):
                return
            self._decode(*self._work[number])
            with self._lock:
                self._left -= 1
                last = not self._left
            if last:
                self._finish()

    def _decode(self, name: str, index: int) -> None:
        _, texts = self._encoded[name]
        item = self._item_of(name, index)
        try:
            self._decoded[name][index] = self.model.prepare(name, texts[index])
        except ModelError as error:
            self._errors[item] = self._errors[item] or str(error)
        except Exception as error:  # noqa: BLE001 - decode() of a handler may raise anything; that fails its item only
            _log.exception("Input %r of model %s could not be decoded", name, self.model.card.name)
            kind = type(error).__name__
            self._errors[item] = self._errors[item] or f"input {name!r} cannot be decoded ({kind}): check the item"

    def _finish(self) -> None:
        self._ended_s = self._clock()
        self._ended.set()

    def _inputs(self, good: Sequence[int] | None) -> dict[str, Array]:
        """Returns the inputs of the good items; None: all are good."""
        if good is not None and not good:
            return {}
        inputs = {name: array if good is None else array[list(good)] for name, array in self._arrays.items()}
        for name, (shape, _) in self._encoded.items():
            each = math.prod(shape[1:])
            found = self._decoded[name]
            kept = [found[index * each + part] for index in (good or range(self.items)) for part in range(each)]
            inputs[name] = _stacked(name, [array for array in kept if array is not None], shape[1:])
        return inputs


def rehearsal_request(card: Card, items: int) -> InferRequest:
    """Returns a request with made-up items by a model's card."""
    arrays = rehearsal_inputs(card, items).items()
    return InferRequest("rehearsal", tuple(Tensor.from_numpy(name, array) for name, array in arrays))


def outputs_as_tensors(outputs: Mapping[str, Array]) -> tuple[Tensor, ...]:
    """Returns the answer of `ServedModel.answer` in the protocol's form."""
    return tuple(Tensor.from_numpy(name, array) for name, array in outputs.items())


def _array(tensor: Tensor) -> Array:
    """Returns a read-only view of a tensor's data, or a copy if the data begins at an odd address."""
    array = tensor.to_numpy()
    return array if array.dtype.kind == "O" else np.require(array, requirements="A")


def _stacked(name: str, arrays: Sequence[Array], elements: tuple[int, ...]) -> Array:
    """Returns the elements' arrays as one, items first; an input of several elements an item has their axes next."""
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        first, second = sorted(shapes)[:2]
        raise ModelError(
            f"input {name!r} has elements that were decoded to unlike shapes, {list(first)} and {list(second)}:"
            " let decode() return one shape, or send them in batches of their own"
        )
    if not arrays:
        raise ModelError(f"input {name!r} has items without elements: send at least one in each")
    whole = np.stack(arrays)
    return whole.reshape(-1, *elements, *whole.shape[1:]) if elements else whole
