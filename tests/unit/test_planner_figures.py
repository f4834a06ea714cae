"""Planning is timed here and in another checkout, and the answers are compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from scheduler.domain.errors import EdgeburstError
from scripts import planner_figures


def test_a_checkout_plans_as_itself(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner_figures, "TURNS", 1)
    assert planner_figures.against(str(planner_figures.ROOT)) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == list(planner_figures.ASKED_AGAINST)
    assert all(row.endswith("| same |") for row in rows)


def test_other_answers_are_shown_and_fail(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([{"x": (2.0, 1.5)}, {"x": (1.0, 1.25)}])
    monkeypatch.setattr(planner_figures, "TURNS", 1)
    monkeypatch.setattr(planner_figures, "_times_in", lambda _: next(times))
    assert planner_figures.against(str(planner_figures.ROOT)) == 1
    assert capsys.readouterr().out.splitlines()[2] == "| x | 2000.0 | 1000.0 | 0.50 |  | 1.25 for 1.5 |"


def test_a_folder_that_is_no_checkout_is_named(tmp_path: Path) -> None:
    with pytest.raises(EdgeburstError, match=f"{tmp_path} has no scheduler/engine.py"):
        planner_figures.against(str(tmp_path))
