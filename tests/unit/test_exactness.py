"""The exactness script: its simulated buffer is one, it passes right distributions and finds wrong ones."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from scheduler.planner.queueing import map_batching as buffers
from scheduler.planner.queueing.map_process import MarkovianArrivals, markovian, mmpp2
from scheduler.planner.queueing.map_sampling import ArrivalStream
from scripts.exactness import __main__ as script
from scripts.exactness import comparison
from scripts.exactness.simulation import simulated

BURSTY = mmpp2(rates_rps=(10.0, 80.0), leave_per_s=(1.0, 3.0))


def test_the_simulated_buffer_is_one_served_request_by_request() -> None:
    buffer = simulated(BURSTY, max_batch=4, timeout_s=0.07, rng=np.random.default_rng(3))
    blocks = [buffer.block(100) for _ in range(20)]
    sizes = np.concatenate([block.sizes for block in blocks]).tolist()
    waits_s = np.concatenate([block.waits_s for block in blocks]).tolist()
    stream = ArrivalStream(BURSTY, np.random.default_rng(3))
    times_s = np.cumsum(np.concatenate([stream.gaps_s(100) for _ in range(20)])).tolist()
    first = 0
    for size in sizes:
        batch_s, following_s = times_s[first : first + size], times_s[first + size : first + size + 1]
        closes_s = batch_s[-1] if size == 4 else batch_s[0] + 0.07
        assert batch_s[-1] <= batch_s[0] + 0.07
        assert size == 4 or not following_s or following_s[0] > closes_s
        assert waits_s[first : first + size] == pytest.approx([closes_s - time_s for time_s in batch_s], abs=1e-9)
        first += size
    assert first > 1900


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    d0, d1 = BURSTY.matrices()
    (tmp_path / "bursty.json").write_text(json.dumps({"D0": d0.tolist(), "D1": d1.tolist()}))
    monkeypatch.setattr(script, "BATCHES", (2, 5))
    monkeypatch.setattr(script, "TIMEOUTS_S", (0.05,))
    return tmp_path


def test_right_distributions_pass_and_every_point_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--maps", str(folder), "--requests", "60000", "--csv", str(folder / "points.csv")]) == 0
    printed = capsys.readouterr().out
    assert "reached" in printed
    with (folder / "points.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["what"] for row in rows} == {"size", "wait", "latency", "latency with noise"}
    assert f"{len(rows)} points" in printed
    for row in rows:
        assert abs(float(row["exact"]) - float(row["seen"])) < 5 * float(row["standard_error"])


def test_a_wrong_distribution_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(process: MarkovianArrivals, *, max_batch: int, timeout_s: float) -> buffers.BufferDistribution:
        d0, d1 = process.matrices()
        return buffers.buffer_distribution(markovian(1.03 * d0, 1.03 * d1), max_batch=max_batch, timeout_s=timeout_s)

    monkeypatch.setattr(comparison, "buffer_distribution", wrong)
    assert script.main(["--maps", str(folder), "--requests", "200000"]) == 1
    assert "missed" in capsys.readouterr().out


def test_a_folder_without_processes_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--maps", str(tmp_path)]) == 2
    assert "holds no arrival process; name a folder with *.json files" in " ".join(capsys.readouterr().out.split())


def test_points_that_vary_only_with_rare_batches_count_only_if_they_are_wrong() -> None:
    # Nearly every batch of two is full within a second, so exactly half of all requests do not wait.
    full = comparison.Setting("full", mmpp2(rates_rps=(60.0, 80.0), leave_per_s=(1.0, 1.0)), 2, 1.0)
    points = comparison.compare(full, requests=20_000, seed=1)
    assert not [point for point in points if point.what == "size" or (point.what == "wait" and point.at == 0)]
    assert max(point.deviation for point in points) < 5
