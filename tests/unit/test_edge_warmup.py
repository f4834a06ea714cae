"""Warming up: every size, the largest first, within a budget, and memory that does not suffice is told."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch", reason="torch is not installed: the edge's models run in it")

import torch
from support.edge_fakes import FakeClock, FakeModel

from edge_server.errors import StartupError
from edge_server.warmup import blank_pictures, warm_up
from models.images import decode_image


def warm(model: FakeModel, *, budget_s: float = math.inf, stop_after: int = 100, second_s: float = 0.0) -> int:
    clock = FakeClock()
    model.while_predicting = lambda: clock.sleep(second_s)
    return warm_up(
        model,  # type: ignore[arg-type]
        max_batch=6,
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


def test_a_batch_that_does_not_fit_in_memory_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeModel()

    def predict(batch: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(model, "predict", predict)

    with pytest.raises(StartupError, match=r"batch of 6 of model 'digits' does not fit.*lower --max-batch"):
        warm(model)


def test_blank_pictures_can_be_decoded() -> None:
    assert {decode_image(one).shape for one in blank_pictures()} == {(224, 224, 3)}
