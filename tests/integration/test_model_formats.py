"""Every format of model with every kind of tensors: a batch answers as each item alone, and as the framework itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.model_folders import FORMATS, KINDS, Arrays, Made, make

from models.card import ITEM_ERROR
from models.card_reader import read_card
from models.loading import load
from models.runtime import stacked
from models.serving import ServedModel

ITEMS = 3


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


def joined(parts: list[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@pytest.fixture(
    scope="module", params=[(model_format, kind) for model_format in FORMATS for kind in KINDS], ids="-".join
)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("models"), *request.param)


def test_a_batch_answers_as_the_framework_and_as_each_item_alone(made: Made) -> None:
    model = load(read_card(made.folder), device="cpu")
    inputs = made.inputs(ITEMS)

    together = answer(model, inputs)
    alone = [answer(model, {name: array[at : at + 1] for name, array in inputs.items()}) for at in range(ITEMS)]

    assert_same(together, made.expected(inputs))
    assert_same(joined(alone), together)
    assert model.runtime.device == "cpu"
    assert model.identity is not None
