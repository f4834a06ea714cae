"""What a loaded model answers to inputs as clients send them, and whether that is what is expected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from support.model_folders import Arrays

from models.card import ITEM_ERROR
from models.runtime import stacked
from models.serving import ServedModel


def answer(model: ServedModel, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """Returns what the model answers to inputs as clients send them."""
    prepared = {
        name: stacked([model.prepare(name, one) for one in array]) if name in model.encoded_inputs else array
        for name, array in inputs.items()
    }
    items = len(next(iter(inputs.values())))
    outputs = model.answer(prepared, errors=[""] * items)
    return {name: array for name, array in outputs.items() if name != ITEM_ERROR}


def assert_same(found: Arrays, expected: Arrays) -> None:
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].shape == array.shape, name
        assert found[name].dtype == array.dtype, name
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-4, err_msg=name)
