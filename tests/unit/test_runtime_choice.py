"""The fastest runtime that agrees is chosen, in bounded time; every other one is reported with its reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from models.agreement import disagreement
from models.candidates import Candidate
from models.card import Card, TensorSpec
from models.errors import ModelError
from models.loading import load
from models.runtime import Array, Runtime, RuntimeReport
from models.runtime_choice import fastest

CARD = Card(
    "m", Path(), "onnx", (TensorSpec("x", "FP32", (3,)),), (TensorSpec("y", "FP32", (3,)),), file="m.onnx", max_batch=8
)


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


class Timed:
    """A runtime that answers `change(x)` after seconds of its own for each item."""

    def __init__(self, name: str, clock: Clock, item_s: float, change: Callable[[Array], Array]) -> None:
        self.report = RuntimeReport(name, "cpu")
        self.largest = 0
        self._clock, self._item_s, self._change = clock, item_s, change

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        self._clock.now_s += self._item_s * len(inputs["x"])
        self.largest = max(self.largest, len(inputs["x"]))
        return {"y": self._change(inputs["x"])}


def same(x: Array) -> Array:
    return x


def candidate(name: str, runtime: Runtime) -> Candidate:
    return Candidate(name, "fp32", lambda: runtime)


def choose(clock: Clock, *runtimes: Timed, budget_s: float = 100.0, labels: bool = True, max_batch: int = 8) -> Runtime:
    candidates = [candidate(runtime.report.name, runtime) for runtime in runtimes]
    return fastest(CARD, candidates, tried={}, max_batch=max_batch, budget_s=budget_s, labels=labels, clock=clock)


def test_the_fastest_that_agrees_is_chosen_and_all_seconds_are_reported() -> None:
    clock = Clock()
    chosen = choose(clock, Timed("a", clock, 0.3, same), Timed("b", clock, 0.1, same), Timed("c", clock, 0.2, same))
    assert chosen.report.name == "b"
    assert chosen.report.tried == pytest.approx({"a": 2.4, "b": 0.8, "c": 1.6})


def test_a_faster_one_with_other_outputs_is_refused_with_the_difference() -> None:
    clock = Clock()
    chosen = choose(clock, Timed("a", clock, 0.3, same), Timed("b", clock, 0.1, lambda x: x + 0.1))
    assert chosen.report.name == "a"
    assert chosen.report.tried["b"] == "output 'y' differs by 0.1, over 0.01"


def test_a_faster_one_with_other_labels_is_refused_only_of_trained_weights() -> None:
    def near(x: Array) -> Array:
        return np.array([[0.5, 0.501, 0.1]] * len(x), np.float32)

    def nearly(x: Array) -> Array:
        return np.array([[0.501, 0.5, 0.1]] * len(x), np.float32)

    for labels, expected in ((True, "a"), (False, "b")):
        clock = Clock()
        chosen = choose(clock, Timed("a", clock, 0.3, near), Timed("b", clock, 0.1, nearly), labels=labels)
        assert chosen.report.name == expected


def test_one_that_cannot_be_loaded_or_fails_is_reported() -> None:
    clock = Clock()

    def failing(x: Array) -> Array:
        raise ModelError("it broke")

    def refused() -> Runtime:
        raise ModelError("no such thing")

    candidates = [
        candidate("a", Timed("a", clock, 0.1, same)),
        candidate("b", Timed("b", clock, 0.01, failing)),
        Candidate("c", "fp32", refused),
    ]
    chosen = fastest(CARD, candidates, tried={"d": "unfit"}, max_batch=8, budget_s=90.0, labels=True, clock=clock)
    assert chosen.report.tried == {"a": pytest.approx(0.8), "b": "it broke", "c": "no such thing", "d": "unfit"}


def test_a_slow_network_is_measured_with_smaller_batches_within_the_time() -> None:
    clock = Clock()
    slow = Timed("a", clock, 0.5, same)
    choose(clock, slow, Timed("b", clock, 0.5, same), budget_s=8.0, max_batch=64)
    assert slow.largest == 2
    # The rounds that have begun are finished.
    assert clock.now_s < 8.0 + 2 * (0.5 + 1.0)


def test_what_comes_after_the_time_is_not_tried() -> None:
    clock = Clock()
    chosen = choose(clock, Timed("a", clock, 3.0, same), Timed("b", clock, 0.1, same), budget_s=5.0)
    assert chosen.report.name == "a"
    assert chosen.report.tried["b"] == "there was no time to measure it"


def test_a_network_that_takes_no_made_up_inputs_is_served_unmeasured() -> None:
    clock = Clock()

    def failing(x: Array) -> Array:
        raise ModelError("only real texts")

    chosen = choose(clock, Timed("a", clock, 0.1, failing), Timed("b", clock, 0.1, same))
    assert chosen.report.name == "a"
    assert chosen.report.tried == {"a": "only real texts"}


def test_differences_are_relative_to_the_largest_value() -> None:
    wanted = {"y": np.array([[1000.0, 0.0, 0.0]], np.float32)}
    found = {"y": np.array([[1000.0, 5.0, 0.0]], np.float32)}
    assert disagreement(CARD, wanted, found) is None
    assert disagreement(replace(CARD, tolerance=1e-3), wanted, found) is not None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_no_number_agrees_with_the_same_only(value: float) -> None:
    wanted, found = {"y": np.array([[value, 0, 0]])}, {"y": np.array([[1.0, 0, 0]])}
    assert disagreement(CARD, wanted, wanted) is None
    assert disagreement(CARD, wanted, found) is not None
    assert disagreement(CARD, found, wanted) is not None


def test_ragged_outputs_and_whole_numbers_must_be_the_same() -> None:
    card = replace(CARD, outputs=(TensorSpec("y", "INT64", ragged=True),))
    wanted = {"y": [np.array([1, 2]), np.array([3])]}
    assert disagreement(card, wanted, {"y": np.array([1, 2, 3])}) is None
    assert disagreement(card, wanted, {"y": np.array([1, 2, 4])}) == "output 'y' has other values"
    assert disagreement(card, wanted, {"y": np.array([1, 2])}) == "output 'y' has shape [2], not [3]"


def test_an_unknown_runtime_is_refused_before_any_file_is_read() -> None:
    with pytest.raises(ModelError, match="there is no runtime 'tensorflow': choose auto, torch"):
        load(CARD, runtime="tensorflow")
