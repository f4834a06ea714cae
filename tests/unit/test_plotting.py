"""Plots need an extra: a command that is to draw one without it says so in a sentence, before any work is done."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scheduler import cli
from scheduler.domain.errors import EdgeburstError
from scheduler.plotting import new_figure

SENTENCE = (
    "edgeburst: --plot needs the extra `plots` (the Python package matplotlib): install it from the source tree with"
    " pip install '.[plots]', or leave the plot out\n"
)


@pytest.mark.parametrize(
    "words",
    [
        # Neither is there; that is not looked at yet.
        ["profile", "edge", "--url", "http://127.0.0.1:9"],
        ["plan", "--apps", "nothing.toml", "--profile", "nothing.json"],
    ],
)
def test_a_plot_without_matplotlib_is_one_sentence_that_names_the_extra(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main([*words, "--plot", str(tmp_path / "plot.png")]) == 2
    assert capsys.readouterr().err == SENTENCE
    with pytest.raises(EdgeburstError, match=r"the demo needs the extra `plots`"):
        new_figure("the demo", width_in=1, height_in=1)


def test_a_figure_has_its_size_and_is_saved_by_its_suffix(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure = new_figure("a test", width_in=3, height_in=2)
    figure.savefig(tmp_path / "plot.svg")
    assert figure.get_size_inches().tolist() == [3.0, 2.0]
    assert b"<svg" in (tmp_path / "plot.svg").read_bytes()
