"""The demo's processes: real ones, that get ready, die early, hang on, or are left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.hygiene import python_path

from scripts.demo.errors import DemoError
from scripts.demo.processes import Processes

LIMIT_S = 30.0
READY = 'print(\'{"event": "ready", "port": 7}\', flush=True)\n'
STAYS = "import signal\nsignal.pause()\n"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    (tmp_path / "gets_ready.py").write_text('print("hello")\n' + READY + STAYS, encoding="utf-8")
    (tmp_path / "dies.py").write_text("import sys\nsys.exit('the port is in use')\n", encoding="utf-8")
    (tmp_path / "silent.py").write_text(STAYS, encoding="utf-8")
    (tmp_path / "half.py").write_text("print('{\"event\": \"rea', end='', flush=True)\n" + STAYS, encoding="utf-8")
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + "while True: signal.pause()\n"
    (tmp_path / "stubborn.py").write_text(stubborn, encoding="utf-8")
    return tmp_path


@pytest.fixture
def environment(programs: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": python_path(programs)}


def test_a_ready_line_is_found_among_others_and_leaving_the_block_stops_the_process(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    with Processes(tmp_path / "logs", environment) as processes:
        running = processes.start("one", ["gets_ready"])
        assert running.wait_for("ready", limit_s=LIMIT_S)["port"] == 7
        assert running.process.poll() is None
    assert running.process.returncode == -signal.SIGTERM


def test_a_process_that_dies_early_is_told_with_its_last_words(tmp_path: Path, environment: dict[str, str]) -> None:
    with Processes(tmp_path / "logs", environment) as processes, pytest.raises(DemoError, match="port is in use; see"):
        processes.start("one", ["dies"]).wait_for("ready", limit_s=LIMIT_S)


@pytest.mark.parametrize("program", ["silent", "half"])
def test_a_process_that_is_never_ready_is_told(tmp_path: Path, environment: dict[str, str], program: str) -> None:
    with Processes(tmp_path / "logs", environment) as processes, pytest.raises(DemoError, match="not ready within"):
        processes.start("one", [program]).wait_for("ready", limit_s=0.3)


def test_a_measurement_that_fails_is_told(tmp_path: Path, environment: dict[str, str]) -> None:
    with Processes(tmp_path / "logs", environment) as processes, pytest.raises(DemoError, match="one failed: the port"):
        processes.start("one", ["dies"]).wait_to_end(limit_s=LIMIT_S)


def test_a_process_that_ignores_sigterm_is_killed_after_the_limit(tmp_path: Path, environment: dict[str, str]) -> None:
    with Processes(tmp_path / "logs", environment) as processes:
        running = processes.start("one", ["stubborn"])
        running.wait_for("ready", limit_s=LIMIT_S)
        assert running.stop(limit_s=0.1) == -signal.SIGKILL


def test_an_error_in_the_block_stops_the_processes_too(tmp_path: Path, environment: dict[str, str]) -> None:
    processes = Processes(tmp_path / "logs", environment)
    running = processes.start("one", ["gets_ready"])
    with pytest.raises(DemoError), processes:
        running.wait_for("never printed", limit_s=0.1)
    assert running.process.returncode is not None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_PDEATHSIG is Linux's")
def test_a_demo_that_is_killed_leaves_no_process_behind(tmp_path: Path, environment: dict[str, str]) -> None:
    starter = (
        "import os, sys\nfrom pathlib import Path\nfrom scripts.demo.processes import Processes\n"
        f"running = Processes(Path({str(tmp_path / 'logs')!r}), dict(os.environ)).start('one', ['gets_ready'])\n"
        f"running.wait_for('ready', limit_s={LIMIT_S})\nprint(running.process.pid, flush=True)\nsys.stdin.read()\n"
    )
    root = Path(__file__).parents[2]
    path = os.pathsep.join((environment["PYTHONPATH"], str(root)))
    parent = subprocess.Popen(
        [sys.executable, "-c", starter],
        env={**environment, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    assert psutil.wait_procs([child], timeout=LIMIT_S)[1] == []
