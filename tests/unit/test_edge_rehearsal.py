"""The measurement of a model on the edge: few batches, fewer where they are slow, and a sentence where it fails."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.card_edge import card_folder

from models.card_reader import read_card
from models.profile import Profile
from scheduler.daemon.backends.batch_send import BatchSend, Reply, SendFailed
from scheduler.daemon.edge_rehearsal import BUDGET_S, ENOUGH_S, MOST_ROUNDS, ROUNDS, NotMeasured, measured_profile
from scheduler.domain.batches import BatchReport, Failure, FailureKind
from scheduler.domain.messages import ProbeMeasured
from scheduler.domain.requests import Place
from scheduler.wire import InferRequest, Tensor

GOOD = (Tensor.from_numpy("sum", np.zeros(1, np.float32)),)


class FakeEdge:
    """An edge in virtual time: what a batch takes is a law; some are refused."""

    def __init__(self, law: Callable[[int], float], *, largest: int = 1000, failure: Failure | None = None) -> None:
        self.law, self.largest, self.failure = law, largest, failure
        self.now_s = 0.0
        self.batches: list[int] = []
        self.outputs = GOOD
        self.named: int | None = None
        """The largest batch that a refusal names."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def probe(self) -> ProbeMeasured:
        return ProbeMeasured(Place.edge(), ok=True)

    async def send(self, batch_send: BatchSend, request: InferRequest) -> Reply:
        items = batch_send.batch.items
        assert request.inputs[0].items == items
        assert batch_send.outputs.ragged == {"rows"}
        if self.failure is not None or items > self.largest:
            raise SendFailed(
                self.failure or Failure(FailureKind.REJECTED, "too many items", largest_batch=self.named),
                BatchReport(0.0),
            )
        self.batches.append(items)
        took_s = self.law(items)
        self.now_s += took_s
        return Reply(self.outputs, BatchReport(took_s), self.now_s)


def measure(edge: FakeEdge, folder: Path, largest: int = 32) -> Profile:
    card = read_card(card_folder(folder))
    measuring = measured_profile(
        edge, card, largest=largest, edge="http://e", identity="sha256:1", clock=lambda: edge.now_s
    )
    return asyncio.run(measuring)


def test_batches_of_one_two_and_the_largest_are_timed_and_fitted(tmp_path: Path) -> None:
    edge = FakeEdge(lambda items: 0.01 + 0.002 * items)
    profile = measure(edge, tmp_path)
    # 25 rounds would take more than a second.
    assert [row.batch for row in profile.rows] == [1, 2, 32]
    assert {row.samples for row in profile.rows} == {math.ceil(ENOUGH_S / (0.012 + 0.014 + 0.074))}
    assert profile.predict_s(16) == pytest.approx(0.042)
    assert (profile.max_batch, profile.backend, profile.model) == (32, "edge", "ragged")
    assert profile.environment == {"identity": "sha256:1", "edge": "http://e"}


def test_the_median_stands_a_batch_that_was_disturbed(tmp_path: Path) -> None:
    edge = FakeEdge(lambda _: 0.5 if len(edge.batches) in (7, 12) else 0.01)
    assert max(row.p50_s for row in measure(edge, tmp_path).rows) == 0.01


def test_fast_batches_are_timed_oftener_and_slow_ones_five_times(tmp_path: Path) -> None:
    fast, slow = (measure(FakeEdge(lambda _, s=s: s), tmp_path) for s in (0.001, 0.1))  # type: ignore[misc]
    assert {row.samples for row in fast.rows} == {MOST_ROUNDS}
    assert {row.samples for row in slow.rows} == {ROUNDS}


@pytest.mark.parametrize("per_item_s", [0.02, 0.3, 2.0])
def test_a_slow_model_is_measured_with_fewer_and_smaller_batches(tmp_path: Path, per_item_s: float) -> None:
    edge = FakeEdge(lambda items: per_item_s * items)
    profile = measure(edge, tmp_path)
    assert [row.batch for row in profile.rows][:2] == [1, 2]
    assert profile.max_batch <= max(2, BUDGET_S / 2 / per_item_s)
    # Beside the first batches of each size, a round may be begun before the time is over.
    assert edge.now_s <= BUDGET_S + 2 * per_item_s * (3 + profile.max_batch) + BUDGET_S / 2
    assert profile.beta_s == pytest.approx(per_item_s)


@pytest.mark.parametrize(("largest", "sizes"), [(20, [1, 2, 16]), (3, [1, 2]), (2, [1, 2])])
def test_a_size_that_is_refused_is_halved(tmp_path: Path, largest: int, sizes: list[int]) -> None:
    assert [row.batch for row in measure(FakeEdge(lambda _: 0.01, largest=largest), tmp_path).rows] == sizes


@pytest.mark.parametrize(("named", "largest"), [(20, 20), (0, 16), (32, 16), (99, 16)])
def test_a_refusal_that_names_the_largest_batch_is_believed_if_it_is_smaller(
    tmp_path: Path, named: int, largest: int
) -> None:
    edge = FakeEdge(lambda _: 0.01, largest=20)
    edge.named = named
    assert measure(edge, tmp_path).max_batch == largest


def test_a_model_of_one_item_has_one_row(tmp_path: Path) -> None:
    profile = measure(FakeEdge(lambda _: 0.01), tmp_path, largest=1)
    assert ([row.batch for row in profile.rows], profile.alpha_s, profile.beta_s) == ([1], 0.01, 0.0)


@pytest.mark.parametrize(
    ("kind", "absent"),
    [(FailureKind.UNREACHABLE, True), (FailureKind.SERVER, False), (FailureKind.FORBIDDEN, False)],
)
def test_an_edge_that_does_not_answer_is_not_measured(tmp_path: Path, kind: FailureKind, absent: bool) -> None:
    with pytest.raises(NotMeasured, match="no such thing") as caught:
        measure(FakeEdge(lambda _: 0.01, failure=Failure(kind, "no such thing")), tmp_path)
    assert caught.value.absent is absent


def test_items_that_the_edge_refuses_measure_nothing(tmp_path: Path) -> None:
    edge = FakeEdge(lambda _: 0.01)
    edge.outputs = (*GOOD, Tensor.from_elements("item_error", [b"no picture"]))
    with pytest.raises(NotMeasured, match="the edge refuses a made-up item: no picture"):
        measure(edge, tmp_path)
