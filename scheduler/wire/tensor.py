"""Tensors in the protocol's binary form: made from arrays, joined along the batch axis, and split again."""

from __future__ import annotations

import binascii
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from scheduler.wire.error import WireError, shown

_base64: Any
try:
    # The same, thirty times as fast; optional, because not every host that shares this format has it.
    import pybase64 as _base64
except ImportError:
    import base64 as _base64

DATATYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {"BOOL": np.dtype("?")}
    | {f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)}
    | {f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)}
    | {f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)}
)
"""The protocol's datatypes of fixed size. BYTES has a form of its own; BF16 is not in numpy and is refused."""

_DATATYPE_OF = {(dtype.kind, dtype.itemsize): name for name, dtype in DATATYPES.items()}
_U32 = struct.Struct("<I")


# Not frozen, like all that is made anew for each request: that would take four times as long. None is changed.
@dataclass(slots=True)
class Tensor:
    """A named array in the protocol's binary form.

    Attributes:
        name: the tensor's name.
        datatype: a key of DATATYPES, or "BYTES".
        shape: its axes; the first is the batch.
        raw: the data, little-endian and row-major; each BYTES element follows its length, a little-endian u32.
        from_json: whether the data came from the JSON object (see `base64_elements`).
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: bytes | memoryview
    from_json: bool = False
    _ends: list[int] | None = field(default=None, init=False, compare=False, repr=False)

    @property
    def items(self) -> int:
        """The length of the batch axis."""
        return self.shape[0]

    @classmethod
    def from_numpy(cls, name: str, array: npt.NDArray[Any]) -> Tensor:
        """Copies an array of any layout; an object array of `bytes` becomes BYTES.

        Raises:
            WireError: the array has no batch axis, or a dtype that the protocol lacks.
        """
        if array.ndim == 0:
            raise WireError(f"tensor {shown(name)} needs a batch axis")
        if array.dtype.kind == "O":
            return cls.from_elements(name, array.ravel().tolist(), array.shape)
        datatype = _DATATYPE_OF.get((array.dtype.kind, array.dtype.itemsize))
        if datatype is None:
            raise WireError(f"tensor {shown(name)} has dtype {array.dtype}, for which the protocol has no datatype")
        return cls(name, datatype, array.shape, array.astype(DATATYPES[datatype], copy=False).tobytes())

    @classmethod
    def from_elements(cls, name: str, elements: Sequence[bytes], shape: tuple[int, ...] | None = None) -> Tensor:
        """Makes a BYTES tensor; without a shape, it has one axis.

        Raises:
            WireError: the number of elements does not fit the shape, or an element is not `bytes`.
        """
        shape = (len(elements),) if shape is None else shape
        if not shape or math.prod(shape) != len(elements):
            raise WireError(f"tensor {shown(name)} has {len(elements)} elements, which do not fill shape {shape}")
        if not all(isinstance(element, bytes) for element in elements):
            raise WireError(f"tensor {shown(name)} has an element that is not bytes")
        raw = b"".join(chain.from_iterable((_U32.pack(len(element)), element) for element in elements))
        return cls(name, "BYTES", shape, raw)

    def to_numpy(self) -> npt.NDArray[Any]:
        """Returns a read-only view of the data (BYTES: a new object array of `bytes`), in the tensor's shape."""
        if self.datatype == "BYTES":
            array = np.empty(math.prod(self.shape), dtype=np.object_)
            array[:] = self.elements()
            return array.reshape(self.shape)
        return np.frombuffer(self.raw, DATATYPES[self.datatype]).reshape(self.shape)

    def elements(self) -> list[bytes]:
        """Returns the elements of a BYTES tensor, row-major; each is a copy.

        Raises:
            WireError: the tensor is of another datatype, or its lengths do not add up to its data.
        """
        raw = memoryview(self.raw)
        ends = _element_ends(self)
        return [bytes(raw[start + 4 : end]) for start, end in zip(chain((0,), ends), ends, strict=False)]


class Gathered(Tensor):
    """A tensor whose data is that of several, one after the other; it is joined only when it is looked at."""

    __slots__ = ("_joined", "pieces")

    def __init__(
        self, first: Tensor, shape: tuple[int, ...], pieces: tuple[bytes | memoryview, ...], *, from_json: bool
    ):
        """Is like the first of them, in another shape."""
        self.name = first.name
        self.datatype = first.datatype
        self.shape = shape
        self.from_json = from_json
        self.pieces = pieces
        self._ends = None
        self._joined: bytes | None = None

    @property
    def raw(self) -> bytes:  # type: ignore[override]
        """The data."""
        if self._joined is None:
            self._joined = b"".join(self.pieces)
        return self._joined

    def __eq__(self, other: object) -> bool:
        """Returns whether it is the same tensor, gathered or not."""
        if not isinstance(other, Tensor):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _FIELDS)

    __hash__ = None  # type: ignore[assignment]


_FIELDS = ("name", "datatype", "shape", "raw", "from_json")


def pieces_of(tensor: Tensor) -> tuple[bytes | memoryview, ...]:
    """Returns the data of a tensor in the pieces that it is in."""
    return tensor.pieces if isinstance(tensor, Gathered) else (tensor.raw,)


def base64_elements(tensor: Tensor) -> Tensor:
    """Decodes the base64 text in a BYTES tensor that came from JSON.

    JSON strings are text, so they can hold an encoded image only as base64. A tensor that came in binary form holds the
    bytes themselves and is returned unchanged.

    Raises:
        WireError: an element is not base64, or the tensor is not BYTES.
    """
    if not tensor.from_json:
        return tensor
    try:
        decoded = [_base64.b64decode(element, validate=True) for element in tensor.elements()]
    except binascii.Error:
        raise WireError(
            f"tensor {shown(tensor.name)} has an element that is not base64; JSON carries bytes as base64 without line"
            " breaks, and the binary tensor form carries them unchanged"
        ) from None
    return Tensor.from_elements(tensor.name, decoded, tensor.shape)


def concat(tensors: Sequence[Tensor]) -> Tensor:
    """Joins tensors along the batch axis; their data is copied where it is looked at, once.

    Raises:
        WireError: there are none, or they differ in name, datatype or any later axis.
    """
    if not tensors:
        raise WireError("there is no tensor to join")
    first = tensors[0]
    if len(tensors) == 1:
        return first
    name, datatype, axes, items, from_json = first.name, first.datatype, first.shape[1:], 0, True
    for other in tensors:
        if other.name != name or other.datatype != datatype or other.shape[1:] != axes:
            raise WireError(f"{_described(other)} cannot join {_described(first)} in one batch")
        items += other.shape[0]
        from_json = from_json and other.from_json
    pieces = tuple([tensor.raw for tensor in tensors])
    return Gathered(first, (items, *axes), pieces, from_json=from_json)


def split(tensor: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """Splits a tensor along the batch axis into views of `counts` items each; the inverse of `concat`.

    Raises:
        WireError: the counts are negative or do not add up to the tensor's items.
    """
    if min(counts, default=0) < 0 or sum(counts) != tensor.shape[0]:
        raise WireError(f"{_described(tensor)} cannot be split into {list(counts)} items")
    if len(counts) == 1:
        return [tensor]
    raw, edges = memoryview(tensor.raw), byte_edges(tensor, [0, *accumulate(counts)])
    return [
        Tensor(tensor.name, tensor.datatype, (count, *tensor.shape[1:]), raw[start:end], tensor.from_json)
        for count, start, end in zip(counts, edges, edges[1:], strict=False)
    ]


def check_raw(tensor: Tensor) -> None:
    """Checks the data's length against datatype and shape.

    Raises:
        WireError: they differ, or a BOOL byte is neither 0 nor 1.
    """
    if tensor.datatype == "BYTES":
        if tensor._ends is not None:  # noqa: SLF001 - of this module
            return
        raw = tensor.raw
        # One element, as nearly always: that is all of it, or `_element_ends` says what is wrong.
        if len(raw) >= 4 and math.prod(tensor.shape) == 1 and _U32.unpack_from(raw)[0] == len(raw) - 4:
            tensor._ends = [len(raw)]  # noqa: SLF001 - of this module
            return
        _element_ends(tensor)
        return
    expected = math.prod(tensor.shape) * DATATYPES[tensor.datatype].itemsize
    if len(tensor.raw) != expected:
        raise WireError(f"{_described(tensor)} has {len(tensor.raw)} bytes of data, but its shape needs {expected}")
    if tensor.datatype == "BOOL" and np.frombuffer(tensor.raw, np.uint8).max(initial=0) > 1:
        raise WireError(f"{_described(tensor)} has a byte that is neither 0 nor 1")


def _element_ends(tensor: Tensor) -> list[int]:
    """Returns the offset in the data at which each element of a BYTES tensor ends, computed once."""
    if tensor._ends is not None:  # noqa: SLF001 - of this module
        return tensor._ends  # noqa: SLF001
    if tensor.datatype != "BYTES":
        raise WireError(f"{_described(tensor)} must be BYTES")
    count, size, at, ends = math.prod(tensor.shape), len(tensor.raw), 0, []
    if 4 * count > size:
        raise WireError(f"{_described(tensor)} has {size} bytes of data, too few for the lengths of its elements")
    for index in range(count):
        if at + 4 > size:
            raise WireError(f"{_described(tensor)} ends before the length of element {index}")
        length = _U32.unpack_from(tensor.raw, at)[0]
        at += 4 + length
        if at > size:
            raise WireError(f"{_described(tensor)} ends before the {length} bytes of element {index}")
        ends.append(at)
    if at != size:
        raise WireError(f"{_described(tensor)} has {size - at} bytes of data after its last element")
    tensor._ends = ends  # noqa: SLF001
    return ends


def byte_edges(tensor: Tensor, item_edges: Sequence[int]) -> list[int]:
    """Returns the offsets in the data at which the items of the given numbers begin."""
    elements_per_item = math.prod(tensor.shape[1:])
    if tensor.datatype == "BYTES":
        starts = [0, *_element_ends(tensor)]
        return [starts[edge * elements_per_item] for edge in item_edges]
    item_bytes = elements_per_item * DATATYPES[tensor.datatype].itemsize
    return [edge * item_bytes for edge in item_edges]


def _described(tensor: Tensor) -> str:
    return f"tensor {shown(tensor.name)} ({tensor.datatype}, shape {list(tensor.shape)})"
