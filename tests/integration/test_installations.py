"""A host with some of the packages: what it lacks is one sentence and exit status 2, as is a numpy that cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.hygiene import python_path
from support.without_packages import BEYOND_CLIENT, CLIENT, without

NUMPY_1_PAGE = """
import sys
sys.stderr.write('''
A module that was compiled using NumPy 1.x cannot be run in
NumPy 2.2.6 as it may crash. To support both 1.x and 2.x
versions of NumPy, modules must be compiled with NumPy 2.0.
''' + 'Traceback (most recent call last):  File "x", line 1, in y\\n' * 50)
"""
"""What numpy 2 says while a module that was built for numpy 1 is imported."""


def run(folder: Path, environ: Mapping[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def sentence_of(finished: subprocess.CompletedProcess[str]) -> str:
    assert finished.returncode == 2, finished.stderr
    lines = finished.stderr.strip().splitlines()
    assert len(lines) == 1, finished.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["edge_server"], "edgeburst-edge: the server needs the Python package 'flask': {}'.[edge]'"),
        (["serverless_fn"], "edgeburst-function needs the Python package 'flask': {}'.[function]'"),
        (["models", "check", "DIGITS"], "edgeburst-model: model digits needs onnxruntime, which is not usable here"),
        (["scheduler.cli", "model", "check", "DIGITS"], "edgeburst-model: model digits needs onnxruntime"),
    ],
)
def test_on_a_client_host_the_commands_of_other_hosts_name_their_extra(
    tmp_path: Path, command: list[str], sentence: str
) -> None:
    digits = Path(__file__).parents[2] / "models" / "shipped" / "digits"
    given = [str(digits) if word == "DIGITS" else word for word in command]
    told = sentence_of(run(tmp_path, without(tmp_path, BEYOND_CLIENT), *given))
    assert told.startswith(sentence.format("install it from the source tree with pip install "))


@pytest.mark.parametrize(
    "command",
    [
        ["serve", "--config", "x.toml"],
        ["check-config", "--config", "x.toml"],
        ["replay", "--url", "http://127.0.0.1:1", "--model", "digits", "--rps", "1", "--duration-s", "1"],
        ["profile", "edge", "--url", "http://127.0.0.1:1", "--model", "digits", "--out", "x.json"],
        ["plan", "--apps", "apps.toml", "--profile", "p.json"],
        ["explain", "1"],
        ["fc", "apply", "x.toml"],
    ],
    ids=lambda command: command[0],
)
def test_with_the_base_requirements_alone_the_clients_commands_name_the_extra(
    tmp_path: Path, command: list[str]
) -> None:
    absent = without(tmp_path, (*BEYOND_CLIENT, *CLIENT))
    told = sentence_of(run(tmp_path, absent, "scheduler.cli", *command))
    assert told.startswith(f"edgeburst: `edgeburst {command[0]}` needs the Python package ")
    assert told.endswith("pip install '.[client]'")


def test_the_local_endpoint_names_the_clients_extra(tmp_path: Path) -> None:
    absent = without(tmp_path, (*BEYOND_CLIENT, *CLIENT))
    told = sentence_of(run(tmp_path, absent, "serverless_fn.local_fc", "--config", "x.toml"))
    assert told.endswith("pip install '.[client]'")


def test_a_board_without_opencv_is_told_where_to_get_it(tmp_path: Path) -> None:
    told = sentence_of(run(tmp_path, without(tmp_path, ["cv2"]), "edge_server", "--port", "0"))
    assert "needs cv2" in told
    assert "pip install '.[opencv]' from the source tree, or on a board apt install python3-opencv" in told


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("cv2", "raise ImportError('numpy.core.multiarray failed to import')"),
        (
            "torch",
            "class zeros:\n    def __init__(self, size): pass\n"
            "    def numpy(self): raise RuntimeError('Numpy is not available')",
        ),
    ],
)
def test_a_package_that_was_built_for_another_numpy_is_one_sentence_not_its_page(
    tmp_path: Path, name: str, module: str
) -> None:
    (tmp_path / f"{name}.py").write_text(NUMPY_1_PAGE + module)
    root = Path(__file__).parents[2]
    script = tmp_path / "start.py"
    script.write_text(
        "import sys\nfrom models.errors import ModelError\nfrom models.packages import needed\n"
        f"try:\n    needed({name!r}, 'the server')\n"
        "except ModelError as error:\n    sys.exit(print(error, file=sys.stderr) or 2)\n"
    )
    told = sentence_of(run(tmp_path, {"PYTHONPATH": python_path(tmp_path, root)}, "start"))
    assert told.startswith(f"the server needs {name}, which was built for numpy 1 here and does not work with numpy ")
    assert "pip install 'numpy<2'" in told


def test_the_edge_starts_no_server_on_a_board_whose_opencv_was_built_for_another_numpy(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text(NUMPY_1_PAGE + "raise ImportError('numpy.core.multiarray failed to import')")
    root = Path(__file__).parents[2]
    environ = {"PYTHONPATH": python_path(tmp_path, root)}
    told = sentence_of(run(tmp_path, environ, "edge_server", "--port", "0"))
    assert told.startswith("edgeburst-edge: the server needs cv2, which was built for numpy 1 here")
