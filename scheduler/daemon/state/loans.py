"""The accounts of borrowing daemons in the state database, beside the ledger that they borrow from."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass, replace

from scheduler.daemon.state.lending import (
    OWN,
    SILENT_S,
    Change,
    Loan,
    Report,
    Share,
    Sharing,
    gone_silent,
    lent,
    settled,
)
from scheduler.daemon.state.money import DAY_BUCKETS, Leased, Money

MAX_BORROWERS = 64
"""Processes that borrow at a time."""
MAX_GONE = 1024
"""Accounts of processes that are gone and may come back."""
AGAIN_S = 10.0
"""Longest until a daemon asks again for money of a ledger that it shares: others may give some back."""
_COLUMNS = "process, name, number, held, bucket, spent, booked, silent, doubt"


class TooManyBorrowers(Exception):
    """Error: no further process may borrow."""


@dataclass(frozen=True, slots=True)
class Caps:
    """What all daemons together may spend."""

    per_hour: float | None
    per_day: float | None


class Loans:
    """Lends money out of a ledger. Each call is one transaction; times are those of the ledger."""

    def __init__(self, connection: sqlite3.Connection, money: Money, currency: str) -> None:
        """Stores where to read and write.

        Args:
            connection: of the state database.
            money: the ledger in it.
            currency: of the caps.
        """
        self._connection = connection
        self._money = money
        self._currency = currency
        self._sharing = Sharing()
        self._loans: dict[str, Loan] = {}
        """By process, as they are in the database but for the numbers of reports that changed nothing."""
        self._heard_at_s: dict[str, float] = {}
        """By process; after a start of this one, each was heard at the first call."""
        with closing(
            connection.execute(f"SELECT {_COLUMNS} FROM loans WHERE currency = ?", (currency,))  # noqa: S608
        ) as rows:
            for process, name, number, held, bucket, spent, booked, silent, doubt in rows:
                self._loans[process] = Loan(
                    name, process, number, held, bucket, spent, booked, silent=bool(silent), doubt=doubt
                )

    def lend(self, report: Report, caps: Caps, *, at_s: float) -> Leased:
        """Takes up a report and lends as much of what it asks for as the caps allow.

        Raises:
            StaleReport: a later report of the process was taken up.
            TooManyBorrowers: as many as may borrow do.
        """
        before = self._loans.get(report.process)
        if before is None and len(self.alive(at_s)) >= MAX_BORROWERS:
            raise TooManyBorrowers
        bucket = self._money.bucket(at_s)
        change = settled(before, report, bucket=bucket)
        if before is not None:
            # Also where the disk refuses what follows.
            self._heard_at_s[report.process] = at_s
        debt = max(0.0, -report.left)
        wanted = max(0.0, report.amount - debt)
        silent = self._newly_silent(at_s, all_but=report.process)
        if not wanted and not silent and before is not None and before == replace(change.loan, number=before.number):
            # Nothing to write: an idle borrower costs the disk nothing.
            self._loans[report.process] = change.loan
            return Leased(min(report.amount, debt))
        leased = Leased(0.0)
        with self._money.transaction():
            made = [*silent, change]
            for each in made:
                self._write(each)
            if wanted:
                leased = self._money.allowed(
                    wanted,
                    per_hour=caps.per_hour,
                    per_day=caps.per_day,
                    at_s=at_s,
                    bucket=bucket,
                    share=self.share(report.process, at_s),
                )
                made.append(lent(change.loan, leased.amount, bucket=bucket))
                self._write(made[-1])
        for each in made:
            self._loans[each.loan.process] = each.loan
        self._heard_at_s[report.process] = at_s
        self._forget(bucket)
        given = min(report.amount, leased.amount + debt)
        return Leased(given, leased.closed_by, min(leased.opens_in_s, AGAIN_S))

    def expire(self, at_s: float) -> None:
        """Takes back what borrowers hold that have gone silent."""
        silent = self._newly_silent(at_s)
        if silent:
            with self._money.transaction():
                for each in silent:
                    self._write(each)
            for each in silent:
                self._loans[each.loan.process] = each.loan

    def share(self, of: str, at_s: float) -> Share:
        """Returns how much a daemon may have of an amount where the others that share the ledger want some too."""
        bucket = self._money.bucket(at_s)
        alive = {OWN, of, *(loan.process for loan in self.alive(at_s))}
        return lambda amount, room: self._sharing.part(of, amount, room, at_s=at_s, bucket=bucket, alive=alive)

    def alive(self, at_s: float) -> Collection[Loan]:
        """Returns the accounts of borrowers that have not gone silent."""
        return [loan for loan in self._loans.values() if not self._silent(loan, at_s)]

    def rows(self, at_s: float) -> list[dict[str, object]]:
        """Returns the borrowers as /v1/status shows them: those that have not gone, and what is in doubt of others."""
        return [
            {
                "name": loan.name,
                "held": loan.held,
                "spent": loan.spent,
                "silent": self._silent(loan, at_s),
                "doubt": loan.doubt,
                "heard_s_ago": max(0.0, at_s - self._heard_at_s.get(loan.process, at_s)),
            }
            for loan in self._loans.values()
            if not loan.silent or loan.doubt or loan.held
        ]

    def _silent(self, loan: Loan, at_s: float) -> bool:
        return loan.silent or at_s - self._heard_at_s.setdefault(loan.process, at_s) >= SILENT_S

    def _newly_silent(self, at_s: float, *, all_but: str = OWN) -> list[Change]:
        found: list[Change] = []
        loans = dict(self._loans)
        for process, loan in self._loans.items():
            if process != all_but and not loan.silent and self._silent(loan, at_s):
                found.append(gone_silent(loan, [other for key, other in loans.items() if key != process]))
                loans[process] = found[-1].loan
        return found

    def _write(self, change: Change) -> None:
        loan = change.loan
        for bucket, amount in change.moves:
            if amount:
                self._money.move(bucket, amount)
        row = (loan.process, loan.name, loan.number, loan.held, loan.bucket, loan.spent, loan.booked)
        self._connection.execute(
            f"INSERT OR REPLACE INTO loans ({_COLUMNS}, currency) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            (*row, loan.silent, loan.doubt, self._currency),
        )

    def _forget(self, bucket: int) -> None:
        """Drops accounts of borrowers that have been gone for a day, or have nothing, and the oldest of too many."""
        gone = sorted((loan for loan in self._loans.values() if loan.silent), key=lambda loan: loan.bucket)
        surplus = {loan.process for loan in gone[: max(0, len(gone) - MAX_GONE)]}
        for loan in gone:
            if loan.bucket <= bucket - DAY_BUCKETS or loan.process in surplus or not (loan.held or loan.doubt):
                self._connection.execute("DELETE FROM loans WHERE process = ?", (loan.process,))
                self._loans.pop(loan.process)
                self._heard_at_s.pop(loan.process, None)
