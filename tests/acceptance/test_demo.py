"""The demo itself, shortened: real processes, real pictures, real answers; and Ctrl-C in its middle.

Only what holds on any machine is asserted: who was answered, what the files say, who is gone. Not how fast.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parents[2]
LIMIT_S = 170
SHORT = ("--time-scale", "0.05", "--rates", "20,130,30", "--provisioned", "2", "--seed", "5")

# With the other demo on one worker: both measure time, and share the machine already.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo"), pytest.mark.timeout(LIMIT_S + 5)]


def start(out: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.demo", "--out", str(out), *SHORT, *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell that runs the tests in the background has it ignored, and what it starts inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = tmp_path_factory.mktemp("demo")
    process = start(out)
    try:
        output, _ = process.communicate(timeout=LIMIT_S)
    finally:
        process.terminate()
    return out, subprocess.CompletedProcess(process.args, process.wait(), output)


@pytest.fixture(scope="module")
def summary(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((demo[0] / "summary.json").read_text(encoding="utf-8"))
    return content


def test_the_demo_succeeds_and_says_what_happened(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, finished = demo
    assert finished.returncode == 0, finished.stdout
    assert "every answer is the model's own" in " ".join(finished.stdout.split())


def test_every_request_is_answered_once_and_rightly(summary: dict[str, Any]) -> None:
    assert summary["requests"] > 200
    assert summary["answered"] == summary["requests"]
    assert (summary["errors"], summary["wrong_answers"]) == (0, 0)
    assert summary["accuracy"] >= 0.97
    assert summary["edge_requests"] + summary["function_requests"] == summary["requests"]
    assert summary["edge_batches"] > 0


def test_money_is_metered_and_warm_instances_are_billed_apart(summary: dict[str, Any]) -> None:
    assert summary["cost_cny"] >= 0
    assert summary["cost_booked_cny"] == pytest.approx(summary["cost_cny"], rel=0.5, abs=1e-5)
    assert summary["cost_all_function_cny"] > 0
    assert summary["provisioned_idle_cny"] > 0
    assert summary["provisioned_idle_usd"] > 0
    assert {sheet["currency"] for sheet in summary["price_sheets"].values()} == {"CNY", "USD"}


def test_plans_and_emulation_are_told(summary: dict[str, Any]) -> None:
    assert summary["plans"][0]["cause"] == "start"
    assert len(summary["emulated"]) == 3


def test_the_burst_afterwards_starts_functions_cold_and_is_answered(summary: dict[str, Any]) -> None:
    cold = summary["cold_start"]
    assert cold["answered"] == cold["requests"]
    if not cold["cold_batches"]:
        # It is a few more than the edge can answer in time if they come at once; the report then says this, too.
        pytest.skip("this machine was too busy to send the burst at once: the edge answered all of it")
    assert cold["instances_started"] >= 1
    assert cold["slowest_cold_batch_s"] > cold["service_s"]


def test_the_same_arrivals_under_other_policies_end_the_demo(
    demo: tuple[Path, subprocess.CompletedProcess[str]], summary: dict[str, Any]
) -> None:
    out, finished = demo
    measured, *others = summary["alternatives"]
    assert (measured["calls_cny"], measured["within_slo"]) == (summary["cost_cny"], summary["within_slo"])
    assert len(others) == 5
    page = (out / "report.html").read_text(encoding="utf-8")
    for one in summary["alternatives"]:
        assert one["words"] in page
        assert one["words"] in finished.stdout


def test_the_files_are_there(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, _ = demo
    assert (out / "timeline.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (out / "terminal.svg").read_text(encoding="utf-8").startswith("<svg")
    assert (out / "client" / "requests.csv").exists()
    assert (out / "client" / "batches.csv").exists()


def test_ctrl_c_ends_the_demo_and_leaves_no_process_behind(tmp_path: Path) -> None:
    process = start(tmp_path, "--quiet")
    try:
        family = children_when(process, tmp_path / "logs" / "local-fc.out", b"ready")
        # Twice, as an impatient person would.
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=LIMIT_S)
    finally:
        process.terminate()
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert psutil.wait_procs(family, timeout=30)[1] == []


def children_when(process: subprocess.Popen[str], path: Path, content: bytes) -> list[psutil.Process]:
    """Wait until a file has this content; return all processes that the demo then has."""
    end_s = time.monotonic() + LIMIT_S / 2
    while not (path.exists() and content in path.read_bytes()):
        assert process.poll() is None, os.fspath(path)
        assert time.monotonic() < end_s
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 2
    return family
