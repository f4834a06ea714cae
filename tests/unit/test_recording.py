"""Arrivals as the daemon records them: packed on the hot path, written beside it, read again whole or up to a cut."""

import asyncio
import errno
import math
import os
import resource
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.engine_kit import settings

from scheduler.daemon.recording import files as files_module
from scheduler.daemon.recording import recorder as recorder_module
from scheduler.daemon.recording.files import DAY_S, RecordingFolder
from scheduler.daemon.recording.recorder import Recorder
from scheduler.domain.messages import RequestArrived, RequestCancelled, SettingsChanged
from scheduler.domain.plans import ServiceClass
from scheduler.domain.requests import Request
from scheduler.recordings import traffic as traffic_module
from scheduler.recordings.layout import EVENT, MAGIC, Kind, RecordingError, packed_block
from scheduler.recordings.recorded import is_recording, read_recorded
from scheduler.recordings.traffic import joined

WALL_S = 1_780_000_000.0
"""A moment of 2026, at the zero of the clocks here."""
SETTINGS = settings()
MODEL = SETTINGS.models[0]
SLO_S = MODEL.classes[0].slo_s


def a_request(number: int, at_s: float, **changes: Any) -> Request:
    request = Request(number, MODEL.name, at_s, at_s + SLO_S, items=2, body_bytes=1000, class_name="default")
    return replace(request, **changes)


class World:
    """A recorder whose clocks are told."""

    made: "ClassVar[list[World]]" = []

    def __init__(self, folder: Path, **limits: float) -> None:
        self.now_s = 0.0
        self.ahead_s = WALL_S
        kept: dict[str, Any] = {"max_bytes": 2**20, "keep_days": 7.0, "keep_bytes": 2**30, **limits}
        self.files = RecordingFolder(folder, wall=self.wall_s, **kept)
        self.recorder = Recorder(self.files, SETTINGS, clock=lambda: self.now_s, wall=self.wall_s)
        self.made.append(self)

    def wall_s(self) -> float:
        return self.ahead_s + self.now_s

    def arrive(self, *requests: Request) -> None:
        self.recorder.hear([RequestArrived(request) for request in requests], self.now_s)

    def write(self) -> None:
        asyncio.run(self.recorder.write())

    def close(self) -> None:
        asyncio.run(self.recorder.close())


@pytest.fixture(autouse=True)
def worlds_end() -> Iterator[None]:
    yield
    while World.made:
        World.made.pop().close()


def test_what_arrives_is_read_again_with_its_time_size_kind_and_deadline(tmp_path: Path) -> None:
    world = World(tmp_path / "arrivals")
    world.arrive(a_request(1, 10.25), a_request(2, 10.5, tenant="lab", priority=3, body_bytes=7, items=5, shape_id=9))
    world.arrive(a_request(3, 11.0, deadline_s=11.0 + 0.25 - 0.01, reserve_s=0.01))
    world.now_s = 11.5
    world.recorder.hear([RequestCancelled(2), RequestCancelled(99)], world.now_s)
    world.write()
    found = read_recorded(tmp_path / "arrivals")
    assert found.times_s.tolist() == [WALL_S + 10.25, WALL_S + 10.5, WALL_S + 11.0]
    assert [found.kinds[index] for index in found.kind] == [
        Kind(MODEL.name, "default", "", 1),
        Kind(MODEL.name, "default", "lab", 3),
        Kind(MODEL.name, "default", "", 1),
    ]
    assert (found.body_bytes.tolist(), found.items.tolist(), found.shapes.tolist()) == (
        [1000, 7, 1000],
        [2, 5, 2],
        [0, 9, 0],
    )
    assert found.timeouts_s.tolist() == pytest.approx([math.nan, math.nan, 0.25], nan_ok=True)
    assert found.cancelled_s.tolist() == pytest.approx([math.nan, 1.0, math.nan], nan_ok=True)
    assert (world.recorder.written, world.recorder.lost, found.notes) == (5, 0, ())


def test_after_a_reload_a_deadline_is_that_of_the_new_class(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.arrive(a_request(1, 1.0))
    model = replace(MODEL, classes=(ServiceClass(slo_s=SLO_S / 2),))
    world.recorder.hear([SettingsChanged(replace(SETTINGS, models=(model,)))], 2.0)
    world.arrive(a_request(2, 3.0), a_request(3, 3.0, deadline_s=3.0 + SLO_S / 2))
    world.write()
    assert np.isnan(read_recorded(tmp_path).timeouts_s).tolist() == [True, False, True]


def test_the_folder_and_its_files_are_for_the_daemons_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        world = World(tmp_path / "arrivals")
        world.arrive(a_request(1, 0.0))
        world.write()
    finally:
        os.umask(before)
    (file,) = (tmp_path / "arrivals").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_each_process_begins_a_file_of_its_own_and_all_are_read_together(tmp_path: Path) -> None:
    for start in range(3):
        world = World(tmp_path)
        world.arrive(a_request(1, float(start)), a_request(2, start + 0.5))
        world.write()
    assert len(list(tmp_path.iterdir())) == 3
    assert (read_recorded(tmp_path).times_s - WALL_S).tolist() == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert (read_recorded(tmp_path, begin_s=WALL_S + 0.5, end_s=WALL_S + 2).times_s - WALL_S).tolist() == [
        0.5,
        1.0,
        1.5,
    ]


def test_a_file_ends_when_it_is_full_a_day_old_or_the_wall_clock_was_set(tmp_path: Path) -> None:
    world = World(tmp_path)

    def files_after(at_s: float) -> int:
        world.now_s = at_s
        world.arrive(a_request(1, at_s))
        world.write()
        return len(list(tmp_path.iterdir()))

    assert [files_after(1.0), files_after(2.0), files_after(DAY_S + 3.0)] == [1, 1, 2]
    world.ahead_s += 30.0
    assert files_after(DAY_S + 4.0) == 3
    world.files._max_bytes = 100
    assert files_after(DAY_S + 5.0) == 4
    assert len(read_recorded(tmp_path)) == 5


def test_files_that_are_too_old_or_too_much_are_removed_the_oldest_first(tmp_path: Path) -> None:
    world = World(tmp_path, keep_days=2.0)
    for day in range(5):
        world.now_s = day * DAY_S * 1.01
        world.arrive(a_request(1, world.now_s))
        world.write()
        newest = max(tmp_path.glob("*.arrivals"))
        os.utime(newest, (world.wall_s(), world.wall_s()))
    assert len(list(tmp_path.iterdir())) == 2
    limited = World(tmp_path / "small", max_bytes=4096, keep_bytes=4096 + 300)
    for number in range(40):
        limited.arrive(a_request(number, float(number)))
        limited.write()
        limited.files.close()
    kept = sorted((tmp_path / "small").iterdir())
    assert len(kept) > 2
    assert sum(path.stat().st_size for path in kept[:-1]) <= 300
    assert (read_recorded(tmp_path / "small").times_s - WALL_S).tolist() == list(range(40 - len(kept), 40))


def begun(world: World, at_s: float, *, ahead_s: float = 0.0) -> Path:
    """Returns the file of an arrival at a time, whose wall clock is off by so much; it is written as of then."""
    world.now_s, world.ahead_s = at_s, WALL_S + ahead_s
    world.arrive(a_request(1, at_s))
    world.write()
    (path,) = [path for path in world.files.folder.iterdir() if path == world.files._path]
    os.utime(path, (world.wall_s(), world.wall_s()))
    return path


def test_a_wall_clock_that_leaps_ahead_removes_no_recording_until_that_time_has_passed(tmp_path: Path) -> None:
    world = World(tmp_path, keep_days=2.0)
    before = [begun(world, day * DAY_S * 1.01) for day in range(2)]
    years_s = 5000 * DAY_S
    ahead = begun(world, 1.5 * DAY_S, ahead_s=years_s)
    assert all(path.exists() for path in before)
    back = begun(world, 1.6 * DAY_S)
    kept = sorted(tmp_path.iterdir())
    assert kept == [*before, ahead, back]
    assert len(read_recorded(tmp_path)) == 4
    # The clock is right again, and what is two days old goes when that is certain.
    for part in range(1, 6):
        begun(world, (1.6 + part) * DAY_S)
    assert not any(path.exists() for path in (*before, ahead, back))


def test_a_daemon_that_starts_with_a_clock_far_ahead_keeps_what_there_is(tmp_path: Path) -> None:
    old = begun(World(tmp_path, keep_days=2.0), 0.0)
    later = World(tmp_path, keep_days=2.0)
    begun(later, 10.0, ahead_s=900 * DAY_S)
    begun(later, 10.0 + 1.5 * DAY_S, ahead_s=900 * DAY_S)
    assert old.exists()
    begun(later, 10.0 + 3.0 * DAY_S, ahead_s=900 * DAY_S)
    assert not old.exists()


def test_after_the_wall_clock_was_set_back_files_are_still_in_order_and_the_oldest_go_first(tmp_path: Path) -> None:
    world = World(tmp_path, max_bytes=4096, keep_bytes=4096 + 250)
    paths = [begun(world, float(number), ahead_s=-30.0 * number) for number in range(12)]
    assert paths == sorted(paths)
    kept = [path for path in paths if path.exists()]
    assert 1 < len(kept) < 12
    assert kept == paths[-len(kept) :]


def test_a_cancellation_after_the_next_file_has_begun_is_that_of_its_request(tmp_path: Path) -> None:
    world = World(tmp_path)
    for number in (5, 6):
        world.arrive(a_request(number, 1.0))
    world.write()
    world.files.close()
    world.now_s = 1.25
    world.recorder.hear([RequestCancelled(6)], world.now_s)
    world.arrive(a_request(7, 1.5))
    world.write()
    assert read_recorded(tmp_path).cancelled_s.tolist() == pytest.approx([math.nan, 0.25, math.nan], nan_ok=True)
    # Of another process the same numbers are other requests.
    other = World(tmp_path)
    other.now_s = 2.0
    other.recorder.hear([RequestCancelled(7)], other.now_s)
    other.arrive(a_request(1, 2.0))
    other.write()
    assert np.isnan(read_recorded(tmp_path).cancelled_s).sum() == 3


def test_a_file_of_another_program_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x" * 10_000)
    world = World(tmp_path, max_bytes=4096, keep_bytes=8192)
    world.arrive(a_request(1, 0.0))
    world.write()
    assert (tmp_path / "notes.txt").exists()


@given(st.integers(0, 400))
def test_a_recording_that_is_cut_off_is_read_up_to_its_last_whole_block(cut: int) -> None:
    blocks = [
        packed_block(EVENT.pack(at_s, 1, 5, 1, 0, 0, math.nan), [Kind("m", "c", "", 1)], WALL_S) for at_s in (1.0, 2.0)
    ]
    whole = MAGIC + b"".join(blocks)
    path = Path(f"/dev/shm/edgeburst-cut-{os.getpid()}.arrivals")
    try:
        path.write_bytes(whole[: len(MAGIC) + cut])
        if cut < len(blocks[0]):
            with pytest.raises(RecordingError, match="has no request"):
                read_recorded(path)
            return
        found = read_recorded(path)
        assert len(found) == 1 + (cut >= len(blocks[0] + blocks[1]))
        torn = cut not in (len(blocks[0]),) and cut < len(blocks[0] + blocks[1])
        assert bool(found.notes) == torn
    finally:
        path.unlink()


@given(st.binary(max_size=300), st.integers(0, 200))
def test_no_bytes_make_the_reader_fall(noise: bytes, at: int) -> None:
    block = packed_block(EVENT.pack(1.0, 1, 5, 1, 0, 0, math.nan), [Kind("m", "c", "", 1)], WALL_S)
    whole = MAGIC + block
    path = Path(f"/dev/shm/edgeburst-noise-{os.getpid()}.arrivals")
    try:
        path.write_bytes(whole[:at] + noise + whole[at + len(noise) :])
        with suppress(RecordingError):
            assert len(read_recorded(path)) >= 1
    finally:
        path.unlink()


def test_a_full_disk_costs_arrivals_and_one_line_of_the_log_and_the_file_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path)
    world.arrive(a_request(1, 1.0))
    world.write()
    write = os.write

    def full(descriptor: int, content: bytes) -> int:
        if len(content) <= 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, content[:20])

    monkeypatch.setattr(files_module.os, "write", full)
    for number in (2, 3):
        world.arrive(a_request(number, float(number)))
        world.write()
    assert [record.message for record in caplog.records] == ["record_failed"]
    assert "No space left on device" in world.recorder.failure
    monkeypatch.undo()
    world.arrive(a_request(4, 4.0))
    world.write()
    found = read_recorded(tmp_path)
    assert ((found.times_s - WALL_S).tolist(), found.notes) == ([1.0, 4.0], ())
    assert (world.recorder.lost, world.recorder.failure) == (2, "")
    assert [record.message for record in caplog.records] == ["record_failed"]


def test_the_kernels_own_limit_of_a_file_is_a_full_disk(tmp_path: Path) -> None:
    """Not a fake: RLIMIT_FSIZE makes the kernel write a part and refuse the rest."""
    world = World(tmp_path)
    world.arrive(a_request(1, 1.0))
    world.write()
    (file,) = tmp_path.iterdir()
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 30, before[1]))
    try:
        world.arrive(a_request(2, 2.0))
        world.write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert "File too large" in world.recorder.failure
    found = read_recorded(file)
    assert (len(found), found.notes) == (1, ())


@pytest.mark.provokes_fault
def test_a_bug_in_writing_costs_arrivals_and_the_task_that_writes_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path)
    monkeypatch.setattr(recorder_module, "packed_block", None)
    world.arrive(a_request(1, 1.0))
    world.write()
    assert "an internal error, which is in the log" in world.recorder.failure
    monkeypatch.undo()
    world.arrive(a_request(2, 2.0))
    world.write()
    assert ((read_recorded(tmp_path).times_s - WALL_S).tolist(), world.recorder.lost) == ([2.0], 1)
    assert [record.message for record in caplog.records] == ["record_bug", "record_failed"]


def test_while_the_disk_hangs_memory_is_bounded_and_what_is_lost_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "MOST_WAITING", 3)
    world = World(tmp_path)
    world.arrive(*(a_request(number, float(number)) for number in range(5)))
    world.write()
    assert (world.recorder.written, world.recorder.lost) == (3, 2)
    monkeypatch.setattr(recorder_module, "MOST_KINDS", 2)
    world.arrive(*(a_request(number, 9.0, tenant=str(number)) for number in range(3)))
    world.write()
    assert (world.recorder.written, world.recorder.lost) == (5, 3)


def test_a_recorded_request_takes_under_30_bytes_and_none_of_its_payload(tmp_path: Path) -> None:
    world, rng = World(tmp_path), np.random.default_rng(1)
    at_s = 0.0
    for block in range(10):
        for number in range(500):
            at_s += float(rng.exponential(0.01))
            world.arrive(a_request(500 * block + number, at_s, body_bytes=int(rng.integers(15_000, 25_000))))
        world.write()
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size / 5000 < 16


def calls_of(world: World, requests: list[Request]) -> int:
    """Returns the calls, of Python and of C, while requests are heard."""
    counted = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    messages = [RequestArrived(request) for request in requests]
    sys.setprofile(count)
    try:
        world.recorder.hear(messages, 0.0)
    finally:
        sys.setprofile(None)
    return counted


def test_recording_a_request_costs_the_loop_seven_calls_and_writes_nothing(tmp_path: Path) -> None:
    world = World(tmp_path / "none")
    world.arrive(a_request(0, 0.0))
    requests = [a_request(number, 1.0) for number in range(100)]
    assert calls_of(world, requests) <= 100 * 7 + 5
    assert not (tmp_path / "none").exists()


def test_what_is_no_recording_is_refused_with_what_to_name(tmp_path: Path) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(RecordingError) as refused:
            read_recorded(path)
        return str(refused.value)

    (tmp_path / "a.csv").write_text("a,b\n")
    assert refusal(tmp_path / "a.csv").endswith(
        "is no recording of arrivals; name a file or folder that [record] wrote"
    )
    assert "has no recording (*.arrivals); name the folder of [record]" in refusal(tmp_path)
    assert "cannot read the recording" in refusal(tmp_path / "missing")
    world = World(tmp_path)
    world.arrive(a_request(1, 0.0), a_request(2, 3600.0))
    world.write()
    with pytest.raises(
        RecordingError, match=r"no request in that time; its requests came from 2026-05-28T20:26:40Z to"
    ):
        read_recorded(tmp_path, begin_s=WALL_S + 1, end_s=WALL_S + 2)
    assert [is_recording(tmp_path / name) for name in ("", "a.csv", "missing")] == [True, False, False]


def test_recordings_of_unlike_kinds_are_joined_by_time(tmp_path: Path) -> None:
    parts = []
    for number, tenant in enumerate(("a", "b")):
        world = World(tmp_path / tenant)
        world.arrive(a_request(1, 1.0 - number, tenant=tenant), a_request(2, 2.0 + number, tenant="both"))
        world.write()
        parts.append(read_recorded(tmp_path / tenant))
    whole = joined(parts)
    assert (whole.times_s - WALL_S).tolist() == [0.0, 1.0, 2.0, 3.0]
    assert [whole.kinds[index].tenant for index in whole.kind] == ["b", "a", "both", "both"]


def test_a_time_is_chosen_from_a_folder_of_more_requests_than_can_be_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in range(3):
        world = World(tmp_path)
        world.now_s = DAY_S * day
        world.arrive(*(a_request(number, DAY_S * day + number) for number in range(1, 5)))
        world.write()
    monkeypatch.setattr(traffic_module, "MOST_REQUESTS", 10)
    with pytest.raises(RecordingError, match="more than 10 requests; choose fewer with --from and --to"):
        read_recorded(tmp_path)
    found = read_recorded(tmp_path, begin_s=WALL_S + 3, end_s=WALL_S + DAY_S + 3)
    assert (found.times_s - WALL_S).tolist() == [3.0, 4.0, DAY_S + 1, DAY_S + 2]
    with pytest.raises(RecordingError, match=r"came from 2026-05-28T20:26:41Z to 2026-05-30T20:26:44Z"):
        read_recorded(tmp_path, begin_s=WALL_S + 3 * DAY_S)
