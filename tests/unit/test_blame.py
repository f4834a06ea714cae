"""A batch that fails: inputs that the model cannot take are the request's fault, a model that fails on all is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from support.own_models import Array, FunctionRuntime, Outputs, own_card

from models.batch import Prepared
from models.blame import answered
from models.card import TensorSpec
from models.errors import ModelError
from models.serving import ServedModel
from scheduler.wire import WireError

TABLE = np.arange(10.0, dtype=np.float32)


def model(compute: Callable[[Mapping[str, Array]], Outputs]) -> tuple[ServedModel, FunctionRuntime]:
    card = own_card("words", [TensorSpec("ids", "INT64", (-1,))], [TensorSpec("y", "FP32")])
    runtime = FunctionRuntime(compute)
    return ServedModel(card, runtime, decoders={}), runtime


def batch(*ids: int) -> Prepared:
    return Prepared({"ids": np.array([ids])}, ("",), 0.0, 0.0)


def looked_up(inputs: Mapping[str, Array]) -> Outputs:
    try:
        return {"y": TABLE[inputs["ids"]].sum(axis=1)}
    except IndexError as error:
        raise ModelError(f"index out of range: {error}") from error


def test_a_word_outside_the_vocabulary_is_the_requests_fault() -> None:
    served, _ = model(looked_up)
    assert answered(served, batch(1, 2))["y"].tolist() == [3.0]
    with pytest.raises(WireError, match="model 'words' cannot take these inputs, others it can: index out of range"):
        answered(served, batch(1, 10))


def test_what_a_users_code_says_is_for_the_log() -> None:
    def secretive(inputs: Mapping[str, Array]) -> Outputs:
        if (inputs["ids"] > 9).any():
            raise KeyError("a secret")
        return {"y": inputs["ids"].sum(axis=1).astype(np.float32)}

    with pytest.raises(WireError, match=r"others it can: KeyError; the server's log says more$"):
        answered(model(secretive)[0], batch(10))


def test_a_model_that_fails_on_all_is_at_fault_itself() -> None:
    def broken(_: Mapping[str, Array]) -> Outputs:
        raise ModelError("no weights")

    with pytest.raises(ModelError, match="^no weights$"):
        answered(model(broken)[0], batch(1))


def test_a_failure_that_passes_is_none() -> None:
    calls: list[Any] = []

    def flaky(inputs: Mapping[str, Array]) -> Outputs:
        calls.append(inputs)
        if len(calls) == 1:
            raise ModelError("a hiccup")
        return looked_up(inputs)

    assert answered(model(flaky)[0], batch(4, 5))["y"].tolist() == [9.0]


@pytest.mark.parametrize("error", [MemoryError(), ModelError("CUDA out of memory")])
def test_too_little_memory_is_not_tried_again(error: Exception) -> None:
    served, runtime = model(lambda _: (_ for _ in ()).throw(error))
    with pytest.raises(type(error)):
        answered(served, batch(1))
    assert len(runtime.batches) == 1


def test_a_slow_failure_is_not_tried_again() -> None:
    served, runtime = model(looked_up)
    times = iter([0.0, 1.5])
    with pytest.raises(ModelError, match="^index out of range"):
        answered(served, batch(10), clock=lambda: next(times))
    assert len(runtime.batches) == 1
