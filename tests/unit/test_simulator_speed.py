"""The measurement of the simulator's speed: a line for each number of edge servers, errors in one sentence."""

import sys
from pathlib import Path

import pytest

from scripts import simulator_speed
from scripts.simulator_speed import main


def test_it_prints_a_line_for_each_number_of_edge_servers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--policy", "slots", "--edges", "1,3", "--requests", "200"]) == 0
    printed = capsys.readouterr().out
    assert "Speed of the simulator, slots, 200 requests" in printed
    rows = [line.split(" | ") for line in printed.splitlines() if line[:3] in ("| 1", "| 3")]
    assert [row[1] for row in rows] == ["112", "336"]
    assert all(row[-1].startswith("0.") for row in rows)


@pytest.mark.parametrize("wrong", [["--edges", "x"], ["--policy", "edf", "--edges", "2"]])
def test_what_cannot_be_simulated_is_said_in_one_sentence(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*wrong, "--requests", "20"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1


def test_checkouts_and_interpreters_are_compared_in_turns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulator_speed, "TURNS", 1)
    root = Path(__file__).parents[2]
    assert main(["--requests", "20", "--against", str(root), "--compiled", sys.executable]) == 0
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["here, pure", "compiled", str(root)]
    assert rows[2][2] == "1.00"
    speeds = [float(row[1].replace(",", "")) for row in rows]
    assert [float(row[2]) for row in rows] == pytest.approx([speed / speeds[2] for speed in speeds], rel=0.02)


def test_an_interpreter_that_cannot_simulate_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--requests", "20", "--compiled", str(tmp_path / "python")]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: compiled: ")
    assert message.count("\n") == 1
