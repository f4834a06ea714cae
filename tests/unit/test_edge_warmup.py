"""Warming up: every size, the largest first, within a budget, and memory that does not suffice is told."""

from __future__ import annotations

import math

import pytest
from support.edge_fakes import FakeClock, FakeModel

from edge_server.errors import StartupError
from edge_server.service import EdgeModel
from edge_server.warmup import warm_up
from models.errors import ModelError


def warm(
    model: FakeModel,
    *,
    budget_s: float = math.inf,
    stop_after: int = 100,
    second_s: float = 0.0,
    clock: FakeClock | None = None,
) -> int:
    if clock is None:
        clock = FakeClock()
        model.while_predicting = lambda passing=clock: passing.sleep(second_s)  # type: ignore[misc]
    return warm_up(
        EdgeModel(model.served, max_batch=6, decode_threads=1),
        budget_s=budget_s,
        stopped=lambda: len(model.batches) >= stop_after,
        clock=clock,
    )


def test_every_size_runs_once_and_the_largest_first() -> None:
    model = FakeModel()

    assert warm(model) == 6
    assert model.batches == [6, 1, 2, 3, 4, 5]


def test_the_budget_leaves_out_what_comes_last_but_never_the_largest() -> None:
    spent, ample = FakeModel(), FakeModel()

    assert warm(spent, budget_s=0.5, second_s=1.0) == 1
    assert warm(ample, budget_s=2.5, second_s=1.0) == 3
    assert (spent.batches, ample.batches) == ([6], [6, 1, 2])


def test_a_signal_ends_it() -> None:
    assert warm(FakeModel(), stop_after=2) == 2


class OutOfMemoryError(RuntimeError):
    """What torch raises has this name."""


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("Tried to allocate 2.00 GiB"),
        RuntimeError("Failed to allocate memory: out of memory"),
        MemoryError(),
    ],
)
def test_a_batch_that_does_not_fit_in_memory_is_told_with_the_way_out(error: Exception) -> None:
    model = FakeModel()

    def fail() -> None:
        raise ModelError("the network failed") from error

    model.while_predicting = fail

    with pytest.raises(StartupError, match=r"batch of 6 of model 'digits' does not fit.*lower --max-batch"):
        warm(model, clock=FakeClock())


def test_a_model_that_fails_on_made_up_items_says_so() -> None:
    model = FakeModel()

    def fail() -> None:
        raise ModelError("too short")

    model.while_predicting = fail

    with pytest.raises(ModelError, match="too short"):
        warm(model, clock=FakeClock())
