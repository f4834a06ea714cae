"""Several batches at once, measured: so many are under way all the time, and the profile says how many suffice."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path

import pytest

from models.profile import AtOnceRow, Profile, ProfileError, ProfileRow, load_profile, save_profile
from scheduler.measuring.at_once import check_levels, levels, measure_at_once
from scheduler.measuring.errors import MeasuringError
from scheduler.measuring.latency import Call
from scheduler.measuring.profiling import at_once_rows, parallel_sentence

LIMIT_S = 30.0


def test_so_many_are_under_way_all_the_time_and_throughput_is_that_of_all() -> None:
    made, together, lock = count(), Counter[int](), threading.Lock()
    meeting = {number: threading.Barrier(number) for number in (2, 3)}

    def make_call() -> Call:
        next(made)

        def call(items: int) -> float:
            # Goes on only when as many calls as there should be are in here.
            number = items // 10
            with lock:
                together[number] += 1
            meeting[number].wait(LIMIT_S)
            return 0.1 * items

        return call

    ticks = count()
    told = count()
    rows = [
        row
        for number in (2, 3)
        for row in measure_at_once(
            make_call,
            [10 * number],
            [1, number],
            repetitions=4,
            warm_up=1,
            on_call=lambda: next(told),
            clock=lambda: 2.0 * next(ticks),
        )
    ]
    assert next(made) == 5
    assert dict(together) == {2: 2 * 5, 3: 3 * 5}
    assert next(told) == 25
    assert [(row.parallel, row.batch, row.samples) for row in rows] == [(2, 20, 8), (3, 30, 12)]
    # The clock goes on by 2 s from the start to the end of each.
    assert [row.items_per_s for row in rows] == [20 * 8 / 2.0, 30 * 12 / 2.0]
    assert [row.p50_s for row in rows] == pytest.approx([2.0, 3.0])


def test_one_at_a_time_is_measured_elsewhere() -> None:
    assert measure_at_once(lambda: pytest.fail("called"), [1, 2], [1], repetitions=1, warm_up=0) == ()


@pytest.mark.parametrize("when", [0, 3])
def test_a_call_that_fails_ends_the_others_and_is_the_error(when: int) -> None:
    calls = count()

    def call(items: int) -> float:
        if next(calls) == when:
            raise MeasuringError("the server refused it")
        return float(items)

    with pytest.raises(MeasuringError, match="the server refused it"):
        measure_at_once(lambda: call, [4], [3], repetitions=2, warm_up=1)


class WatchedBarrier(threading.Barrier):
    """A barrier that knows which thread was the first to abort it, and lets none wait for ever."""

    def __init__(self, parties: int) -> None:
        super().__init__(parties, timeout=LIMIT_S)
        made.append(self)
        self.aborted_by: list[threading.Thread] = []

    def abort(self) -> None:
        self.aborted_by.append(threading.current_thread())
        super().abort()


made: list[WatchedBarrier] = []


@pytest.mark.parametrize("phase", ["warm-up", "timed"])
def test_an_interrupt_ends_all_callers_and_gets_out(phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "Barrier", WatchedBarrier)
    made.clear()
    main, numbers, calls, interrupted = threading.main_thread(), count(), Counter[int](), threading.Event()

    def interrupt(*_: object) -> None:
        if not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt

    def sent() -> bool:
        # Again and again: one that comes just before a thread begins to wait does not wake it.
        assert main.ident is not None
        signal.pthread_kill(main.ident, signal.SIGINT)
        return interrupted.is_set()

    def make_call() -> Call:
        number = next(numbers)

        def call(items: int) -> float:
            calls[number] += 1
            [barrier] = made
            if number == 0 and calls[0] == (1 if phase == "warm-up" else 2):
                # The main thread and the other caller wait for this one, or the main thread for the results.
                until(lambda: barrier.n_waiting == (2 if phase == "warm-up" else 0))
                until(sent)
                until(lambda: barrier.n_waiting < 2 if phase == "warm-up" else barrier.broken)
            return float(items)

        return call

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            measure_at_once(make_call, [4], [2], repetitions=1000, warm_up=1)
    finally:
        signal.signal(signal.SIGINT, before)
    [barrier] = made
    assert barrier.aborted_by[:1] == [main]
    assert calls[0] < 1000


def until(condition: Callable[[], bool]) -> None:
    given_up_s = time.monotonic() + LIMIT_S
    while not condition() and time.monotonic() < given_up_s:
        time.sleep(0.001)


@pytest.mark.parametrize("numbers", [[], [0, 2], [2, 2], [65]])
def test_numbers_that_make_no_measurement_are_refused(numbers: list[int]) -> None:
    with pytest.raises(MeasuringError, match="--concurrency must be rising whole numbers from 1 to 64"):
        check_levels(numbers)


@pytest.mark.parametrize(("text", "numbers"), [("4", [1, 2, 3, 4]), ("2..4", [2, 3, 4]), ("1,8", [1, 8]), ("0", [])])
def test_numbers_are_read_from_the_command_line(text: str, numbers: list[int]) -> None:
    assert levels(text) == numbers


def profiled(**items_per_s: float) -> Profile:
    """Returns a profile with the throughput of so many batches of 16 at once."""
    profile = load_profile("orin-resnet50")
    rows = (ProfileRow(16, 0.2, 0.3, items_per_s.pop("k1"), 30),)
    at_once = tuple(AtOnceRow(int(name[1:]), 16, 0.2, 0.3, each, 30) for name, each in items_per_s.items())
    return replace(profile, rows=rows, at_once=at_once)


@pytest.mark.parametrize(
    ("profile", "parallel"),
    [
        (profiled(k1=100.0), None),
        (profiled(k1=100.0, k2=102.0), 1),
        (profiled(k1=100.0, k2=140.0, k3=240.0), 1),
        (profiled(k1=115.6, k2=227.0, k3=234.2, k4=245.6), 2),
        (profiled(k1=100.0, k2=190.0, k3=280.0, k4=250.0), 3),
        (profiled(k1=100.0, k2=190.0, k8=420.0), 2),
        (profiled(k1=100.0, k4=390.0), 4),
    ],
)
def test_as_many_are_worth_sending_as_each_add_half_of_what_one_alone_answers(
    profile: Profile, parallel: int | None
) -> None:
    assert profile.parallel() == parallel
    assert bool(parallel_sentence(profile)) == (parallel is not None)


def test_it_is_saved_with_the_profile_and_left_out_where_it_was_not_measured(tmp_path: Path) -> None:
    path, several = tmp_path / "p.json", profiled(k1=100.0, k2=190.0)
    save_profile(several, path)
    assert asdict(load_profile(path)) == asdict(several)
    assert at_once_rows(several) == [("2", "16", "200.00", "300.00", "190.0")]
    save_profile(replace(several, at_once=()), path)
    assert "at_once" not in path.read_text()
    path.write_text(path.read_text().replace('"rows"', '"at_once": [{"parallel": 0}], "rows"'))
    with pytest.raises(ProfileError, match=r"at_once\[0\]: key batch is missing"):
        load_profile(path)
