"""The demo of failures: real processes, each failure seen on the page, explained and mended; and Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parents[2]
LIMIT_S = 300
# How much a tenant within its share keeps in time depends on what else the machine does.
ON_A_QUIET_MACHINE = "the tenant within its share keeps"

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo"), pytest.mark.timeout(LIMIT_S + 10)]


def start(out: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.demo_failures", "--out", str(out), *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_each_failure_is_seen_on_the_page_explained_and_mended(tmp_path: Path) -> None:
    process = start(tmp_path, "--pace", "0.6")
    try:
        output, _ = process.communicate(timeout=LIMIT_S)
    finally:
        process.terminate()
    content: dict[str, Any] = json.loads((tmp_path / "checklist.json").read_text(encoding="utf-8"))
    broken = [check for check in content["checks"] if not check["holds"]]
    assert [check for check in broken if not check["must"].startswith(ON_A_QUIET_MACHINE)] == [], output
    assert process.returncode == (1 if broken else 0), output
    assert content["partial"] is False
    scenes = ["edge killed", "uplink cut", "cap reached", "tenant flood"]
    assert list(dict.fromkeys(check["scene"] for check in content["checks"])) == scenes
    assert [one["scene"] for one in content["explained"]] == scenes
    assert "edge:main did not answer" in content["explained"][0]["text"]
    assert "spend cap" in content["explained"][2]["text"]


def test_ctrl_c_ends_it_with_a_partial_list_and_leaves_no_process_behind(tmp_path: Path) -> None:
    process = start(tmp_path)
    log = tmp_path / "logs"
    try:
        end_s = time.monotonic() + LIMIT_S / 2
        while not list(log.glob("clients-*")):
            assert process.poll() is None
            assert time.monotonic() < end_s
            time.sleep(0.05)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=LIMIT_S)
    finally:
        process.terminate()
    assert process.returncode == 130, output
    assert "interrupted; its processes are stopped, and the list is partial" in output
    assert "Traceback" not in output
    assert psutil.wait_procs(family, timeout=30)[1] == []
