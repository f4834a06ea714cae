"""Workloads: seeded, of the rate they promise, and one sentence for every trace that cannot be used."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.planner.queueing.map_process import MarkovianArrivals, poisson_arrivals
from scheduler.workloads import (
    PATTERNS,
    Workload,
    WorkloadError,
    markovian,
    pattern,
    poisson,
    read_gaps,
    read_map,
    read_rates,
    steps,
)


def rng(seed: int = 7) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_gaps_add_up_to_arrival_times(tmp_path: Path) -> None:
    path = tmp_path / "a.gaps"
    path.write_text("0.5\n0.25\n1\n")
    workload = read_gaps(path)
    assert workload.times_s.tolist() == [0.5, 0.75, 1.75]
    assert workload.duration_s == 1.75


def test_idle_units_of_a_rate_file_take_their_time(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("2,0,0,3,0")
    workload = read_rates(path, unit_s=10.0, rng=rng())
    assert workload.duration_s == 50.0
    assert np.histogram(workload.times_s, bins=5, range=(0, 50))[0].tolist() == [2, 0, 0, 3, 0]
    assert (np.diff(workload.times_s) > 0).all()


def test_a_multiple_of_a_rate_file_keeps_the_time_and_scales_the_count(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(" ".join(["7"] * 1000))
    workload = read_rates(path, unit_s=1.0, rng=rng(), multiple=0.3)
    assert workload.duration_s == 1000.0
    assert len(workload.times_s) == pytest.approx(2100, rel=0.05)


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_every_pattern_has_the_mean_rate_it_was_asked_for(name: str) -> None:
    workload = pattern(name, rate_rps=50.0, duration_s=2000.0, rng=rng())
    # The MMPP's own standard error over 2000 s is 4 %; the others are well below it.
    assert workload.mean_rate_rps == pytest.approx(50.0, rel=0.13 if name == "mmpp" else 0.03)
    assert workload.duration_s == pytest.approx(2000.0)
    assert (np.diff(workload.times_s) >= 0).all()
    assert workload.times_s[0] >= 0
    assert workload.times_s[-1] <= workload.duration_s


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_same_seed_same_arrivals(name: str) -> None:
    first, second, other = (pattern(name, rate_rps=20.0, duration_s=60.0, rng=rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.times_s, second.times_s)
    assert not np.array_equal(first.times_s, other.times_s)


def test_patterns_differ_in_burstiness_as_their_names_say() -> None:
    def dispersion(name: str) -> float:
        counts = np.bincount(pattern(name, rate_rps=50, duration_s=1000, rng=rng()).times_s.astype(int), minlength=1000)
        return float(counts.var() / counts.mean())

    assert dispersion("poisson") == pytest.approx(1.0, abs=0.2)
    assert min(dispersion(name) for name in PATTERNS if name != "poisson") > 2.0


def test_poisson_ends_with_requests_or_duration_whichever_comes_first() -> None:
    assert len(poisson(100.0, rng=rng(), requests=50).times_s) == 50
    by_time = poisson(100.0, rng=rng(), duration_s=3.0)
    assert by_time.duration_s == 3.0
    assert by_time.times_s[-1] < 3.0
    assert len(poisson(100.0, rng=rng(), requests=10**6, duration_s=3.0).times_s) == len(by_time.times_s)
    assert poisson(100.0, rng=rng(), requests=10, duration_s=3.0).duration_s < 3.0


def test_a_longer_draw_starts_like_a_shorter_one() -> None:
    short, long = poisson(100.0, rng=rng(), requests=100), poisson(100.0, rng=rng(), requests=10_000)
    assert np.array_equal(short.times_s, long.times_s[:100])


def test_one_phase_of_a_markovian_process_is_poisson() -> None:
    workload = markovian(poisson_arrivals(80.0), rng=rng(), requests=20_000)
    gaps_s = np.diff(workload.times_s)
    assert gaps_s.mean() == pytest.approx(1 / 80, rel=0.03)
    assert gaps_s.std() == pytest.approx(1 / 80, rel=0.03)


def test_markovian_rate_is_the_stationary_one() -> None:
    # Stationary phases of ((-1, 1), (3, -3)) are 3/4 and 1/4, so the rate is 3/4 * 10 + 1/4 * 50 = 20.
    process = MarkovianArrivals(d0=((0.0, 1.0), (3.0, 0.0)), d1=((10.0, 0.0), (0.0, 50.0)))
    assert markovian(process, rng=rng(), duration_s=3000.0).mean_rate_rps == pytest.approx(20.0, rel=0.03)


def test_steps_change_rate_when_they_say() -> None:
    workload = steps([(100.0, 10.0), (100.0, 0.0), (100.0, 40.0)], rng=rng())
    counts = np.histogram(workload.times_s, bins=3, range=(0, 300))[0]
    assert counts[1] == 0
    assert counts[0] == pytest.approx(1000, rel=0.1)
    assert counts[2] == pytest.approx(4000, rel=0.05)
    assert workload.duration_s == 300.0


@given(
    gaps=st.lists(st.floats(0, 10), min_size=1, max_size=40),
    factor=st.floats(0.1, 10),
    laps=st.integers(1, 4),
    gap_s=st.floats(0, 5),
)
def test_scaling_and_repeating_keep_counts_and_order(gaps: list[float], factor: float, laps: int, gap_s: float) -> None:
    times_s = np.cumsum(gaps)
    workload = Workload(times_s, float(times_s[-1]))
    faster = workload.faster(factor)
    assert len(faster.times_s) == len(gaps)
    assert faster.duration_s == pytest.approx(workload.duration_s / factor)
    repeated = workload.repeated(laps, gap_s=gap_s)
    assert len(repeated.times_s) == laps * len(gaps)
    assert (np.diff(repeated.times_s) >= 0).all()
    assert repeated.duration_s == pytest.approx(laps * workload.duration_s + (laps - 1) * gap_s)


def test_cutting_keeps_the_beginning() -> None:
    workload = Workload(np.array([1.0, 2.0, 3.0]), 5.0)
    assert workload.first(2).times_s.tolist() == [1.0, 2.0]
    assert workload.first(9) is workload
    assert workload.until(2.5).times_s.tolist() == [1.0, 2.0]
    assert workload.until(2.5).duration_s == 2.5
    assert workload.until(9.0).duration_s == 5.0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("  \n ", "is empty"),
        ("0.1\nfoo\n", "value 2 of the trace .* is 'foo', not a gap"),
        ("0.1\n-0.5", "value 2 .* is '-0.5'"),
        ("nan", "value 1 .* is 'nan'"),
    ],
)
def test_a_useless_gap_trace_is_refused_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "a.gaps"
    path.write_text(text)
    with pytest.raises(WorkloadError, match=sentence) as caught:
        read_gaps(path)
    assert "\n" not in str(caught.value)


def test_other_useless_inputs_are_refused_in_one_sentence(tmp_path: Path) -> None:
    silent, binary, wrong_map = tmp_path / "zero.csv", tmp_path / "b.gaps", tmp_path / "m.json"
    silent.write_text("0,0,0")
    binary.write_bytes(b"\xff\xfe\x00")
    wrong_map.write_text('{"D0": [[1]]}')
    negative_map = tmp_path / "negative_map.json"
    negative_map.write_text('{"D0": [[1]], "D1": [[-1]]}')
    for call, sentence in (
        (lambda: read_gaps(tmp_path / "absent.gaps"), "cannot read the trace"),
        (lambda: read_gaps(binary), "not a text file"),
        (lambda: read_rates(silent, unit_s=1.0, rng=rng()), "holds no request"),
        (lambda: read_rates(silent, unit_s=0.0, rng=rng()), "time unit must be above 0"),
        (lambda: read_map(wrong_map), "is no arrival process"),
        (lambda: read_map(tmp_path / "absent.json"), "cannot read the arrival process"),
        (lambda: read_map(negative_map), "negative_map.json is no arrival process: row 1, column 1 of D1 is -1.0"),
        (lambda: poisson(0.0, rng=rng(), requests=1), "the rate must be above 0"),
        (lambda: poisson(1.0, rng=rng()), "give a number of requests or a duration"),
        (lambda: pattern("wave", rate_rps=1, duration_s=1, rng=rng()), "no pattern 'wave'"),
        (lambda: pattern("poisson", rate_rps=1e9, duration_s=1e9, rng=rng()), "lower the rate"),
        (lambda: steps([(1.0, -1.0)], rng=rng()), "rate of a step"),
        (lambda: Workload(np.array([1.0]), 1.0).first(0), "at least 1"),
        (lambda: Workload(np.array([1.0]), 1.0).repeated(0), "number of laps"),
        (lambda: Workload(np.array([1.0]), 1.0).repeated(2, gap_s=-1.0), "gap between two laps"),
    ):
        with pytest.raises(WorkloadError, match=sentence):
            call()


def test_the_published_trace_reads_as_described() -> None:
    traces = os.environ.get("EDGEBURST_TRACES")
    if not traces:
        pytest.skip("set EDGEBURST_TRACES to the folder with the traces to run this")
    workload = read_gaps(Path(traces) / "arrivals" / "twitter-15h-a.gaps")
    assert len(workload.times_s) == 60_000
    assert workload.mean_rate_rps == pytest.approx(1 / 0.0209, rel=0.05)
    periodic = read_rates(Path(traces) / "rates" / "periodic.txt", unit_s=1.0, rng=rng())
    assert periodic.duration_s > len(periodic.times_s) / 400
    process = read_map(Path(traces) / "maps" / "nys-01.json")
    assert markovian(process, rng=rng(), requests=100).duration_s > 0
