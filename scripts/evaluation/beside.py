"""The required figures of two runs of the evaluation, side by side."""

import csv
from collections.abc import Sequence
from pathlib import Path

from scheduler.domain.errors import EdgeburstError
from scripts.evaluation.case import Figure, Row
from scripts.evaluation.figures import figures_of
from scripts.evaluation.tables import Table

CSV = "evaluation.csv"


def read_rows(folder: Path) -> list[Row]:
    """Returns the rows of an earlier run.

    Args:
        folder: what was given to it with --out.

    Raises:
        EdgeburstError: the folder has no CSV file of the evaluation.
    """
    path = folder / CSV
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{key: _value(text) for key, text in line.items() if text} for line in csv.DictReader(file)]
    except OSError as error:
        raise EdgeburstError(f"cannot read {path}: {error.strerror}; name the --out folder of an earlier run") from None
    if not rows or not all({"suite", "case", "policy"} <= row.keys() for row in rows):
        raise EdgeburstError(f"{path} has no rows of the evaluation; name the --out folder of an earlier run")
    return [{"variant": "", "on_trace": False, **row} for row in rows]


def _value(text: str) -> object:
    if text in ("True", "False"):
        return text == "True"
    try:
        return float(text)
    except ValueError:
        return text


def beside_table(before: Sequence[Row], rows: Sequence[Row], *, name: str) -> Table:
    """Returns the figures of an earlier run beside those of this one, in this one's order; then those that only it has.

    Args:
        before: rows of the earlier run.
        rows: rows of this run.
        name: of the earlier run.
    """
    then, now = ({figure.asked: figure for figure in figures_of(some)} for some in (before, rows))
    lines = tuple((asked, _cell(then.get(asked)), _cell(now.get(asked))) for asked in dict.fromkeys((*now, *then)))
    note = "A figure counts as the same if it was asked in the same words: bounds and traffic are part of them."
    return Table("Figures before and now", note, ("asked", name, "now"), lines)


def _cell(figure: Figure | None) -> str:
    if figure is None or figure.ok is None:
        return "not measured" if figure is None or not figure.measured else figure.measured
    return figure.measured if figure.ok else f"{figure.measured} **missed**"
