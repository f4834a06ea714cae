"""A tensor's data in JSON: a flat or nested list of numbers, booleans or strings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from scheduler.wire.error import WireError, shown
from scheduler.wire.tensor import DATATYPES, Tensor

_ACCEPTED: Mapping[str, tuple[frozenset[type], str]] = {
    "b": (frozenset({bool}), "true or false"),
    "u": (frozenset({int}), "a whole number in its range"),
    "i": (frozenset({int}), "a whole number in its range"),
    "f": (frozenset({int, float}), "a number in its range"),
}
"""By kind of numpy dtype: the Python types of the JSON values that it accepts, and their description."""


def data_from_json(name: str, datatype: str, shape: tuple[int, ...], data: object) -> Tensor:
    """Reads a tensor's `data`, which is flat or nested like its shape.

    Raises:
        WireError: the data is missing, does not fill the shape, or holds a value that the datatype does not accept.
    """
    if type(data) is not list:
        raise WireError(f"tensor {shown(name)} needs 'data', a list, or the parameter 'binary_data_size'")
    values = _flat(data, shape)
    if values is None or len(values) != math.prod(shape):
        raise WireError(f"tensor {shown(name)} has 'data' that does not fill its shape {list(shape)}")
    raw = _texts(name, values) if datatype == "BYTES" else _numbers(name, datatype, values)
    return Tensor(name, datatype, shape, raw, from_json=True)


def data_to_json(tensor: Tensor) -> npt.NDArray[Any] | list[str] | list[float]:
    """Returns the flat list of a tensor's data; an array where orjson can write it.

    Raises:
        WireError: the data holds bytes that are not UTF-8, NaN or infinity, which JSON does not have.
    """
    remedy = "which JSON cannot carry; use the binary form"
    if tensor.datatype == "BYTES":
        try:
            return [element.decode() for element in tensor.elements()]
        except UnicodeDecodeError:
            raise WireError(f"tensor {shown(tensor.name)} holds bytes that are not UTF-8 text, {remedy}") from None
    array = np.frombuffer(tensor.raw, DATATYPES[tensor.datatype])
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise WireError(f"tensor {shown(tensor.name)} holds NaN or infinity, {remedy}")
    if tensor.datatype == "FP64":
        # orjson 3.13.0 writes beyond its buffer where the doubles of an array have texts of 24 characters, such as
        # -1.2345678901234567e-300; those of a list it writes well, and those that were FP32 are shorter.
        doubles: list[float] = array.tolist()
        return doubles
    # As doubles, which every JSON reader keeps exactly. The shortest text for an FP32 is shorter, but a reader that
    # converts it to a double first reads one value (0x15ae43fd) as its neighbour.
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _flat(data: list[Any], shape: tuple[int, ...]) -> list[Any] | None:
    """Returns the values of a list that is flat, or nested exactly like the shape; None if it is neither."""
    if not data or type(data[0]) is not list:
        return data
    if len(data) != shape[0]:
        return None
    for length in shape[1:]:
        if not all(type(row) is list and len(row) == length for row in data):
            return None
        data = list(chain.from_iterable(data))
    return data


def _texts(name: str, values: list[Any]) -> bytes:
    if not set(map(type, values)) <= {str}:
        raise WireError(f"tensor {shown(name)} is BYTES, but its 'data' is not all strings")
    return bytes(Tensor.from_elements(name, [value.encode() for value in values]).raw)


def _numbers(name: str, datatype: str, values: list[Any]) -> bytes:
    dtype = DATATYPES[datatype]
    accepted, in_words = _ACCEPTED[dtype.kind]
    fits = set(map(type, values)) <= accepted
    if fits and dtype.kind in "ui" and values:
        limits = np.iinfo(dtype)  # numpy 1 wraps values that are out of range
        fits = limits.min <= min(values) and max(values) <= limits.max
    if fits:
        with np.errstate(over="ignore"):  # the check below finds the overflow
            array = np.array(values, dtype)
        fits = dtype.kind != "f" or bool(np.isfinite(array).all())
    if not fits:
        raise WireError(f"tensor {shown(name)} is {datatype}, but has 'data' that is not {in_words}")
    return array.tobytes()
