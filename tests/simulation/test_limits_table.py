"""The table of references: one line a row, each reference above the one that knows more, where they were seen."""

import os
from pathlib import Path

import pytest

from scripts.evaluation.options import NOISY
from scripts.limits import command


def figures(line: str) -> list[float]:
    return [float(cell) for cell in line.strip("| ").split("|")]


@pytest.mark.slow
def test_a_row_has_the_bound_below_the_limit_below_the_causal_policy() -> None:
    line = command.row(NOISY, None, slo_s=0.6, scale=3.0, requests=800, coarser=3)
    slo_s, scale, _, bound, known, w, judged, w_star, _ = figures(line)
    assert (slo_s, scale) == (0.6, 3.0)
    assert bound < known < judged
    assert 1.0 < w < 10.0
    assert 1.0 < w_star < 10.0


def test_the_trace_has_the_figures_that_are_published() -> None:
    """On a coarser grid and a fraction of the requests."""
    if "EDGEBURST_TRACES" not in os.environ:
        pytest.skip("set EDGEBURST_TRACES to the folder with the traces to run this")
    trace = Path(os.environ["EDGEBURST_TRACES"]) / "arrivals" / "twitter-15h-a.gaps"
    line = command.row(NOISY, trace, slo_s=0.6, scale=3.0, requests=1300, coarser=3)
    _, _, rate_rps, bound, known, _, judged, w_star, _ = figures(line)
    assert rate_rps == pytest.approx(140, abs=8)
    assert bound == pytest.approx(0.236, abs=0.05)
    assert known == pytest.approx(0.378, abs=0.06)
    assert judged == pytest.approx(0.403, abs=0.06)
    assert w_star == pytest.approx(2.8, abs=1.2)


def test_rows_are_read_from_the_command_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGEBURST_TRACES", raising=False)
    command.main(["--requests", "200", "--rows", "0.6x1.2", "--no-noise"])
    printed = capsys.readouterr().out
    assert "this repository's bursty traffic, 200 requests, noise 0 and 0, 99 % within the SLO" in printed
    assert figures(printed.splitlines()[-1])[:2] == [0.6, 1.2]


@pytest.mark.parametrize("rows", ["0.6", "", "0.6xfast", "0x2", "1x2x3"])
def test_a_row_that_cannot_be_read_is_said(rows: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--rows", rows])
    assert f"argument --rows: {rows!r} is no list of rows; give the SLO in seconds" in capsys.readouterr().err
