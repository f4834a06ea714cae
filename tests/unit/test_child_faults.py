"""A fault that any process of a test logs is kept for the test: whatever its log is, and whatever has started it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import child_faults
from support.daemon_process import environment
from support.hygiene import CHILDREN, FaultsOfChildren
from support.without_packages import without

from scripts.demo.processes import child_environment
from scripts.restarts import _process

FAULTY = "import logging; logging.getLogger('edgeburst').error('planner_bug'); logging.getLogger('other').error('well')"
FUNCTION = (
    "import traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    traceback.print_exc()\nprint('{}', flush=True)\n"
)


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FaultsOfChildren:
    """Another folder than that of this run, which would fail for what these tests do."""
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv(CHILDREN, "")
    return FaultsOfChildren(tmp_path / "children")


def run(code: str, environ: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-c", code], env=environ, stderr=subprocess.DEVNULL, check=True)


@pytest.mark.parametrize("kind", ["ours", "plain", "demo", "without packages"])
def test_a_process_with_any_environment_keeps_what_it_logs(faults: FaultsOfChildren, tmp_path: Path, kind: str) -> None:
    (tmp_path / "site").mkdir()
    run(
        FAULTY,
        {
            "ours": lambda: environment({}),
            "plain": lambda: dict(os.environ),
            "demo": lambda: child_environment(os.environ),
            "without packages": lambda: environment(without(tmp_path / "site", ["cv2"])),
        }[kind](),
    )
    [line] = faults.take()
    assert line.endswith("edgeburst: planner_bug:")
    assert faults.take() == []


def test_what_a_restarted_daemon_and_a_container_log_is_kept(faults: FaultsOfChildren, tmp_path: Path) -> None:
    with _process([sys.executable, "-c", f"{FAULTY}\nprint('{{}}', flush=True)"], tmp_path / "log"):
        pass
    assert len(faults.take()) == 1
    (tmp_path / "serverless_fn").mkdir()
    (tmp_path / "serverless_fn" / "__init__.py").write_text("")
    (tmp_path / "serverless_fn" / "app.py").write_text(FUNCTION)
    run(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import serverless_fn.app", environment({}))
    assert ["ZeroDivisionError" in line for line in faults.take()] == [True]


def test_a_line_of_another_level_or_event_is_no_fault() -> None:
    import logging

    def record(level: int, message: str) -> logging.LogRecord:
        return logging.LogRecord("any", level, "", 0, message, (), None)

    assert child_faults.fault(record(logging.ERROR, "request_bug")) == "any: request_bug: "
    assert child_faults.fault(record(logging.ERROR, "Exception on /v2 [GET]"))
    assert not child_faults.fault(record(logging.INFO, "request_bug"))
    assert not child_faults.fault(record(logging.ERROR, "batch_failed"))
