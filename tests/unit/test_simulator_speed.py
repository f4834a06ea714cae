"""The measurement of the simulator's speed: a line for each number of edge servers, errors in one sentence."""

import pytest

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
