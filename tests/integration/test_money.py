"""Real processes with cold starts and no edge: the daemon books what the platform's meter bills."""

from pathlib import Path

import pytest

from scripts.money.run import MEMORY_GB, Case, Outcome, run

PER_S = 1.27e-5 * MEMORY_GB
DELAY_S = 0.05
"""What the meter may see of each call beyond the container, on a machine with too many processes for its cores."""


def agrees(outcome: Outcome, *, within: float) -> bool:
    """Whether booked and metered money differ by that part, and by what delays between processes explain."""
    books = outcome.books
    delays = PER_S * DELAY_S * (books.invocations + books.initializers)
    return abs(books.total - books.metered) <= within * books.metered + delays


@pytest.mark.slow
def test_cold_bursts_are_booked_as_metered(tmp_path: Path) -> None:
    outcome = run(Case(seed=1, invocations=14, start_s=1.0), tmp_path)
    assert outcome.answered == outcome.requests
    assert outcome.books.initializers > 5
    assert outcome.books.booked["start"] > 0.3 * outcome.books.total
    assert outcome.books.booked.get("start-estimate", 0.0) == 0.0
    assert agrees(outcome, within=0.03), outcome.books
    assert not outcome.status["disbelieved"]


@pytest.mark.slow
def test_calls_that_crash_or_hang_are_estimated_close_to_what_is_metered(tmp_path: Path) -> None:
    outcome = run(Case(seed=2, invocations=16, start_s=1.0, misfortunes=0.6), tmp_path)
    assert outcome.answered < outcome.requests
    assert outcome.books.booked["start-estimate"] > 0.0
    assert agrees(outcome, within=0.15), outcome.books


@pytest.mark.slow
def test_bursts_on_instances_that_are_kept_send_no_warming_calls(tmp_path: Path) -> None:
    outcome = run(Case(seed=4, invocations=16, provisioned=2, start_s=0.5, slots=2), tmp_path)
    assert outcome.answered == outcome.requests
    assert outcome.status["engine"]["warming_calls"] == 0
    assert {row["what"] for row in outcome.batches} == {"call"}
    assert outcome.books.invocations == len(outcome.batches)
    assert "warming" not in outcome.books.booked


@pytest.mark.slow
def test_instances_that_are_kept_are_booked_while_they_are_idle(tmp_path: Path) -> None:
    outcome = run(Case(seed=3, invocations=10, provisioned=2, start_s=0.5), tmp_path)
    assert outcome.books.booked["provisioning"] > 0.0
    assert outcome.books.booked_idle == pytest.approx(outcome.books.metered_idle, rel=0.25)
