"""What /metrics says: names, labels and figures; how much a request and a batch cost."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.explained import FUNCTION, a_batch

from scheduler.daemon.answer_metrics import bounds_around
from scheduler.daemon.batch_metrics import BatchMetrics
from scheduler.daemon.calls import Answer, InferenceCall
from scheduler.daemon.clocks import ClockWatch
from scheduler.daemon.counts import LINES
from scheduler.daemon.host_metrics import HostMetrics
from scheduler.daemon.records import BatchRecord
from scheduler.daemon.telemetry import Telemetry
from scheduler.domain.batches import Batch, BatchReport, WhyLeft
from scheduler.domain.bills import Bill
from scheduler.domain.decisions import Reason
from scheduler.domain.errors import RefusalKind
from scheduler.domain.plans import ServiceClass
from scheduler.domain.requests import Place
from scripts.support.steady_queue import counted_calls

CLASSES = {"digits": [ServiceClass("fast", slo_s=0.3, percentile=0.99), ServiceClass("slow", slo_s=4.0)]}
CALLS_A_REQUEST = 35
"""Functions in Python that are called to count an arrival and its answer of a tenant; 34 on Python 3.11."""
CALLS_A_BATCH = 46
"""To count a batch of eight that leaves and ends; 44 on Python 3.11."""


def call(class_name: str = "fast", tenant: str = "") -> InferenceCall:
    return InferenceCall("digits", (), 2, 5, 10.0, class_name=class_name, tenant=tenant)


def answer(place: Place) -> Answer:
    return Answer(
        request_id=1,
        outputs=(),
        backend=place.backend,
        tier=place.tier,
        batch_id=1,
        batch_items=4,
        wait_s=0.1,
        service_s=None,
        elapsed_s=0.2,
        cost=0.0,
        cold_start=None,
        attempts=1,
        read_at_s=0.0,
        in_s=0.0,
        out_s=0.0,
        place=str(place),
    )


def told(
    status: Mapping[str, object] | None = None, batches: BatchMetrics | None = None, host: HostMetrics | None = None
) -> Telemetry:
    counted = Telemetry(lambda: status or {}, lambda: ("edge", "function"), batches=batches, host=host)
    counted.configure(CLASSES, ["lab"])
    return counted


def value(counted: Telemetry, name: str, **labels: str) -> float | None:
    return counted.registry.get_sample_value(f"edgeburst_{name}", labels)


def sent(number: int, **changes: Any) -> Batch:
    """A function batch of two, which leaves at 10 s and is expected at 10.5 s."""
    made = a_batch(number, (1, 2), place=FUNCTION, reasons=(Reason.LATE, Reason.MONEY))
    fields: dict[str, Any] = {"sent_at_s": 10.0, "predicted_finish_s": 10.5, "predicted_service_s": 0.25}
    return replace(made, **{"items": 5, "why_left": WhyLeft.TIMER, **fields, **changes})


def ended(batch: Batch, report: BatchReport, error: str = "") -> BatchRecord:
    return BatchRecord(batch, 11.0, 0.1, report, None, Bill(), error)


class TestAnswers:
    def test_each_slo_is_a_bound_of_every_histogram_so_that_the_share_within_it_can_be_read(self) -> None:
        counted = told()
        for latency_s in (0.29, 0.3, 0.31):
            counted.answered(call(), answer(FUNCTION), latency_s=latency_s, slo_s=0.3, own_latency_s=0.001)
        labels = {"model": "digits", "class": "fast", "place": "function:1gb"}
        assert value(counted, "request_seconds_bucket", le="0.3", **labels) == 2
        assert value(counted, "request_seconds_bucket", le="4.0", **labels) == 3
        assert value(counted, "wait_seconds_sum", **labels) == pytest.approx(0.3)
        assert value(counted, "items_total", **labels) == 6
        fast = {"model": "digits", "class": "fast"}
        assert (value(counted, "within_slo_total", **fast), value(counted, "class_slo_seconds", **fast)) == (2, None)

    def test_the_bounds_ascend_and_are_few_and_lie_close_around_few_slos(self) -> None:
        for slos_s in ((), (1.0,), (0.02, 0.3, 4.0), [0.01 * number for number in range(1, 33)]):
            bounds = bounds_around(slos_s)
            assert sorted(set(bounds)) == list(bounds)
            assert {round(slo_s, 9) for slo_s in slos_s} <= set(bounds)
            assert len(bounds) <= 44
        assert len([bound for bound in bounds_around((0.3, 4.0)) if 0.27 <= bound <= 0.33]) == 3

    def test_a_reload_with_other_slos_begins_the_histograms_anew_and_one_with_the_same_does_not(self) -> None:
        counted = told()
        counted.answered(call(), answer(FUNCTION), latency_s=0.1, slo_s=0.3, own_latency_s=0.001)
        labels = {"model": "digits", "class": "fast", "place": "function:1gb"}
        counted.configure(CLASSES, ["lab"])
        assert value(counted, "request_seconds_count", **labels) == 1
        counted.configure({"digits": [ServiceClass("fast", slo_s=0.7)]}, ["lab"])
        assert value(counted, "request_seconds_count", **labels) is None
        assert value(counted, "within_slo_total", model="digits", **{"class": "fast"}) == 1

    def test_counters_of_configured_classes_are_there_before_they_count(self) -> None:
        counted = told()
        slow = {"model": "digits", "class": "slow"}
        assert [value(counted, "requests_total", kind=kind, **slow) for kind in ("answered", "fault")] == [0, 0]
        for name in ("arrivals_total", "within_slo_total", "slo_requests_total"):
            assert value(counted, name, **slow) == 0

    def test_requests_that_clients_sent_wrong_or_gave_up_count_for_no_objective(self) -> None:
        counted = told()
        counted.answered(call(), answer(FUNCTION), latency_s=0.5, slo_s=0.3, own_latency_s=0.001)
        for kind in ("cancelled", "fault", *RefusalKind):
            counted.refused(call(), str(getattr(kind, "value", kind)), 11.0)
        labels = {"model": "digits", "class": "fast"}
        ours = len(RefusalKind) - 2  # all but a bad request and one that is too large
        assert value(counted, "slo_requests_total", **labels) == 1 + ours + 1
        assert value(counted, "slo_requests_total", model="digits", **{"class": "slow"}) == 0

    def test_tenants_that_are_not_configured_count_as_one_with_latencies(self) -> None:
        counted = told()
        for tenant in ("lab", "x", "y"):
            counted.answered(call(tenant=tenant), answer(FUNCTION), latency_s=0.5, slo_s=0.3, own_latency_s=0.001)
        labels = {"model": "digits", "class": "fast"}
        assert value(counted, "tenant_request_seconds_bucket", tenant="other", le="0.3", **labels) == 0
        assert value(counted, "tenant_request_seconds_count", tenant="other", **labels) == 2
        assert value(counted, "tenant_requests_total", tenant="lab", **labels) == 1

    def test_counting_a_request_calls_few_functions(self) -> None:
        counted, one, came = told(), call(tenant="lab"), answer(FUNCTION)

        def count() -> None:
            counted.arrived(one)
            counted.answered(one, came, latency_s=0.1, slo_s=0.3, own_latency_s=0.001)

        count()
        assert counted_calls(count)[1] <= CALLS_A_REQUEST


class TestBatches:
    def test_a_batch_is_counted_by_model_and_place_and_its_requests_by_class_and_reason(self) -> None:
        batches = BatchMetrics()
        counted = told(batches=batches)
        batches.sent(sent(1), ["fast", "slow"])
        batches.sent(sent(2, hedge=True, why_left=WhyLeft.HEDGE), ["fast", "fast"])
        labels = {"model": "digits", "place": "function:1gb"}
        assert value(counted, "placements_total", reason="late", **labels, **{"class": "fast"}) == 2
        assert value(counted, "placements_total", reason="money", **labels, **{"class": "slow"}) == 1
        assert value(counted, "batches_left_total", why="timer", **labels) == 1
        assert value(counted, "hedged_requests_total", **labels) == 2
        assert value(counted, "batch_items_sum", **labels) == 10
        assert value(counted, "function_calls_total", model="digits", tier="1gb") == 2
        assert batches.placements() == [
            {"place": "function:1gb", "reason": "late", "requests": 2},
            {"place": "function:1gb", "reason": "money", "requests": 2},
        ]
        assert batches.left() == [
            {"place": "function:1gb", "why": "hedge", "batches": 1},
            {"place": "function:1gb", "why": "timer", "batches": 1},
        ]

    def test_predictions_are_compared_with_what_came(self) -> None:
        batches = BatchMetrics()
        counted = told(batches=batches)
        batches.ended(ended(sent(1), BatchReport(1.0, service_s=0.5)))
        labels = {"model": "digits", "place": "function:1gb"}
        assert value(counted, "finish_to_prediction_ratio_sum", **labels) == pytest.approx(2.0)
        assert value(counted, "finish_prediction_error_seconds_sum", **labels) == pytest.approx(0.5)
        assert value(counted, "service_seconds_sum", **labels) == 0.5
        assert value(counted, "predicted_service_seconds_total", **labels) == 0.25

    def test_a_failure_counts_once_by_kind_and_says_nothing_of_predictions(self) -> None:
        batches = BatchMetrics()
        counted = told(batches=batches)
        batches.ended(ended(sent(1), BatchReport(1.0), "timeout: no answer"))
        batches.ended(ended(sent(1), BatchReport(3.0, 0.2, cold_start=True, init_s=1.5), "timeout: no"), late=True)
        batches.ended(ended(sent(2), BatchReport(0.1), "throttled: too many"))
        labels = {"model": "digits", "place": "function:1gb"}
        assert value(counted, "batch_failures_total", kind="timeout", **labels) == 1
        assert value(counted, "batch_failures_total", kind="throttled", **labels) == 1
        assert value(counted, "finish_to_prediction_ratio_count", **labels) == 0
        assert value(counted, "cold_starts_total", model="digits", tier="1gb") == 1
        assert value(counted, "cold_start_init_seconds_sum", model="digits", tier="1gb") == 1.5

    def test_a_warming_call_is_no_batch_of_requests(self) -> None:
        batches = BatchMetrics()
        counted = told(batches=batches)
        warming = sent(1, request_ids=(), reasons=(), items=0, why_left=WhyLeft.WARMING)
        batches.sent(warming, [])
        batches.ended(ended(warming, BatchReport(1.0, 0.5)))
        of_tier = {"model": "digits", "tier": "1gb"}
        assert [value(counted, f"{name}_calls_total", **of_tier) for name in ("warming", "function")] == [1, 1]
        labels = {"model": "digits", "place": "function:1gb"}
        assert value(counted, "batch_items_count", **labels) == value(counted, "service_seconds_count", **labels) == 0

    def test_reports_that_are_not_believed_are_counted_by_tier_and_field(self) -> None:
        batches = BatchMetrics()
        counted = told(batches=batches)
        batches.ended(ended(sent(1), BatchReport(1.0, disbelieved=("duration_s",))))
        assert value(counted, "disbelieved_reports_total", tier="1gb", field="duration_s") == 1

    def test_counting_a_batch_calls_few_functions(self) -> None:
        batches = BatchMetrics()
        batch = replace(sent(1), request_ids=tuple(range(8)), reasons=(Reason.LATE,) * 8)
        record = ended(batch, BatchReport(1.0, service_s=0.5))

        def count() -> None:
            batches.sent(batch, ["fast"] * 8)
            batches.ended(record)

        count()
        assert counted_calls(count)[1] <= CALLS_A_BATCH


ENGINE: dict[str, Any] = {
    "caps": [{"window": "hour", "cap": 2.0, "spent": 1.5}],
    "closed_by": "hour",
    "opens_in_s": 90.0,
    "plan": {"made_at_s": 40.0, "cause": "rate", "currency": "CNY", "groups": []},
    "paces": [
        {"model": "digits", "place": "edge:main", "times_profile": 1.5, "batches": 9},
        {"model": "digits", "place": "function:1gb", "times_profile": 1.0, "batches": 0},
    ],
    "rates_rps": {"digits": 12.5},
    "edges": [{"name": "main", "up": True, "batches_in_flight": 1, "parallel": 1, "ahead_s": 0.0}],
    "shared_edges": [
        {"edge": "main", "model": "digits", "since_s": 9.0, "observed_s": 0.03, "learned_s": 0.02, "trusted": True},
        {"edge": "main", "model": "cats", "since_s": 9.5, "observed_s": 0.01, "learned_s": 0.0, "trusted": False},
    ],
    "changes": {"found": {"rate": 2}},
}
STATUS: dict[str, Any] = {
    "now_s": 100.0,
    "engine": ENGINE,
    "plans_adopted": {"start": 1, "rate": 3},
    "circuits_opened": [{"place": "edge:main", "model": "", "times": 2}],
    "late_answers": 7,
}


class TestStatus:
    def test_caps_show_what_is_used_and_left_and_what_forbids_spending(self) -> None:
        counted = told(STATUS)
        labels = {"window": "hour", "currency": "CNY"}
        shown = [value(counted, name, **labels) for name in ("spend_cap", "spend_cap_used", "spend_cap_left")]
        assert shown == [2.0, 1.5, 0.5]
        assert [value(counted, "spend_closed", by=by) for by in ("hour", "day", "state", "lender")] == [1, 0, 0, 0]
        assert value(counted, "spend_opens_in_seconds") == 90.0

    def test_the_plan_shows_its_age_and_why_it_was_made(self) -> None:
        counted = told(STATUS)
        assert value(counted, "plan_age_seconds") == 60.0
        assert value(counted, "plan_info", cause="rate") == 1
        assert value(counted, "plans_total", cause="rate") == 3
        assert value(counted, "changes_total", cause="rate") == 2
        assert value(counted, "changes_total", cause="edge-service") == 0

    def test_a_place_of_which_nothing_was_learned_has_no_pace(self) -> None:
        counted = told(STATUS)
        assert value(counted, "service_to_profile_ratio", model="digits", place="edge:main") == 1.5
        assert value(counted, "service_to_profile_ratio", model="digits", place="function:1gb") is None
        assert value(counted, "arrival_items_per_second", model="digits") == 12.5
        assert value(counted, "circuit_openings_total", place="edge:main", model="") == 2
        assert value(counted, "late_answers_total") == 7

    def test_a_recording_shows_what_it_lost_and_whether_it_can_be_written(self) -> None:
        state = {"folder": None}
        recording = {"folder": "/var/lib/edgeburst/arrivals", "written": 90, "lost": 4, "failure": "the disk is full"}
        shown = told({"engine": {}, "state": state, "recording": recording})
        names = ("recording_up", "recording_written_total", "recording_lost_total")
        assert [value(shown, name) for name in names] == [0.0, 90.0, 4.0]
        assert (
            value(told({"engine": {}, "state": state, "recording": {"folder": None}}), "recording_lost_total") is None
        )

    def test_a_shared_edge_shows_the_wait_behind_other_daemons_and_whether_forecasts_count_with_it(self) -> None:
        counted = told(STATUS)
        names = ("edge_shared", "edge_others_wait_seconds", "edge_others_wait_observed_seconds")
        shown = {
            model: [value(counted, name, edge="main", model=model) for name in names] for model in ("digits", "cats")
        }
        assert shown == {"digits": [1.0, 0.02, 0.03], "cats": [0.0, 0.0, 0.01]}
        assert value(told({"engine": {}}), "edge_shared", edge="main", model="digits") is None

    def test_a_cost_of_a_tenant_never_falls(self) -> None:
        row = {"name": "lab", "share": 0.5, "open_requests": 1, "edge_s": 2.0, "spent": 1.0, "spent_hour": 0.5}
        costs = [["digits", "fast", 3.0]]
        counted = told({"engine": {"tenants": [{**row, "spent_day": 0.75, "costs": costs}]}})
        labels = {"tenant": "lab", "model": "digits", "class": "fast"}
        assert value(counted, "tenant_cost_total", **labels) == 3.0
        costs[0][2] = 2.5
        assert value(counted, "tenant_cost_total", **labels) == 3.0
        assert value(counted, "tenant_edge_seconds_total", tenant="lab") == 2.0
        assert value(counted, "tenant_spend_used", tenant="lab", window="day") == 0.75


class TestHost:
    def test_the_release_the_objectives_and_steps_of_the_clock_are_told(self) -> None:
        wall, elapsed = [1000.0], [0.0]
        watch = ClockWatch(wall=lambda: wall[0], elapsed=lambda: elapsed[0], awake=lambda: elapsed[0])
        counted = told(host=HostMetrics("1.2.3", ready=lambda: True, clocks=watch, wall=lambda: 1234.5))
        wall[0], elapsed[0] = 970.0, 10.0
        watch.look()
        watch.look()
        assert value(counted, "clock_steps_total") == 1
        assert value(counted, "clock_stepped_seconds_total") == 40.0
        assert value(counted, "time_seconds") == 1234.5
        assert value(counted, "ready") == 1
        labels = {"model": "digits", "class": "fast"}
        assert value(counted, "class_slo_seconds", **labels) == 0.3
        assert value(counted, "class_objective_ratio", **labels) == 0.99
        assert re.search(r'edgeburst_build_info{python="[\d.]+",version="1.2.3"} 1.0', counted.exposition().decode())


def test_the_metrics_of_many_classes_are_made_in_small_pieces_that_are_one_text() -> None:
    classes = [ServiceClass(f"c{number}", slo_s=0.01 * (number + 1)) for number in range(32)]
    counted = Telemetry(lambda: STATUS, lambda: ("edge", "function"))
    counted.configure({"digits": classes}, ["lab"])
    for each in classes:
        for place in (FUNCTION, Place.edge(), Place.edge("far")):
            one = call(each.name, "lab")
            counted.answered(one, answer(place), latency_s=0.1, slo_s=each.slo_s, own_latency_s=0.001)
    pieces = list(counted.exposition_pieces())
    assert max(piece.count(b"\n") for piece in pieces) <= LINES + 2
    text = b"".join(pieces).decode()
    headings = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert len(headings) == len(set(headings))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    bounds = bounds_around(each.slo_s for each in classes)
    assert len(families["edgeburst_request_seconds"].samples) == 3 * 32 * (len(bounds) + 3)


def test_no_series_says_when_it_was_created_and_names_have_base_units() -> None:
    batches = BatchMetrics()
    counted = told(STATUS, batches, HostMetrics("1"))
    batches.sent(sent(1), ["fast", "slow"])
    batches.ended(ended(sent(1), BatchReport(1.0, service_s=0.5)))
    counted.answered(call(tenant="lab"), answer(FUNCTION), latency_s=0.1, slo_s=0.3, own_latency_s=0.001)
    families = list(text_string_to_metric_families(counted.exposition().decode()))
    assert [family.name for family in families if family.name.endswith("_created")] == []
    assert [f.name for f in families if re.search(r"(_ms|_milliseconds|_minutes|_percent|_kb|_mb)(_|$)", f.name)] == []
    assert [f.name for f in families if f.name.startswith("edgeburst_") and not f.documentation.endswith(".")] == []
    histograms = {family.name for family in families if family.type == "histogram"}
    assert {name for name in histograms if not re.search(r"_(seconds|items|ratio)$", name)} == set()
