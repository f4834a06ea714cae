"""ONNX Runtime reports nothing to its maker, and leaves nothing in the home folder, unless that is asked for."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOAD = "from models.packages import needed; needed('onnxruntime', 'the test')"


def files_of_the_home(folder: Path, environ: dict[str, str]) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI")}
    homes = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    subprocess.run([sys.executable, "-c", LOAD], cwd=ROOT, env={**kept, **homes, **environ}, check=True)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_home_folder_stays_empty(tmp_path: Path) -> None:
    assert files_of_the_home(tmp_path, {}) == []


def test_another_choice_is_kept() -> None:
    look = "import models, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environ = {**os.environ, "ORT_DISABLE_TELEMETRY": "0"}
    said = subprocess.run(
        [sys.executable, "-c", look], cwd=ROOT, env=environ, check=True, capture_output=True, text=True
    )
    assert said.stdout == "0\n"
