"""Every Dockerfile passes the linter."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from string import Template

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("edge_server", "serverless_fn", "scheduler", "scripts")
DOCKERFILES = sorted(
    path.relative_to(ROOT)
    for folder in (ROOT / name for name in FOLDERS)
    for path in folder.rglob("*Dockerfile*")
    if path.suffix != ".dockerignore"
)


def linter() -> str:
    beside_python = Path(sys.executable).with_name("hadolint")
    found = str(beside_python) if beside_python.exists() else shutil.which("hadolint")
    if found is None:
        pytest.skip("hadolint is not installed (it comes with the extra 'dev')")
    return found


def test_the_edge_server_has_one() -> None:
    assert Path("edge_server/Dockerfile") in DOCKERFILES


@pytest.mark.parametrize("path", DOCKERFILES, ids=str)
def test_dockerfile_is_clean(path: Path) -> None:
    lint = subprocess.run(
        [linter(), "--no-color", str(path)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert lint.returncode == 0, lint.stdout + lint.stderr
    assert lint.stdout == ""


def test_the_image_of_the_edge_server_asks_for_a_token() -> None:
    lines = (ROOT / "edge_server" / "Dockerfile").read_text().splitlines()
    assert lines[-2:] == ['ENTRYPOINT ["edgeburst-edge", "--host", "0.0.0.0"]', 'CMD ["--token-env", "EDGE_TOKEN"]']


@pytest.mark.parametrize("path", DOCKERFILES, ids=str)
def test_the_program_in_a_container_runs_as_a_user(path: Path) -> None:
    lines = (ROOT / path).read_text().splitlines()
    users = [(index, line.split()[1]) for index, line in enumerate(lines) if line.startswith("USER ")]
    started = [index for index, line in enumerate(lines) if line.startswith(("CMD", "ENTRYPOINT"))]
    assert users
    last, user = users[-1]
    # By number, so that a cluster that forbids root can see that it is none.
    assert user.isdecimal()
    assert int(user) > 0
    assert started
    assert last < started[0]
    assert [line for line in lines[last:] if line.startswith(("RUN", "FROM"))] == []


@pytest.mark.parametrize("path", DOCKERFILES, ids=str)
def test_what_a_dockerfile_copies_exists(path: Path) -> None:
    lines = (ROOT / path).read_text().splitlines()
    arguments = dict(line[4:].split("=", 1) for line in lines if line.startswith("ARG ") and "=" in line)
    copied = [
        Template(source).substitute(arguments)
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
        if not source.startswith("--")
    ]

    assert [source for source in copied if not (ROOT / source).exists()] == []
