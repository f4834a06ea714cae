"""A test run that is killed leaves no process: neither those that it started nor those that these started."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.daemon_process import ROOT, environment, until
from support.hygiene import GRACE, MARK, Guardian, marked_processes

RUN = """
import subprocess, sys, time
from pathlib import Path
from support.daemon_process import stub_edge_process

GRANDCHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"

def test_that_does_not_end():
    with stub_edge_process():
        subprocess.Popen([sys.executable, "-c", GRANDCHILD], start_new_session=True)
        time.sleep(1)
        Path("READY").write_text("")
        time.sleep(600)
"""
LEAVES = """
import logging, os, subprocess, sys, threading, time

def test_process():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

def test_thread():
    threading.Thread(target=time.sleep, args=(600,), name="forgotten", daemon=True).start()

def test_descriptor():
    os.pipe()

def test_fault():
    logging.getLogger("edgeburst").error("request_bug")

def test_fault_of_a_child():
    subprocess.run([sys.executable, "-c", "import logging; logging.getLogger('any').error('planner_bug')"])

def test_nothing():
    pass
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")


def command(test: Path, *options: str) -> list[str]:
    """A run of one file with what all our tests share."""
    return [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "setup.cfg"), "-p", "conftest", *options, str(test)]


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["alone", "with a worker"])
def test_a_killed_run_leaves_nothing(tmp_path: Path, workers: list[str]) -> None:
    ready, test = tmp_path / "READY", tmp_path / "test_endless.py"
    test.write_text(RUN.replace("READY", str(ready)))
    # Beside the run's own mark, which is not known here.
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    environ, silent = environment({"KILLED_RUN": mark}), subprocess.DEVNULL
    with subprocess.Popen(command(test, *workers), cwd=tmp_path, env=environ, stdout=silent, stderr=silent) as run:
        until(ready.exists, "the test has started its processes")
        # The run, its guardian, a stub edge, a child and a grandchild; and a worker.
        assert len(with_variable("KILLED_RUN", mark)) >= 5 + len(workers) // 2
        run.send_signal(signal.SIGKILL)
    until(lambda: not with_variable("KILLED_RUN", mark), "all processes of the run have gone")


def with_variable(name: str, value: str) -> list[int]:
    """Returns the processes with a value in their environment."""
    return [pid for pid, _ in marked_processes(value, variable=name)]


@pytest.mark.provokes_fault
def test_tests_that_leave_something_behind_fail_and_the_run_does(tmp_path: Path) -> None:
    test = tmp_path / "test_leaves.py"
    test.write_text(LEAVES)
    environ = environment({GRACE: "0.2"})
    run = subprocess.run(command(test), cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stdout
    assert "these processes outlived their tests" in run.stderr
    assert "are left: ['forgotten']" in run.stdout
    assert re.search(r"are left: \['pipe:\S+', 'pipe:\S+'\]", run.stdout)
    assert "the program failed: ['edgeburst: request_bug" in run.stdout
    assert re.search(r"the program failed: \[.*import logging.*: any: planner_bug", run.stdout)
    assert re.search(r"\b4 errors\b", run.stdout)


def test_a_guardian_that_is_not_needed_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARK, "")
    guardian = Guardian()
    assert guardian.survivors() == []
    guardian.close()
    assert guardian._process.poll() == 0
