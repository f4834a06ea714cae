"""The inputs of requests to any model: drawn at random by datatype and shape, or the arrays of .npy and .npz files."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from models.card import TensorSpec
from scheduler.measuring.errors import MeasuringError
from scheduler.measuring.payloads import MAX_BYTES, Payload, read_files, synthetic_pictures
from scheduler.wire import DATATYPES, Tensor, WireError

RANDOM = "random"
"""The word instead of files."""

DEFAULT_LENGTH = 16
"""Length that is drawn for axes that may have any."""


class ArgumentGroup(Protocol):
    """A parser, or a group of its options."""

    def add_argument(self, *names: str, **options: Any) -> Any:
        """Adds an option."""
        ...


_ARRAYS = (".npy", ".npz")
_DRAWN = 8
_LARGEST_INTEGER = 9
"""Of drawn whole numbers but bytes: models look up rows of tables by them, which may be short."""


def add_payload(parser: ArgumentGroup, lengths: ArgumentGroup) -> None:
    """Adds the option --payload, and to `lengths` the one that goes with it."""
    parser.add_argument(
        "--payload",
        nargs="+",
        default=[],
        metavar="random|FILE",
        help="what is sent, in turn: `random`; rows of arrays in .npy, or in .npz by the inputs' names; or encoded"
        " pictures (default: drawn)",
    )
    lengths.add_argument(
        "--axis-length",
        type=int,
        default=DEFAULT_LENGTH,
        metavar="N",
        help="length that is drawn for axes of any length (default %(default)s)",
    )


def chosen_payloads(
    words: Sequence[str], inputs: Sequence[TensorSpec], *, model: str, seed: int, length: int = DEFAULT_LENGTH
) -> tuple[Payload, ...]:
    """Returns what the option --payload names: `random`, arrays or pictures.

    Args:
        words: `random` or names of files; empty: as `random`, which draws pictures for a model with one BYTES input.
        inputs: what the model takes.
        model: its name, for messages.
        seed: random seed.
        length: length that is drawn for axes that may have any.

    Raises:
        MeasuringError: a file cannot be read, or does not fit the model.
    """
    paths = [Path(word) for word in words if word != RANDOM]
    if len(paths) < len(words) and len(words) > 1:
        raise MeasuringError(f"--payload takes the word {RANDOM} or files, not both")
    if not paths:
        pictures = synthetic_pictures(seed)
        return pictures if takes_pictures(inputs) else drawn_payloads(inputs, model=model, seed=seed, length=length)
    of_arrays = [path.suffix.lower() in _ARRAYS for path in paths]
    if all(of_arrays):
        return array_payloads(paths, inputs, model=model)
    if any(of_arrays):
        raise MeasuringError("--payload takes arrays (.npy, .npz) or pictures, not both")
    if not takes_pictures(inputs):
        raise MeasuringError(
            f"model {model!r} takes {described(inputs)}, not one encoded picture; send --payload {RANDOM}, or arrays"
            " (.npz by the inputs' names)"
        )
    return read_files(paths)


def takes_pictures(inputs: Sequence[TensorSpec]) -> bool:
    """Returns whether a request can be one encoded picture."""
    return len(inputs) == 1 and inputs[0].datatype == "BYTES" and inputs[0].shape == ()


def described(inputs: Sequence[TensorSpec]) -> str:
    """Returns the inputs in words."""
    return ", ".join(f"{spec.name} ({spec.datatype})" for spec in inputs) or "nothing"


def drawn_payloads(
    inputs: Sequence[TensorSpec], *, model: str, seed: int, length: int = DEFAULT_LENGTH
) -> tuple[Payload, ...]:
    """Draws eight payloads: normal numbers, whole numbers from 0 to 9, bytes, and pictures where the input is BYTES.

    Raises:
        MeasuringError: an input has a datatype that cannot be drawn.

    >>> drawn_payloads([TensorSpec("x", "FP32", (2,))], model="m", seed=1)[0].tensors[0].shape
    (1, 2)
    """
    rng = np.random.default_rng(seed)
    pictures = [picture.data for picture in synthetic_pictures(seed)]
    drawn = []
    for index in range(_DRAWN):
        tensors = tuple(_drawn(rng, spec, pictures[index], length=length, model=model) for spec in inputs)
        drawn.append(Payload(f"{RANDOM}-{index}", tensors=tensors))
    return tuple(drawn)


def _drawn(rng: np.random.Generator, spec: TensorSpec, picture: bytes, *, length: int, model: str) -> Tensor:
    shape = (1, *(length if axis == -1 else axis for axis in spec.shape))
    if spec.datatype == "BYTES":
        return Tensor.from_elements(spec.name, [picture] * int(np.prod(shape)), shape)
    dtype = DATATYPES.get(spec.datatype)
    if dtype is None:
        raise MeasuringError(f"input {spec.name!r} of model {model!r} is {spec.datatype}, which cannot be drawn")
    array: npt.NDArray[Any]
    if dtype.kind == "f":
        array = rng.standard_normal(shape)
    elif dtype.kind == "b":
        array = rng.integers(0, 2, shape)
    else:
        array = rng.integers(0, 256 if dtype == np.uint8 else _LARGEST_INTEGER + 1, shape)
    return Tensor.from_numpy(spec.name, array.astype(dtype))


def array_payloads(paths: Sequence[Path], inputs: Sequence[TensorSpec], *, model: str) -> tuple[Payload, ...]:
    """Reads arrays: each row of the first axis is a payload; without a batch axis, the array is one.

    A .npy file is for a model with one input; a .npz file has an array for each input, by its name.

    Raises:
        MeasuringError: a file cannot be read or does not fit the model, or all together are too large.
    """
    payloads: list[Payload] = []
    total_bytes = 0
    for path in paths:
        arrays = _arrays(path, inputs, model)
        columns = [_rows(path, spec, arrays[spec.name]) for spec in inputs]
        counts = {spec.name: len(rows) for spec, rows in zip(inputs, columns, strict=True)}
        if len(set(counts.values())) != 1:
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise MeasuringError(f"the arrays in {path} have unlike numbers of items: {told}")
        rows = [tuple(row) for row in zip(*columns, strict=True)]
        total_bytes += sum(len(tensor.raw) for row in rows for tensor in row)
        if total_bytes > MAX_BYTES:
            raise MeasuringError(f"the arrays up to {path} have more than {MAX_BYTES} bytes; name fewer")
        payloads += [Payload(f"{path.name}:{index}", tensors=row) for index, row in enumerate(rows)]
    return tuple(payloads)


def _arrays(path: Path, inputs: Sequence[TensorSpec], model: str) -> Mapping[str, npt.NDArray[Any]]:
    try:
        # Never pickles: they run code.
        loaded = np.load(path, allow_pickle=False)
        found = {name: loaded[name] for name in loaded.files} if path.suffix.lower() == ".npz" else loaded
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        why = getattr(error, "strerror", None) or str(error) or "it is empty"
        raise MeasuringError(f"cannot read the arrays in {path}: {' '.join(why.split())[:200]}") from error
    if isinstance(found, np.ndarray):
        if len(inputs) != 1:
            raise MeasuringError(f"model {model!r} takes {described(inputs)}; save them by name in one .npz file")
        return {inputs[0].name: found}
    if set(found) != {spec.name for spec in inputs}:
        raise MeasuringError(f"{path} has the arrays {', '.join(found)}, but model {model!r} takes {described(inputs)}")
    return found


def _rows(path: Path, spec: TensorSpec, array: npt.NDArray[Any]) -> list[Tensor]:
    """Returns one tensor for each item."""
    if array.ndim == 0 or not spec.fits(array.shape):
        array = array[np.newaxis]
    if not spec.fits(array.shape) or len(array) == 0:
        wanted = ", ".join(["n", *("any" if axis == -1 else str(axis) for axis in spec.shape)])
        raise MeasuringError(f"input {spec.name!r} has the shape [{wanted}], but {path} has {list(array.shape[1:])}")
    try:
        return [_row(spec, array[index : index + 1]) for index in range(len(array))]
    except (TypeError, WireError):
        raise MeasuringError(f"input {spec.name!r} is {spec.datatype}, but {path} has {array.dtype}") from None


def _row(spec: TensorSpec, row: npt.NDArray[Any]) -> Tensor:
    if spec.datatype == "BYTES":
        if row.dtype.kind not in "SU":
            raise TypeError(row.dtype)
        texts = [text.encode() if isinstance(text, str) else text for text in row.ravel().tolist()]
        return Tensor.from_elements(spec.name, texts, row.shape)
    return Tensor.from_numpy(spec.name, row.astype(DATATYPES[spec.datatype], casting="same_kind", copy=False))
