"""Sensitivity of tuning constants: they are found in the source, and a changed one reaches every use."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.sensitivity import constants, variants
from scripts.sensitivity.__main__ import changes, main, row
from scripts.sensitivity.constants import Constant, double, find_constants, half
from scripts.sensitivity.variants import Measured, Variant

SOURCE = '''"""Module."""
from math import inf

GAIN = 0.5
"""How fast it moves.

More words.
"""
COUNT: int = 3
DERIVED = GAIN / 2**2
PAIR = (1.0, 4)
NEVER = inf
LABEL, MARKS = "a", (1, "b")
NEGATIVE = -2
FLAG = True
lower = 1


def moved(by: float = GAIN) -> float:
    return by * DERIVED
'''
USER = "from scheduler_like.parts import GAIN, PAIR\n\nTHERE = (GAIN, PAIR)\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of two modules, one of which imports constants of the other by name; forgotten afterwards."""
    folder = tmp_path / "scheduler_like"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "parts.py").write_text(SOURCE)
    (folder / "user.py").write_text(USER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("scheduler_like")]:
        del sys.modules[name]


def test_numbers_and_tuples_of_numbers_are_found_with_their_first_line(package: Path) -> None:
    found = find_constants(package, ["scheduler_like/*.py"])
    assert [(c.name, c.value) for c in found] == [
        *(("GAIN", 0.5), ("COUNT", 3), ("DERIVED", 0.125), ("PAIR", (1.0, 4)), ("NEGATIVE", -2)),
    ]
    assert [c.meaning for c in found] == ["How fast it moves.", "", "", "", ""]
    assert {c.module for c in found} == {"scheduler_like.parts"}


def test_a_change_reaches_names_imported_by_others_defaults_and_derived_values(package: Path) -> None:
    gain = next(c for c in find_constants(package, ["scheduler_like/*.py"]) if c.name == "GAIN")
    sys.meta_path.insert(0, variants._ChangedFinder(Variant(gain, 8.0)))
    from scheduler_like import parts, user  # type: ignore[import-not-found]

    assert user.THERE == (8.0, (1.0, 4))
    assert parts.moved() == 8.0 * 2.0


def test_a_change_of_a_tuple_reaches_its_users(package: Path) -> None:
    pair = next(c for c in find_constants(package, ["scheduler_like/*.py"]) if c.name == "PAIR")
    sys.meta_path.insert(0, variants._ChangedFinder(Variant(pair, double(pair.value))))
    from scheduler_like import user

    assert user.THERE == (0.5, (2.0, 8))


def test_the_scheduler_has_constants_in_every_place_that_is_searched() -> None:
    places = {c.module.rpartition(".")[0] for c in find_constants()}
    assert {"scheduler", "scheduler.dispatch", "scheduler.estimators"} <= places


@pytest.mark.parametrize(
    ("value", "halved", "doubled"),
    [(0.3, 0.15, 0.6), (0.98, 0.49, 0.99), (5, 2, 10), (1, 1, 2), (0, 0, 0), ((0.2, 3), (0.1, 1), (0.4, 6))],
)
def test_whole_numbers_stay_whole_and_probabilities_stay_below_one(
    value: constants.Value, halved: constants.Value, doubled: constants.Value
) -> None:
    assert half(value) == pytest.approx(halved)
    assert double(value) == pytest.approx(doubled)


def test_a_row_says_what_changed_and_marks_what_changes_nothing() -> None:
    constant = Constant("scheduler.dispatch.part", "GAIN", 0.2, "")
    base = Measured(0.5, 0.99, ("a", "b"))
    moved, failed = Measured(0.6, 0.98, ("a", "c")), Measured(float("nan"), float("nan"), (), "ValueError: no")
    assert (changes(base, base), changes(base, moved), changes(base, failed)) == (0, 1, 2)
    assert row(constant, base, base, moved) == (
        "| dispatch.part `GAIN` | 0.2 | 0.1 | 0.5000 | 0.9900 | same | 0.4 | 0.6000 | 0.9800 | 1 of 2 |  |"
    )
    assert row(constant, base, base, base).endswith("| same | **none** |")
    assert "| ValueError: no |" in row(constant, base, failed, base)


def test_a_tiny_run_measures_each_variant_in_a_process_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    constant = next(
        c for c in find_constants() if c.module.startswith("scheduler.dispatch") and c.value != half(c.value)
    )
    assert main(["--only", constant.name, "--requests", "20", "--jobs", "2"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("As it is: cost ")
    assert f"`{constant.name}`" in shown
    assert constant.module not in vars(variants)


def test_an_unknown_name_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "NO_SUCH"]) == 2
    assert "NO_SUCH" in capsys.readouterr().err


def test_a_module_that_is_imported_already_is_refused() -> None:
    with pytest.raises(RuntimeError, match="fresh process"):
        variants.measure(Variant(Constant("scripts.sensitivity.variants", "LIMIT_S", 120, ""), 60))
