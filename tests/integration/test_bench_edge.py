"""The measurements that start servers of their own print their tables, on a machine without a GPU too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUICK = ("--", "--decode-threads", "1", "--torch-threads", "1")


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.bench_edge", *options, *QUICK]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_a_server_is_compared_with_a_bare_loop() -> None:
    done = bench("--against-loop", "--models", "digits", "--seconds", "0.2", "--alternations", "1", "--items", "4")

    assert done.returncode in (0, 1), done.stderr  # how fast is not asserted
    columns, row = done.stdout.splitlines()
    assert columns.startswith("model   runtime               loop /s  edge /s  share")
    assert row.startswith("digits  onnxruntime cpu fp32")


def test_a_server_is_measured_alone_and_beside_a_loaded_one() -> None:
    done = bench("--isolation", "--seconds", "0.3")

    assert done.returncode == 0, done.stderr
    says, columns, alone, beside = done.stdout.splitlines()
    assert says.startswith("digits, batches of 1 one after the other; its neighbour is digits")
    assert columns.split("  ")[0] == "case"
    assert alone.startswith("alone  ")
    assert alone.endswith(" 0.0")
    assert beside.startswith("beside a loaded one  ")
    assert not beside.endswith(" 0.0")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--isolation", "--mps", "30"), "write off, or two percentages like 30,70"),
        (("--against-loop", "--models", "digit"), "did you mean 'digits'?"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(options: tuple[str, ...], words: str) -> None:
    done = bench(*options)

    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
