"""What `scripts.bench_ray` counts and sends, without Ray."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge_server.replica import settings_of
from models.profile import load_profile
from scripts.bench_ray import Outcome, law, poisson, replica_options, summary
from scripts.support.ray_service import processes_of, serve_config


def test_a_request_counts_as_within_if_its_answer_is_right_and_in_time() -> None:
    right, late, wrong = Outcome(0.5, True), Outcome(1.5, True), Outcome(0.5, False)
    refused = [Outcome(0.1, None, "503: no room")] * 2
    first, *errors = summary([right, right, late, wrong, *refused], slo_s=1.0).splitlines()
    assert first.startswith("6 requests: 0.333 within 1 s; p50 0.500 s")
    assert first.endswith("1 wrong, 2 without answer")
    assert errors == ["  2 x 503: no room"]


def test_nothing_but_refusals_has_no_share() -> None:
    assert "1 requests: 0.000 within 1 s" in summary([Outcome(0.1, None, "503")], slo_s=1.0)


def test_arrivals_are_a_poisson_process_of_the_rate() -> None:
    times_s = poisson(20.0, 500.0, seed=1)
    gaps_s = [after - before for before, after in zip(times_s, times_s[1:], strict=False)]
    mean_s = sum(gaps_s) / len(gaps_s)
    assert times_s == sorted(times_s)
    assert times_s[0] > 0
    assert times_s[-1] < 500.0
    assert mean_s == pytest.approx(1 / 20, rel=0.05)
    assert sum(gap_s**2 for gap_s in gaps_s) / len(gaps_s) == pytest.approx(2 * mean_s**2, rel=0.1)


def test_replicas_emulate_the_law_and_the_shipped_configuration_is_what_runs(tmp_path: Path) -> None:
    profile = law(tmp_path)
    assert load_profile(str(profile)).predict_s(8) == pytest.approx(0.2 + 0.05 * 8)
    config = serve_config(f"{replica_options(profile)} --open", port=1, replicas=3)
    assert config["http_options"] == {"host": "127.0.0.1", "port": 1}
    [application] = config["applications"]
    assert application["import_path"] == "edge_server.ray_serve:application"
    assert settings_of(application["args"]["options"]).emulate == str(profile)
    assert [deployment["num_replicas"] for deployment in application["deployments"]] == [3]


def test_processes_are_found_by_the_folder_of_their_files(tmp_path: Path) -> None:
    wait = "import sys; print(flush=True); sys.stdin.read()"
    for environ, folder in (({"RAY_TMPDIR": str(tmp_path)}, None), ({}, tmp_path)):
        with subprocess.Popen(
            [sys.executable, "-c", wait], env=environ, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            # Just after its start a process shows neither its command line nor its variables.
            assert process.stdout is not None
            assert process.stdout.readline()
            assert list(processes_of(tmp_path)) == [process.pid]
            assert sys.executable in processes_of(tmp_path)[process.pid]
            process.communicate()
    assert processes_of(tmp_path) == {}
