"""Hypothesis strategies for tensors and requests of the wire format."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scheduler.wire import DATATYPES, InferRequest, OutputRequest, Tensor

SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)
NAMES = st.text(min_size=1, max_size=8)
PARAMETERS = st.dictionaries(
    st.text(max_size=8).filter(lambda key: key != "binary_data_output"),
    st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False),
    max_size=3,
)


def arrays_of(datatype: str, shape: st.SearchStrategy[tuple[int, ...]] | tuple[int, ...], finite: bool) -> Any:
    dtype = DATATYPES[datatype]
    special = None if dtype.kind != "f" else not finite
    return hnp.arrays(dtype, shape, elements=hnp.from_dtype(dtype, allow_nan=special, allow_infinity=special))


@st.composite
def tensors(draw: st.DrawFn, *, json_able: bool, shape: Any = SHAPES, name: Any = NAMES) -> Tensor:
    shape = draw(shape)
    datatype = draw(st.sampled_from([*DATATYPES, "BYTES"]))
    if datatype != "BYTES":
        return Tensor.from_numpy(draw(name), draw(arrays_of(datatype, shape, finite=json_able)))
    size = math.prod(shape)
    element = st.text(max_size=6).map(str.encode) if json_able else st.binary(max_size=6)
    elements = draw(st.lists(element, min_size=size, max_size=size))
    return Tensor.from_elements(draw(name), elements, shape)


def distinct(json_able: bool, min_size: int) -> st.SearchStrategy[tuple[Tensor, ...]]:
    several = st.lists(
        tensors(json_able=json_able), min_size=min_size, max_size=3, unique_by=lambda tensor: tensor.name
    )
    return several.map(tuple)


OUTPUT_REQUESTS = st.lists(
    st.builds(OutputRequest, NAMES, st.booleans(), st.integers(0, 5)), max_size=3, unique_by=lambda output: output.name
).map(tuple)


def requests(json_able: bool) -> st.SearchStrategy[InferRequest]:
    inputs = distinct(json_able, 1)
    return st.builds(InferRequest, st.text(max_size=8), inputs, OUTPUT_REQUESTS, PARAMETERS, st.booleans())
