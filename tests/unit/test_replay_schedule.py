"""What a replay sends and when, before anything is sent; and what it makes of what came back."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from scheduler.measuring.errors import MeasuringError
from scheduler.measuring.exchange import Reply
from scheduler.measuring.payloads import png, read_files, read_pictures, synthetic_pictures
from scheduler.measuring.replay import ReplayedRequest, ReplayResult
from scheduler.measuring.replay_report import BATCH_COLUMNS, REQUEST_COLUMNS, request_row, summarise
from scheduler.measuring.schedule import Schedule, make_workload
from scheduler.measuring.tally import Tally
from scheduler.workloads import WorkloadError


@pytest.fixture
def gaps(tmp_path: Path) -> Path:
    path = tmp_path / "four.gaps"
    path.write_text("0.5\n1.0\n0.5\n2.0\n")
    return path


def a_request(
    index: int, *, arrival_s: float, answered_s: float, sent_s: float | None = None, reply: Reply | None = None
) -> ReplayedRequest:
    return ReplayedRequest(
        index=index,
        payload=0,
        arrival_s=arrival_s,
        sent_s=arrival_s if sent_s is None else sent_s,
        answered_s=answered_s,
        within_slo=answered_s - arrival_s <= 1.0 and (reply is None or not reply.error),
        reply=reply or Reply(200, parameters={"backend": "edge", "cost": 0.0, "wait_s": 0.1}),
    )


def test_a_trace_is_replayed_at_its_own_times(gaps: Path) -> None:
    assert make_workload(Schedule(arrivals=gaps)).times_s.tolist() == [0.5, 1.5, 2.0, 4.0]


def test_a_rate_multiple_brings_a_trace_sooner(gaps: Path) -> None:
    assert make_workload(Schedule(arrivals=gaps, rate_multiple=2.0)).times_s.tolist() == [0.25, 0.75, 1.0, 2.0]


def test_a_duration_cuts_each_lap_and_the_gap_is_silence_between_laps(gaps: Path) -> None:
    workload = make_workload(Schedule(arrivals=gaps, duration_s=1.75, laps=2, gap_s=10.0))
    assert workload.times_s.tolist() == [0.5, 1.5, 12.25, 13.25]


def test_idle_units_of_a_rate_file_take_their_time(tmp_path: Path) -> None:
    path = tmp_path / "rates.csv"
    path.write_text("3,0,0,2")
    times_s = make_workload(Schedule(rates=path, unit_s=10.0)).times_s
    assert np.histogram(times_s, bins=[0, 10, 20, 30, 40])[0].tolist() == [3, 0, 0, 2]


@pytest.mark.parametrize("name", ["poisson", "mmpp", "bursty", "periodic", "sporadic"])
def test_a_pattern_is_the_same_for_the_same_seed_and_another_for_another(name: str) -> None:
    first, again, other = (
        make_workload(Schedule(pattern=name, rate_rps=30.0, duration_s=20.0, seed=seed)).times_s for seed in (7, 7, 8)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.max() < 20.0


def test_a_rate_multiple_makes_a_pattern_denser() -> None:
    one, three = (
        len(make_workload(Schedule(pattern="poisson", rate_rps=50.0, duration_s=100.0, rate_multiple=k)).times_s)
        for k in (1.0, 3.0)
    )
    assert 2.7 < three / one < 3.3


def refused(schedule: Schedule) -> str:
    with pytest.raises(WorkloadError) as caught:
        make_workload(schedule)
    return str(caught.value)


def test_an_empty_trace_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "empty.gaps"
    path.write_text("\n")
    assert str(path) in refused(Schedule(arrivals=path))


def test_a_lap_that_ends_before_the_first_request_is_refused(gaps: Path) -> None:
    assert "has no request in 0.25 s" in refused(Schedule(arrivals=gaps, duration_s=0.25))


@pytest.mark.parametrize("given", [{"rate_rps": 5.0}, {"duration_s": 5.0}])
def test_a_pattern_needs_a_rate_and_a_duration(given: dict[str, float]) -> None:
    assert "needs --rps and --duration-s" in refused(Schedule(pattern="poisson", **given))  # type: ignore[arg-type]


def test_nothing_to_replay_is_refused() -> None:
    assert "give --arrivals, --rates or --pattern" in refused(Schedule())


def test_a_picture_drawn_here_is_read_by_opencv_as_it_was_drawn() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (31, 45), dtype=np.uint8)
    read = cv2.imdecode(np.frombuffer(png(pixels), np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(read, pixels)


def test_drawn_pictures_differ_and_come_again_for_the_same_seed() -> None:
    pictures = synthetic_pictures(5)
    assert len({picture.data for picture in pictures}) == len(pictures)
    assert synthetic_pictures(5) == pictures
    assert synthetic_pictures(6) != pictures
    assert all(cv2.imdecode(np.frombuffer(picture.data, np.uint8), 1).shape == (224, 224, 3) for picture in pictures)


def test_a_folder_gives_its_pictures_by_name_and_nothing_else(tmp_path: Path) -> None:
    one, other = (picture.data for picture in synthetic_pictures(5)[:2])
    files = {"b.png": one, "a.JPG": other, "notes.txt": b"none", "._b.png": b"\0\5\x16\7", ".hidden.png": b"none"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert [(p.name, p.data) for p in read_pictures(tmp_path)] == [("a.JPG", other), ("b.png", one)]


@pytest.mark.parametrize("suffix", ["gif", "webp", "avif", "jp2", "j2k", "bmp", "tif"])
def test_a_folder_s_pictures_are_of_every_format_that_can_be_read(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a.{suffix}").write_bytes(synthetic_pictures(5)[0].data)
    assert [picture.name for picture in read_pictures(tmp_path)] == [f"a.{suffix}"]


def test_pictures_of_a_folder_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for name, content in {
        "a.png": synthetic_pictures(5)[0].data,
        "b.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "c.jpg": b"%PDF-1.7",
        "d.png": b"no picture",
        "e.jxl": b"\xff\x0a",
    }.items():
        (tmp_path / name).write_bytes(content)
    words = r"4 of 5 pictures .*: b.svg \(this is an SVG .*; c.jpg \(this is a PDF .*; d.png .* and 1 more; convert or"
    with pytest.raises(MeasuringError, match=words):
        read_pictures(tmp_path)


def test_pictures_that_cannot_be_sent_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    for wrong, words in (
        (lambda: read_pictures(tmp_path / "gone"), "is not a folder"),
        (lambda: read_pictures(tmp_path), "empty.png is empty"),
        (lambda: read_files([tmp_path / "gone.png"]), "gone.png: No such file"),
    ):
        with pytest.raises(MeasuringError, match=words):
            wrong()


def test_latency_counts_from_the_intended_send_time_whatever_the_client_did() -> None:
    request = a_request(0, arrival_s=2.0, sent_s=2.9, answered_s=3.0)
    assert request.latency_s == 1.0


def test_a_client_that_keeps_up_says_nothing_and_one_that_falls_behind_says_so() -> None:
    on_time = ReplayResult((a_request(0, arrival_s=1.0, sent_s=1.001, answered_s=1.5),), 1.0, 0.0, 1.5)
    late = ReplayResult((a_request(0, arrival_s=1.0, sent_s=1.3, answered_s=1.5),), 1.0, 0.0, 1.5)
    assert on_time.lag_warning == ""
    assert "fell behind" in late.lag_warning
    assert "0.300 s" in late.lag_warning


def test_the_summary_adds_up_and_counts_errors_by_their_sentence() -> None:
    function = Reply(200, parameters={"backend": "function", "cost": 0.25, "wait_s": 0.3, "cold_start": True})
    requests = (
        a_request(0, arrival_s=0.0, answered_s=0.5),
        a_request(1, arrival_s=1.0, answered_s=3.0, reply=function),
        a_request(2, arrival_s=2.0, answered_s=2.1, reply=Reply(503, "no place is in time")),
        a_request(3, arrival_s=4.0, answered_s=4.1, reply=Reply(503, "no place is in time")),
    )
    batches = [
        {"backend": "edge", "items": 3, "cost": 0.0, "error": ""},
        {"backend": "edge", "items": 1, "cost": 0.0, "error": ""},
        {"backend": "function", "items": 2, "cost": 0.5, "error": "timeout: gone"},
    ]
    summary = summarise(ReplayResult(requests, 1.0, 0.0, 4.1), batches)
    assert (summary["requests"], summary["answered"], summary["errors"]) == (4, 2, 2)
    assert summary["error_kinds"] == {"no place is in time": 2}
    assert summary["within_slo"] == 0.25
    assert (summary["edge_requests"], summary["function_requests"], summary["cold_start_requests"]) == (1, 1, 1)
    assert summary["latency_s"]["p50"] == 1.25
    assert summary["offered_rps"] == 1.0
    assert (summary["cost"], summary["batch_cost"], summary["failed_batches"]) == (0.25, 0.5, 1)
    assert (summary["edge_batches"], summary["mean_edge_batch"], summary["function_batches"]) == (2, 2.0, 1)


def test_what_a_server_does_not_tell_is_left_out_of_the_summary_not_made_up() -> None:
    summary = summarise(
        ReplayResult((a_request(0, arrival_s=0.0, answered_s=0.5, reply=Reply(200)),), 1.0, 0.0, 0.5), None
    )
    assert summary["wait_s"]["p50"] is None
    assert summary["cost"] is None
    assert "edge_batches" not in summary


def test_a_row_has_a_value_or_none_for_every_column() -> None:
    assert tuple(request_row(a_request(0, arrival_s=0.0, answered_s=0.5), "a.png")) == REQUEST_COLUMNS
    assert len(set(BATCH_COLUMNS)) == len(BATCH_COLUMNS)


def test_the_progress_line_says_how_many_wait_and_how_many_failed() -> None:
    tally = Tally()
    tally.on_sent(3)
    tally.on_answer(a_request(0, arrival_s=0.0, answered_s=0.25))
    tally.on_answer(a_request(1, arrival_s=0.0, answered_s=0.1, reply=Reply(0, "gone")))
    assert tally.words() == "3 sent, 1 waiting, 50.0% within SLO, recent p95 250 ms, 1 failed"
