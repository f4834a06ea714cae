"""What a daemon's ledger has lent to other daemons: the accounts, as values. Pure: no database, no clock.

The bound: whatever is killed, cut off or comes late, all daemons together spend at most the cap and one slice. What an
account holds is in the ledger until it is reported as spent or given back. What a silent borrower held by its last
report goes back into the ledger, though that borrower may have spent it: it is in doubt until it reports again. Not
more than the largest such slice is in doubt at a time; the rest stays booked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

SILENT_S = 10.0
"""A borrower that has not reported for so long is taken for gone. Judgement: ten of its reports."""
ASKED_S = 10.0
"""A daemon whose last request for money is no older than this counts in the division."""
LEAST_ROOM = 1e-9
"""Part of a request below which nothing is granted: sums of floats err by less."""

OWN = ""
"""The lender's own engine among those that share the ledger."""


@dataclass(frozen=True, slots=True)
class Report:
    """A borrower's account of itself, and the amount that it requests."""

    name: str
    """Of the daemon, for people."""
    process: str
    """Identifies the process: each start is another one."""
    number: int
    """Grows with each report of the process."""
    amount: float
    """Asked for; 0: nothing is."""
    left: float
    """What is left of what it was granted; negative: so much was spent beyond it."""
    spent: float
    """Spent by the process since its start; bills that are corrected may lower it."""
    unreported: float = 0.0
    """The part of it since its last report that was answered."""


@dataclass(frozen=True, slots=True)
class Loan:
    """The account of one borrowing process."""

    name: str
    process: str
    number: int
    """Of its last report."""
    held: float
    """In the ledger, and not reported as spent."""
    bucket: int
    """Where it is in the ledger."""
    spent: float
    """As it reported last."""
    booked: float = 0.0
    """In the ledger as spent by it, at whatever time."""
    silent: bool = False
    """Whether it was taken for gone; what it held is back in the ledger, or in `held` what had to stay."""
    doubt: float = 0.0
    """What went back into the ledger then, and may have been spent."""


class Change(NamedTuple):
    """A loan as it is now, and what to add to the ledger's buckets for it."""

    loan: Loan
    moves: tuple[tuple[int, float], ...]


class StaleReport(Exception):
    """Error: a later report of the same process came before this one."""


def settled(loan: Loan | None, report: Report, *, bucket: int) -> Change:
    """Returns the account after a report: what was spent is booked, whatever the cap, and what is left dated anew.

    Args:
        loan: of the process; None: it is new, or forgotten.
        report: the report.
        bucket: the present.

    Raises:
        StaleReport: a later report has been taken up.

    >>> loan = Loan("b", "1", 1, held=3.0, bucket=7, spent=0.0)
    >>> change = settled(loan, Report("b", "1", 2, 0.0, left=1.0, spent=2.0), bucket=8)
    >>> change.loan.held, change.moves
    (1.0, ((7, -3.0), (8, 3.0)))
    """
    if loan is None:
        before = report.spent - max(0.0, report.unreported)
        loan = Loan(report.name, report.process, report.number - 1, 0.0, bucket, before)
    if report.number <= loan.number:
        raise StaleReport
    left = max(0.0, report.left)
    # A borrower that counts wrong gets no more out of the ledger than was booked for it.
    booked = max(0.0, loan.booked + report.spent - loan.spent)
    changed = Loan(report.name, report.process, report.number, left, bucket, report.spent, booked)
    return Change(changed, ((loan.bucket, -loan.held), (bucket, booked - loan.booked + left)))


def lent(loan: Loan, amount: float, *, bucket: int) -> Change:
    """Returns the account after a grant; `settled` has dated it at the same bucket."""
    return Change(replace(loan, held=loan.held + amount), ((bucket, amount),))


def gone_silent(loan: Loan, others: Iterable[Loan]) -> Change:
    """Returns the account of a borrower that is taken for gone.

    Args:
        loan: its account.
        others: all other accounts.

    >>> first = gone_silent(Loan("b", "1", 1, held=3.0, bucket=7, spent=0.0), ())
    >>> first.loan.doubt, first.moves
    (3.0, ((7, -3.0),))
    >>> gone_silent(Loan("c", "2", 1, held=2.0, bucket=7, spent=0.0), [first.loan]).moves
    ((7, -0.0),)
    """
    doubts = [other.doubt for other in others]
    back = min(loan.held, max(0.0, max([loan.held, *doubts]) - sum(doubts)))
    return Change(replace(loan, held=loan.held - back, silent=True, doubt=back), ((loan.bucket, -back),))


@dataclass(slots=True)
class Sharing:
    """How the rest of the ledger is divided where the requests for it add up to more: equal parts for each daemon, anew
    in each bucket of time."""

    _bucket: int = -1
    _given: dict[str, float] = field(default_factory=dict)
    """In this bucket of time, by daemon."""
    _asked_at_s: dict[str, float] = field(default_factory=dict)
    _short: set[str] = field(default_factory=set)
    """Those that were given less than they asked for, when they asked last."""

    def part(self, of: str, amount: float, room: float, *, at_s: float, bucket: int, alive: Collection[str]) -> float:
        """Returns how much of what it asks for a daemon may have now.

        Args:
            of: the daemon that asks.
            amount: what it asks for.
            room: what the caps leave.
            at_s: the present.
            bucket: the same as a bucket of time.
            alive: the daemons that have not gone silent, this one included.

        >>> sharing = Sharing()
        >>> ask = lambda of, room: sharing.part(of, 4.0, room, at_s=0.0, bucket=1, alive=("a", "b"))
        >>> ask("a", 100.0), ask("b", 96.0), ask("a", 6.0), ask("b", 3.0), ask("a", 0.0)
        (4.0, 4.0, 3.0, 3.0, 0.0)
        """
        if bucket != self._bucket:
            self._bucket, self._given = bucket, {}
        self._asked_at_s = {name: s for name, s in self._asked_at_s.items() if name in alive}
        self._short &= set(alive)
        self._asked_at_s[of] = at_s
        wanting = {name for name, s in self._asked_at_s.items() if s > at_s - ASKED_S or name in self._short}
        part = min(amount, room)
        if len(wanting) > 1 and room < len(wanting) * amount:
            given = sum(self._given.get(name, 0.0) for name in wanting)
            fair = (room + given) / len(wanting) - self._given.get(of, 0.0)
            part = min(part, fair if fair > LEAST_ROOM * amount else 0.0)
        self._given[of] = self._given.get(of, 0.0) + part
        (self._short.add if part < amount else self._short.discard)(of)
        return part


Share = Callable[[float, float], float]
"""Returns how much of an amount (first) may be had of what the caps leave (second)."""
