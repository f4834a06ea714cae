"""Money lent to other daemons: whatever is killed, cut off or late, all spend at most the cap and one slice."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.daemon.state import folder
from scheduler.daemon.state.lending import OWN, SILENT_S, Report, StaleReport
from scheduler.daemon.state.loans import AGAIN_S, MAX_BORROWERS, Caps, Loans, TooManyBorrowers
from scheduler.daemon.state.money import Leased, Money

START_S = 6_000_000.0
"""Whole buckets after the epoch."""


def memory_database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(folder._TABLES)
    connection.execute(folder._LOANS)
    return connection


@dataclass
class Borrower:
    """A process that borrows, as `borrowed.Borrower` counts."""

    process: str
    name: str = "b"
    number: int = 0
    received: float = 0.0
    left: float = 0.0
    reported: float = 0.0

    def report(self, amount: float) -> Report:
        self.number += 1
        spent = self.received - self.left
        return Report(self.name, self.process, self.number, amount, self.left, spent, unreported=spent - self.reported)

    def answered(self, report: Report, amount: float) -> None:
        self.received += amount
        self.left += amount
        self.reported = report.spent


@dataclass
class World:
    """A lender that spends itself, and borrowers, at the ledger's time; `spent` is what is true."""

    cap: float = 1.0
    connection: sqlite3.Connection = field(default_factory=memory_database)
    at_s: float = START_S
    spent: float = 0.0
    slice: float = 0.0
    """The largest that any borrower has held."""
    own_left: float = 0.0

    def __post_init__(self) -> None:
        self.caps = Caps(self.cap, None)
        self.restart()

    def restart(self) -> None:
        """The lender is killed, and starts again."""
        self.own_left = 0.0
        self.money = Money(self.connection, "CNY")
        self.loans = Loans(self.connection, self.money, "CNY")

    def ask(self, borrower: Borrower, amount: float, *, lost: bool = False) -> Leased:
        report = borrower.report(amount)
        leased = self.loans.lend(report, self.caps, at_s=self.at_s)
        assert leased.amount <= amount
        if not lost:
            borrower.answered(report, leased.amount)
        self.slice = max(self.slice, max((loan.held for loan in self.loans.alive(self.at_s)), default=0.0))
        return leased

    def own(self, amount: float) -> Leased:
        self.loans.expire(self.at_s)
        share = self.loans.share(OWN, self.at_s)
        leased = self.money.lease(
            amount, left=self.own_left, per_hour=self.cap, per_day=None, at_s=self.at_s, share=share
        )
        self.own_left += leased.amount
        return leased

    def spend(self, borrower: Borrower, amount: float) -> None:
        amount = min(amount, borrower.left)
        borrower.left -= amount
        self.spent += amount

    def booked(self) -> float:
        return float(self.connection.execute("SELECT total(amount) FROM leases").fetchone()[0])


steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["ask", "ask", "lost", "late", "spend", "spend", "kill", "wait", "wait", "restart", "own", "own spend"]
        ),
        st.integers(0, 2),
        st.floats(0.0, 1.0),
    ),
    max_size=80,
)


@given(steps)
def test_no_order_of_kills_restarts_and_late_reports_spends_more_than_the_cap_and_one_slice(
    plan: list[tuple[str, int, float]],
) -> None:
    world, processes, late = World(), 0, list[Report]()
    borrowers: list[Borrower] = []
    for _ in range(3):
        processes += 1
        borrowers.append(Borrower(f"{processes}"))
    for step, index, value in plan:
        borrower = borrowers[index]
        match step:
            case "ask":
                world.ask(borrower, 0.3 * value)
            case "lost":
                world.ask(borrower, 0.3 * value, lost=True)
            case "late":
                # One that is on its way arrives now, the next one sets out.
                for report in late:
                    try:
                        world.loans.lend(report, world.caps, at_s=world.at_s)
                    except StaleReport:
                        assert report.number <= max(b.number for b in borrowers if b.process == report.process)
                held = (loan.held for loan in world.loans.alive(world.at_s))
                world.slice = max(world.slice, max(held, default=0.0))
                late = [borrower.report(0.3 * value)]
            case "spend":
                world.spend(borrower, value)
            case "kill":
                processes += 1
                late = [report for report in late if report.process != borrower.process]
                borrowers[index] = Borrower(f"{processes}")
            case "wait":
                world.at_s += 2 * SILENT_S * value
                world.loans.expire(world.at_s)
            case "restart":
                world.restart()
            case "own":
                world.own(0.3 * value)
            case _:
                part = value * max(0.0, world.own_left)
                world.own_left -= part
                world.spent += part
        assert world.spent <= world.cap + world.slice + 1e-9
        # What is booked is what was granted, but for what is in doubt.
        assert world.booked() <= world.cap + world.slice + 1e-9


def test_a_borrower_that_is_killed_leaves_what_it_reported_as_left_after_ten_seconds() -> None:
    world, one, two = World(), Borrower("1"), Borrower("2")
    world.ask(one, 0.4)
    world.spend(one, 0.1)
    world.ask(one, 0.0)
    world.at_s += SILENT_S - 0.1
    assert world.ask(two, 0.2).amount == pytest.approx(0.2)
    assert world.booked() == pytest.approx(0.6)
    world.at_s += 0.2
    world.loans.expire(world.at_s)
    assert world.booked() == pytest.approx(0.3)
    assert [row["silent"] for row in world.loans.rows(world.at_s)] == [True, False]


def test_a_borrower_that_was_only_cut_off_has_what_it_spent_booked_whatever_the_cap() -> None:
    world, one, two = World(), Borrower("1"), Borrower("2")
    world.ask(one, 0.3)
    world.at_s += SILENT_S
    world.ask(two, 1.0)
    world.spend(two, 1.0)
    world.spend(one, 0.3)
    world.ask(two, 0.0)
    assert world.booked() == pytest.approx(1.0)
    assert world.ask(one, 0.1).amount == 0.0
    assert world.booked() == pytest.approx(1.3)
    assert world.spent == pytest.approx(world.cap + world.slice - 0.7)


def test_only_one_slice_is_in_doubt_at_a_time() -> None:
    world = World()
    for process in "123":
        world.ask(Borrower(process), 0.2)
    world.at_s += SILENT_S
    world.loans.expire(world.at_s)
    assert world.booked() == pytest.approx(0.4)


def test_an_answer_that_got_lost_is_corrected_by_the_next_report() -> None:
    world, one = World(), Borrower("1")
    world.ask(one, 0.4, lost=True)
    assert world.booked() == pytest.approx(0.4)
    world.ask(one, 0.0)
    assert world.booked() == 0.0


def test_a_report_that_was_overtaken_is_refused_and_changes_nothing() -> None:
    world, one = World(), Borrower("1")
    old = one.report(0.5)
    world.ask(one, 0.2)
    with pytest.raises(StaleReport):
        world.loans.lend(old, world.caps, at_s=world.at_s)
    assert world.booked() == pytest.approx(0.2)


def test_a_report_that_was_overtaken_is_no_sign_of_life() -> None:
    world, one = World(), Borrower("1")
    old = one.report(0.5)
    world.ask(one, 0.2)
    world.at_s += SILENT_S - 0.1
    with pytest.raises(StaleReport):
        world.loans.lend(old, world.caps, at_s=world.at_s)
    assert [row["heard_s_ago"] for row in world.loans.rows(world.at_s)] == [pytest.approx(SILENT_S - 0.1)]
    world.at_s += 0.2
    world.loans.expire(world.at_s)
    assert world.booked() == 0.0


def test_a_restart_of_the_lender_forgets_nothing() -> None:
    world, one = World(), Borrower("1")
    world.ask(one, 0.4)
    world.spend(one, 0.1)
    world.restart()
    world.at_s += SILENT_S - 1.0
    world.loans.expire(world.at_s)
    world.ask(one, 0.1)
    assert world.booked() == pytest.approx(0.5)


def test_what_was_spent_beyond_the_slice_is_booked_whatever_the_cap() -> None:
    world, one = World(), Borrower("1")
    world.ask(one, 1.0)
    one.left -= 1.2
    assert world.ask(one, 0.5).amount == pytest.approx(0.2)
    assert (world.booked(), one.left) == (pytest.approx(1.2), pytest.approx(0.0))


def test_bills_that_were_lower_and_money_given_back_return_to_the_ledger() -> None:
    world, one = World(), Borrower("1")
    world.ask(one, 0.4)
    world.spend(one, 0.4)
    world.ask(one, 0.0)
    one.left += 0.3
    one.left, one.received = 0.1, one.received - 0.2
    world.ask(one, 0.0)
    assert world.booked() == pytest.approx(0.2)


def test_near_the_caps_end_daemons_that_ask_alike_get_alike() -> None:
    world, one, two = World(), Borrower("1"), Borrower("2")
    got = {"1": 0.0, "2": 0.0, OWN: 0.0}
    for _ in range(200):
        # The first asks more often and so at every chance first.
        for borrower in (one, one, two):
            got[borrower.process] += world.ask(borrower, 0.01).amount
            world.spend(borrower, 1.0)
        got[OWN] += world.own(0.01).amount
        world.own_left = 0.0
        world.at_s += 0.2
    assert math.fsum(got.values()) == pytest.approx(1.0)
    assert got["2"] == pytest.approx(got[OWN], abs=0.011)
    assert 0.2 < got["2"] < 0.34 < got["1"] < 0.51


def test_the_daemon_that_had_less_in_the_last_minute_gets_the_rest_of_the_cap() -> None:
    world, one, two = World(), Borrower("1"), Borrower("2")
    assert world.ask(one, 0.9).amount == pytest.approx(0.9)
    world.spend(one, 1.0)
    assert world.ask(two, 0.2).amount == pytest.approx(0.1)
    taken = world.ask(one, 0.2)
    assert (taken.amount, taken.closed_by) == (0.0, "hour")
    assert taken.opens_in_s <= AGAIN_S


def test_what_the_others_do_not_want_may_be_had_by_one() -> None:
    world, one, two = World(), Borrower("1"), Borrower("2")
    world.ask(two, 0.01)
    world.at_s += 2.0 * SILENT_S
    world.ask(two, 0.0)
    got = sum(world.ask(one, 0.3).amount for _ in range(4))
    assert got == pytest.approx(0.99)


def test_a_sixty_fifth_borrower_is_refused_until_one_has_gone() -> None:
    world = World()
    for number in range(MAX_BORROWERS):
        world.ask(Borrower(f"p{number}"), 0.001)
    with pytest.raises(TooManyBorrowers):
        world.ask(Borrower("one more"), 0.001)
    world.at_s += SILENT_S
    world.ask(Borrower("one more"), 0.001)


def test_processes_that_are_refused_leave_nothing() -> None:
    world = World()
    for number in range(MAX_BORROWERS):
        world.ask(Borrower(f"p{number}"), 0.001)
    known = set(world.loans._heard_at_s)
    for number in range(10):
        with pytest.raises(TooManyBorrowers):
            world.ask(Borrower(f"refused {number}"), 0.001)
    assert set(world.loans._heard_at_s) == known


def test_a_process_that_a_full_disk_refuses_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world, one = World(), Borrower("1")
    world.ask(one, 0.2)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(world.loans, "_write", full)
    world.at_s += SILENT_S - 0.1
    for borrower in (one, Borrower("2")):
        with pytest.raises(sqlite3.OperationalError):
            world.ask(borrower, 0.2)
    assert world.loans._heard_at_s == {"1": world.at_s}


def test_an_idle_borrower_writes_nothing() -> None:
    world, one = World(), Borrower("1")
    world.ask(one, 0.4)
    before = world.connection.total_changes
    world.at_s += 1.0
    world.ask(one, 0.0)
    assert world.connection.total_changes == before


def test_accounts_of_a_day_ago_are_dropped() -> None:
    world = World()
    world.ask(Borrower("1"), 0.4)
    world.ask(Borrower("2"), 0.4)
    world.at_s += SILENT_S
    world.loans.expire(world.at_s)
    world.at_s += 90_000.0
    world.ask(Borrower("3"), 0.1)
    assert [row["name"] for row in world.loans.rows(world.at_s)] == ["b"]
    assert world.connection.execute("SELECT count(*) FROM loans").fetchone() == (1,)
