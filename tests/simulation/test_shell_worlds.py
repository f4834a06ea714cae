"""The whole daemon keeps its promises in random worlds, some the same and some fresh; each planted fault is found."""

from pathlib import Path
from secrets import randbelow

import pytest

from scripts.soak import planted, script, shrinking, sites
from scripts.soak.__main__ import run_seeds
from scripts.soak.running import broken_by

FIXED = 16
FRESH = 16


@pytest.fixture(autouse=True)
def replays() -> None:
    """In place of this folder's: the worlds watch their own engines."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sites.write_profiles(tmp_path)
    return tmp_path


def test_the_promises_hold_in_the_same_worlds_each_time(folder: Path) -> None:
    assert run_seeds(range(FIXED), folder).violations == []


def test_the_promises_hold_in_fresh_worlds(folder: Path) -> None:
    seeds = [randbelow(2**40) for _ in range(FRESH)]
    found = run_seeds(seeds, folder).violations
    assert found == [], f"again: {[f'python -m scripts.soak --seed {seed}' for seed, _ in found]}"


def test_a_seed_is_one_world(folder: Path) -> None:
    first, second = (broken_by(script.draw(3), folder)[1] for _ in range(2))
    assert first.report == second.report
    assert first.trace(10_000) == second.trace(10_000)


def test_money_that_is_lent_and_not_written_down_is_missed_when_the_next_process_begins(folder: Path) -> None:
    kills = next(made for made in map(script.draw, range(1000)) if made.site.state and made.site.per_hour == 8e-4)
    assert broken_by(kills, folder)[0] == ""
    with planted.planted("lease-not-kept"):
        assert "the state folder holds 0" in broken_by(kills, folder)[0]


def test_a_script_is_shortened_to_what_breaks_the_promise() -> None:
    made = script.draw(5)
    calls = [number for number, event in enumerate(made.events) if event.call is not None]
    needed = made.events[calls[3]], made.events[calls[-2]]

    def broken(candidate: script.Script) -> str:
        return "request 7 is lost" if all(event in candidate.events for event in needed) else ""

    shorter = shrinking.shrunk(made, "request 9 is lost", broken)
    assert (shorter.events, shorter.faults) == (needed, ())


@pytest.mark.parametrize("name", planted.FAULTS)
def test_a_planted_fault_changes_what_it_names_and_is_taken_out_again(name: str) -> None:
    owners = [(owner, attribute, getattr(owner, attribute)) for owner, attribute, _ in planted.FAULTS[name]]
    with planted.planted(name):
        assert [getattr(owner, attribute) is original for owner, attribute, original in owners] == [False] * len(owners)
    assert [getattr(owner, attribute) is original for owner, attribute, original in owners] == [True] * len(owners)
