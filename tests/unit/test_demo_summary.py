"""summary.json and the verdict, from outcomes made by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.latency import LatencyModel, Price
from scripts.demo.cold_start import burst, cold_start
from scripts.demo.settings import Settings, settled
from scripts.demo.summary import (
    Money,
    Outcome,
    PlanCause,
    Run,
    all_function_cost,
    failures,
    summarise,
    wrong_answers,
)
from scripts.demo.watch import Batch

GOOD = Outcome(arrival_s=0.0, latency_s=0.5, answered=True, wrong=False, correct=True, backend="edge", batch_id=1)
FAILED = replace(GOOD, answered=False, wrong=True, correct=False, backend="", batch_id=-1)
MONEY = Money(
    cost_cny=0.004,
    cost_booked_cny=0.0039,
    cost_all_function_cny=0.02,
    provisioned_all_function=40,
    provisioned_idle_all_function_cny=0.05,
    provisioned_idle_cny=0.01,
    cu_usd=0.003,
    provisioned_idle_usd=0.02,
)
KEYS_OF_THE_ISSUE = {
    *("requests", "answered", "errors", "wrong_answers", "accuracy", "within_slo", "slo_s", "edge_requests"),
    *("function_requests", "edge_batches", "function_batches", "mean_edge_batch", "mean_function_batch", "cost_cny"),
    *("cost_all_function_cny", "latency_s", "plans", "wall_s", "emulated"),
}


def run_of(*outcomes: Outcome, **changed: object) -> Run:
    run = Run(
        outcomes=outcomes,
        slo_s=1.0,
        steps_s=(40.0, 80.0),
        plans=[PlanCause(40.5, "rate", "30 -> 150")],
        money=MONEY,
        price_sheets={"cny-gbs-2023": {"currency": "CNY", "source": "a document", "date": "2023-01-01"}},
        cold_start=None,
        wall_s=120.0,
        emulated=["The edge is slower than it is."],
        seed=1,
        provisioned=16,
    )
    return replace(run, **changed)  # type: ignore[arg-type]


def test_a_good_run_has_no_failure_and_all_the_keys() -> None:
    summary = summarise(run_of(GOOD, replace(GOOD, batch_id=2)))
    assert failures(summary) == []
    assert summary.keys() >= KEYS_OF_THE_ISSUE
    assert json.loads(json.dumps(summary)) == summary


def test_the_bill_has_the_warm_instances_on_both_sides() -> None:
    summary = summarise(run_of(GOOD))
    assert summary["bill_cny"] == pytest.approx(0.004 + 0.01)
    assert summary["bill_all_function_cny"] == pytest.approx(0.02 + 0.05)
    assert summary["bill_share"] == pytest.approx(0.2)
    assert summary["provisioned_all_function"] == 40


def test_counts_and_batches_are_by_backend() -> None:
    spilled = replace(GOOD, backend="function", batch_id=3)
    summary = summarise(run_of(GOOD, GOOD, replace(GOOD, batch_id=2), spilled, spilled, FAILED))
    assert (summary["requests"], summary["answered"], summary["errors"]) == (6, 5, 1)
    assert (summary["edge_requests"], summary["edge_batches"], summary["mean_edge_batch"]) == (3, 2, 1.5)
    assert (summary["function_requests"], summary["function_batches"], summary["mean_function_batch"]) == (2, 1, 2.0)


def test_latency_counts_answers_only_and_the_slo_counts_failures_too() -> None:
    late = replace(GOOD, latency_s=1.5)
    summary = summarise(run_of(GOOD, late, replace(FAILED, latency_s=0.1), GOOD))
    assert summary["within_slo"] == 0.5
    assert summary["latency_s"] == {"p50": 0.5, "p95": pytest.approx(1.4), "p99": pytest.approx(1.48)}


def test_the_second_after_each_step_is_left_out_of_the_settled_share_and_of_nothing_else() -> None:
    late = replace(GOOD, latency_s=2.0)
    outcomes = [replace(late, arrival_s=t) for t in (40.0, 40.99, 80.5)] + [replace(GOOD, arrival_s=41.0)]
    summary = summarise(run_of(*outcomes))
    assert summary["within_slo"] == 0.25
    assert summary["within_slo_settled"] == 1.0


@given(st.lists(st.floats(0, 100, allow_nan=False), max_size=50))
def test_settled_is_what_brute_force_says(times_s: list[float]) -> None:
    steps_s = (10.0, 50.0)
    expected = [not any(step <= t < step + 1 for step in steps_s) for t in times_s]
    assert settled(np.array(times_s), steps_s).tolist() == expected


@pytest.mark.parametrize(
    ("outcomes", "word"),
    [
        ([], "No request"),
        ([GOOD, FAILED], "Only 1 of 2"),
        ([GOOD, replace(GOOD, wrong=True)], "1 answers differ"),
        ([GOOD] * 96 + [replace(GOOD, correct=False)] * 4, "accuracy is 0.9600"),
    ],
)
def test_each_way_to_fail_is_said(outcomes: list[Outcome], word: str) -> None:
    assert any(word in sentence for sentence in failures(summarise(run_of(*outcomes))))


def test_late_answers_and_an_accuracy_of_exactly_the_limit_do_not_fail() -> None:
    outcomes = [replace(GOOD, latency_s=9.0)] * 97 + [replace(GOOD, correct=False)] * 3
    assert failures(summarise(run_of(*outcomes))) == []


def test_an_answer_is_wrong_from_more_than_a_thousandth_in_any_place_and_when_it_is_no_number() -> None:
    alone = np.tile(np.array([0.9, 0.1], np.float32), (4, 1))
    answers = alone + np.array([[0, 0], [0.0009, 0], [0, 0.0011], [np.nan, 0]], np.float32)
    assert wrong_answers(answers, alone).tolist() == [False, False, True, True]


PRICE = Price(per_s=1.27e-5, per_call=9e-7)
LATENCY = LatencyModel(alpha_s=0.216, beta_s=0.141, max_batch=5)


def test_all_by_function_takes_the_cheapest_batch_that_is_in_time() -> None:
    ample = all_function_cost(100, latency=LATENCY, price=PRICE, slo_s=1.0, item_bytes=12_000, bytes_per_s=1e6)
    assert ample.cost == pytest.approx(100 * (0.921 * 1.27e-5 + 9e-7) / 5)
    assert ample.busy_s == pytest.approx(100 * 0.921 / 5)
    narrow = all_function_cost(100, latency=LATENCY, price=PRICE, slo_s=1.0, item_bytes=12_000, bytes_per_s=0.5e6)
    assert narrow.cost == pytest.approx(100 * (0.78 * 1.27e-5 + 9e-7) / 4)


def test_where_no_batch_is_in_time_single_requests_are_the_measure() -> None:
    cost = all_function_cost(10, latency=LATENCY, price=PRICE, slo_s=0.1, item_bytes=12_000, bytes_per_s=1e6)
    assert cost.cost == pytest.approx(10 * (0.357 * 1.27e-5 + 9e-7))


COLD = Batch(
    batch_id=1,
    backend="function",
    requests=3,
    sent_at_s=1.0,
    finished_at_s=5.0,
    predicted_service_s=0.6,
    service_s=0.64,
    start_kind="cold",
    instance_id="c-1",
    cost_cny=1e-5,
    error="",
    place="function:1gb",
    reason="batch-full",
)


def test_the_cold_start_that_is_shown_is_the_slowest_that_was_answered() -> None:
    quicker = replace(COLD, finished_at_s=3.0)
    failed = replace(COLD, finished_at_s=60.0, error="server: it failed")
    warm = replace(COLD, finished_at_s=9.0, start_kind="warm")
    found = cold_start(
        [GOOD, FAILED], [quicker, COLD, failed, warm], instances_started=2, metered_cny=2e-4, booked_cny=1.9e-4
    )
    assert (found.metered_cny, found.booked_cny) == (2e-4, 1.9e-4)
    assert (found.requests, found.answered, found.cold_batches, found.instances_started) == (2, 1, 2, 2)
    assert (found.slowest_cold_batch_s, found.service_s) == (4.0, 0.64)


def test_the_burst_is_more_than_the_edge_can_answer_in_time(tmp_path: object) -> None:
    latency = LatencyModel(alpha_s=0.04234, beta_s=0.008165, max_batch=64)
    settings = Settings(out=tmp_path)  # type: ignore[arg-type]
    drawn = burst(settings, edge_latency=latency, pictures=7)
    assert len(drawn.times_s) > settings.slo_s * 64 / latency.predict_s(64)
    assert drawn.times_s[-1] < 0.2
    assert (np.diff(drawn.times_s) >= 0).all()
    assert set(drawn.pictures.tolist()) <= set(range(7))
