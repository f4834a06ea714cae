"""The statistics of a model have Triton's JSON, and their durations add up."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.daemon.model_statistics import InferenceCounters

READ_BY_TRITON = """
import sys
from google.protobuf import json_format
from tritonclient.grpc import service_pb2
message = json_format.Parse(sys.stdin.read(), service_pb2.ModelStatisticsResponse())
print(message.model_stats[0].inference_stats.success.ns, message.model_stats[0].batch_stats[0].compute_infer.count)
"""
"""In a process of its own: Triton's messages register names that other modules register too."""

seconds = st.floats(0, 1e4, allow_nan=False)


def test_a_model_without_requests_has_zeros_only() -> None:
    [stats] = InferenceCounters().report(["faces"], wall_ahead_s=1e9)["model_stats"]
    assert (stats["name"], stats["version"], stats["last_inference"]) == ("faces", "1", 0)
    assert stats["batch_stats"] == []
    assert set(stats["inference_stats"]) == {
        "success",
        "fail",
        "queue",
        "compute_input",
        "compute_infer",
        "compute_output",
        "cache_hit",
        "cache_miss",
    }
    assert all(duration == {"count": 0, "ns": 0} for duration in stats["inference_stats"].values())


def test_an_answer_is_parted_into_queue_way_service_and_output() -> None:
    counters = InferenceCounters()
    counters.executed("faces", items=8, elapsed_s=0.05, service_s=0.03)
    counters.answered("faces", items=2, latency_s=0.1, wait_s=0.04, elapsed_s=0.05, service_s=0.03, now_s=7.0)
    counters.failed("faces", latency_s=0.5, now_s=6.0)
    [stats] = counters.report(["faces"], wall_ahead_s=1000.0)["model_stats"]
    assert (stats["inference_count"], stats["execution_count"], stats["last_inference"]) == (2, 1, 1_007_000)
    nanoseconds = {name: duration["ns"] for name, duration in stats["inference_stats"].items() if duration["count"]}
    assert nanoseconds == pytest.approx(
        {
            "success": 100_000_000,
            "fail": 500_000_000,
            "queue": 40_000_000,
            "compute_input": 20_000_000,
            "compute_infer": 30_000_000,
            "compute_output": 10_000_000,
        }
    )
    assert stats["batch_stats"] == [
        {
            "batch_size": 8,
            "compute_input": {"count": 1, "ns": 20_000_000},
            "compute_infer": {"count": 1, "ns": 30_000_000},
            "compute_output": {"count": 0, "ns": 0},
        }
    ]


def test_a_backend_that_reports_no_service_has_worked_all_the_time() -> None:
    counters = InferenceCounters()
    counters.executed("faces", items=1, elapsed_s=0.05, service_s=None)
    [stats] = counters.report(["faces"], wall_ahead_s=0.0)["model_stats"]
    assert stats["batch_stats"][0]["compute_infer"] == {"count": 1, "ns": 50_000_000}
    assert stats["batch_stats"][0]["compute_input"] == {"count": 1, "ns": 0}


@given(st.lists(st.tuples(seconds, seconds, seconds, st.none() | seconds), max_size=20))
def test_the_parts_of_all_answers_add_up_to_the_whole(answers: list[tuple[float, float, float, float | None]]) -> None:
    counters = InferenceCounters()
    for wait_s, elapsed_s, rest_s, service_s in answers:
        latency_s = wait_s + elapsed_s + rest_s
        counters.answered(
            "faces",
            items=1,
            latency_s=latency_s,
            wait_s=wait_s,
            elapsed_s=elapsed_s,
            service_s=service_s,
            now_s=latency_s,
        )
    [stats] = counters.report(["faces"], wall_ahead_s=0.0)["model_stats"]
    durations = stats["inference_stats"]
    parts = sum(durations[name]["ns"] for name in ("queue", "compute_input", "compute_infer", "compute_output"))
    assert parts == pytest.approx(durations["success"]["ns"], abs=5 * len(answers))
    assert {durations[name]["count"] for name in ("success", "queue", "compute_input", "compute_infer")} == {
        len(answers)
    }


def test_tritons_own_message_reads_every_key() -> None:
    counters = InferenceCounters()
    counters.executed("faces", items=3, elapsed_s=0.05, service_s=0.03)
    counters.answered("faces", items=3, latency_s=0.1, wait_s=0.04, elapsed_s=0.05, service_s=0.03, now_s=7.0)
    text = json.dumps(counters.report(["faces"], wall_ahead_s=0.0))
    command = [sys.executable, "-c", READ_BY_TRITON]
    read = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert read.stdout.split() == ["100000000", "1"], read.stderr
