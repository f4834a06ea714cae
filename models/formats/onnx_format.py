"""ONNX files, by ONNX Runtime: its session, the names of its tensors, and batches on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.binding import bind_inputs, bind_outputs
from models.card import Card
from models.errors import ModelError, of_device
from models.packages import needed
from models.runtime import Array, RuntimeReport
from scheduler.wire import WireError

_DTYPES: Mapping[str, np.dtype[Any]] = {
    "tensor(bool)": np.dtype(np.bool_),
    "tensor(string)": np.dtype(np.object_),
    "tensor(float16)": np.dtype("f2"),
    "tensor(float)": np.dtype("f4"),
    "tensor(double)": np.dtype("f8"),
    **{f"tensor(int{bits})": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"tensor(uint{bits})": np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)},
}
_PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
_ERRORS_ONLY = 3


class OnnxRuntime:
    """A network in ONNX Runtime.

    A file with a fixed batch runs as often as it must, and what is left of its last batch is filled up: slower, but it
    serves. So does one that does not say which rows of a ragged output belong to which item, one item after the other.
    """

    def __init__(self, card: Card, session: Any, report: RuntimeReport) -> None:
        """Stores the session after matching its tensors with the card's.

        Raises:
            ModelError: inputs or outputs are not those of the card.
        """
        self._card = card
        self._session = session
        self.report = report
        self._given = session.get_inputs()
        self._sources = bind_inputs(card, [node.name for node in self._given])
        bound = bind_outputs(card, [node.name for node in session.get_outputs()])
        # Others need not be tensors, nor be computed.
        computed = [session.get_outputs()[index] for index in sorted(set(bound.values()))]
        self._names = [node.name for node in computed]
        self._outputs = {name: self._names.index(session.get_outputs()[index].name) for name, index in bound.items()}
        for node in (*self._given, *computed):
            if node.type not in _DTYPES:
                raise ModelError(f"tensor {node.name!r} of model {card.name} is {node.type}: {_hint(node.type)}")
        self.fixed_batch = _fixed_batch(card, self._given)
        self._uncounted = {spec.name for spec in card.outputs if spec.ragged and spec.rows_name not in bound}
        if self._uncounted and self.fixed_batch not in (None, 1):
            raise ModelError(
                f"model {card.name} takes batches of {self.fixed_batch} and does not say how many rows of"
                f" {min(self._uncounted)!r} each item has: export it with a batch of 1, or with an output of row counts"
            )
        self.fixed_batch = 1 if self._uncounted else self.fixed_batch
        self._pictures = {spec.name for spec in card.inputs if spec.picture and card.preprocess is not None}
        self._preprocess = card.preprocess

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array | Sequence[Array]]:
        """Returns the network's outputs; `Runtime.run` says more."""
        feed = {
            node.name: self._fed(node, source, inputs) for node, source in zip(self._given, self._sources, strict=True)
        }
        if self.fixed_batch is None:
            values = self._run(feed)
            return {name: _encoded(np.asarray(values[index])) for name, index in self._outputs.items()}
        each = self._in_parts(feed, self.fixed_batch)
        return {
            name: [_encoded(np.asarray(parts[index])) for parts in each]
            if name in self._uncounted
            else _encoded(self._joined([np.asarray(parts[index]) for parts in each], self.fixed_batch, feed))
            for name, index in self._outputs.items()
        }

    def _in_parts(self, feed: Mapping[str, Array], size: int) -> list[list[Any]]:
        """Returns the outputs of batches of exactly that size, one after the other; the last item fills up the last."""
        items = len(next(iter(feed.values())))
        each = []
        for at in range(0, items, size):
            taken = np.minimum(np.arange(at, at + size), items - 1)
            each.append(self._run({name: array[taken] for name, array in feed.items()}))
        return each

    def _joined(self, parts: Sequence[Array], size: int, feed: Mapping[str, Array]) -> Array:
        """Returns an output of those batches as that of one."""
        if size > 1 and any(len(part) != size for part in parts):
            raise ModelError(
                f"model {self._card.name} takes batches of exactly {size}, and gives other numbers of rows: export it"
                " with a dynamic first axis"
            )
        whole = np.concatenate(parts)
        return whole if size == 1 else whole[: len(next(iter(feed.values())))]

    def _fed(self, node: Any, source: str, inputs: Mapping[str, Array]) -> Array:
        array = inputs[source]
        if self._preprocess is not None and source in self._pictures:
            # Imports OpenCV, which models without pictures do without.
            from models.preprocess import normalise

            array = normalise(array, self._preprocess)
        wanted = _DTYPES[node.type]
        if wanted.kind == "O":
            each = max(1, array.size // max(1, len(array)))
            texts = [_text(source, index // each, element) for index, element in enumerate(array.reshape(-1))]
            return np.array(texts, np.object_).reshape(array.shape)
        if array.dtype != wanted:
            array = array.astype(wanted)
        if len(node.shape) == 2 and array.ndim == 1:
            # One value an item is a column for the network (scikit-learn's features).
            array = array[:, np.newaxis]
        return np.ascontiguousarray(array)

    def _run(self, feed: Mapping[str, Array]) -> list[Any]:
        try:
            return list(self._session.run(self._names, feed))
        except Exception as error:  # noqa: BLE001 - ONNX Runtime has an exception class of its own for each status.
            if self.report.device != "cpu":
                items = len(next(iter(feed.values())))
                if (told := of_device(error, name=self._card.name, items=items)) is not None:
                    raise told from error
            raise ModelError(f"model {self._card.name} failed in ONNX Runtime: {first_line(error)}") from error


def open_session(content: Path | bytes, *, device: str, threads: int, name: str, provider: str = "") -> Any:
    """Returns ONNX Runtime's session of a file.

    Args:
        content: the file, or its bytes.
        device: "cpu", or "cuda" perhaps with a number.
        threads: threads of one operation.
        name: the model's name, for errors.
        provider: "cpu", "cuda" or "tensorrt"; "": that of the device.

    Raises:
        ModelError: the file cannot be read, or the device not used.
    """
    onnxruntime = needed("onnxruntime", f"model {name}")
    kind, _, number = device.partition(":")
    wanted = _PROVIDERS[provider or kind]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # Threads that wait for work without sleeping take the CPU from those that decode the next batch: measured on two
    # shared cores, batches of 16 take 0.24 s instead of 0.33 s, and single items the same.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = str(content) if isinstance(content, Path) else content
    chosen = [(each, {"device_id": int(number or 0)}) if each.startswith(("CUDA", "Tens")) else each for each in wanted]
    try:
        session = onnxruntime.InferenceSession(source, options, providers=chosen)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime has an exception class of its own for each status.
        what = f"file {content}" if isinstance(content, Path) else "its ONNX file"
        raise ModelError(f"model {name}: {what} cannot be loaded by ONNX Runtime: {first_line(error)}") from error
    if session.get_providers()[0] != wanted[0]:
        raise ModelError(f"device {device!r} is not usable here, ONNX Runtime cannot open {wanted[0]}: choose 'cpu'")
    return session


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text, shortened: what a sentence can carry."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[0] if lines else type(error).__name__}"[:400]


def _encoded(array: Array) -> Array:
    """Returns an output; texts as the bytes that go over the wire."""
    if array.dtype.kind not in "OU":
        return array
    texts = [str(element).encode() for element in array.reshape(-1)]
    return np.array(texts, np.object_).reshape(array.shape)


def _text(name: str, item: int, element: object) -> str:
    """Returns an element as ONNX Runtime takes it; WireError, for it is the request's fault, where it is no text."""
    try:
        return element.decode() if isinstance(element, bytes) else str(element)
    except UnicodeDecodeError:
        raise WireError(f"item {item} of the request is broken: input {name!r} must be UTF-8 text") from None


def _hint(kind: str) -> str:
    if kind.startswith(("seq(", "map(")):
        return "only tensors can be served; export scikit-learn's classifiers with options={'zipmap': False}"
    return "this type cannot be served; export it as another"


def _fixed_batch(card: Card, nodes: Any) -> int | None:
    fixed = {node.shape[0] for node in nodes if node.shape and isinstance(node.shape[0], int) and node.shape[0] > 0}
    if not fixed:
        return None
    if len(fixed) > 1:
        raise ModelError(
            f"model {card.name} has inputs of {min(fixed)} and {max(fixed)} items: export it with a dynamic first axis"
        )
    return int(min(fixed))
