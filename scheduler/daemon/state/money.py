"""Leases of money under the spend caps, in buckets of wall-clock time that outlive the process."""

import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from scheduler.daemon.state.lending import Share

BUCKET_S = 60
HOUR_BUCKETS = 62
"""Buckets that count as the last hour: 60, the one that is leaving, and one because what is not spent is dated anew
once a minute only. By definition, the cap may count 1/30 too much."""
DAY_BUCKETS = 1442
FULL = 1e-9
"""Part of a cap below which a lease is no lease. Derived: sums of thousands of floats err by less."""
SHARED_AGAIN_S = 1.0
"""When a daemon asks again that was given less than the caps leave, because others want some too."""


class LedgerClock:
    """Wall-clock seconds that never go back, nor forward faster than time passes.

    The wall clock is read once in each run of the host; a clock that is behind the newest bucket counts as that bucket.
    From then on the seconds that have passed are added, also by later processes, so that no step of the clock opens a
    cap early, or closes it for long.

    >>> seconds = iter((100.0, 100.0, 160.0))
    >>> clock = LedgerClock(wall_s=1000.0, newest_bucket=50, elapsed=lambda: next(seconds))
    >>> clock(), clock()
    (3000.0, 3060.0)
    """

    def __init__(
        self,
        *,
        wall_s: float,
        newest_bucket: int | None,
        elapsed: Callable[[], float],
        ahead_s: float | None = None,
    ) -> None:
        """Starts the clock.

        Args:
            wall_s: the wall clock now, seconds since 1970.
            newest_bucket: the newest bucket of the ledger; None for an empty ledger.
            elapsed: seconds that pass also while the host sleeps, from any origin.
            ahead_s: by how much an earlier process found the ledger ahead of `elapsed`, where that has the same origin;
                None: there was none since the host started, and the wall clock counts.
        """
        self._elapsed = elapsed
        now_s = elapsed()
        began_s = wall_s if ahead_s is None else ahead_s + now_s
        self._base_s = began_s if newest_bucket is None else max(began_s, float(newest_bucket * BUCKET_S))
        self._started_s = now_s

    @property
    def ahead_s(self) -> float:
        """By how much it is ahead of `elapsed`; it stays so."""
        return self._base_s - self._started_s

    def __call__(self) -> float:
        """Returns the ledger's present."""
        return self._base_s + self._elapsed() - self._started_s


@dataclass(frozen=True, slots=True)
class Leased:
    """What a request for money came to."""

    amount: float
    closed_by: str = ""
    """The cap for which it is less than was asked for, "hour" or "day"; empty if it is not."""
    opens_in_s: float = 0.0
    """Seconds until the oldest money leaves that cap's window."""


class Money:
    """Money leased in each bucket, by all processes. Each call is one transaction; times are those of the ledger.

    What this process has leased and not spent is kept under the newest date that it may be spent at, so that the sum of
    a window is at least what was spent in it.
    """

    def __init__(self, connection: sqlite3.Connection, currency: str) -> None:
        """Stores where to read and write.

        Args:
            connection: of the state database.
            currency: of the caps; money in others is not counted.
        """
        self._connection = connection
        self._currency = currency
        self._own: dict[int, float] = {}
        """By bucket: leased by this process."""

    def newest_bucket(self) -> int | None:
        """Returns the newest bucket of any currency; None for an empty ledger."""
        bucket = self._connection.execute("SELECT max(bucket) FROM leases").fetchone()[0]
        return None if bucket is None else int(bucket)

    def history(self, at_s: float) -> tuple[tuple[float, float], ...]:
        """Returns the last day's money as pairs of seconds ago and amount, oldest first."""
        rows = self._connection.execute(
            "SELECT bucket, amount FROM leases WHERE currency = ? AND bucket > ? ORDER BY bucket",
            (self._currency, self.bucket(at_s) - DAY_BUCKETS),
        )
        # A bucket counts as its end: no money leaves a window early.
        return tuple((max(0.0, at_s - (bucket + 1) * BUCKET_S), amount) for bucket, amount in rows)

    def lease(
        self,
        amount: float,
        *,
        left: float,
        per_hour: float | None,
        per_day: float | None,
        at_s: float,
        share: Share = min,
    ) -> Leased:
        """Leases as much of the amount as the caps allow.

        Args:
            amount: what is asked for.
            left: what is left of earlier leases. It is dated anew; where it is negative, so much is booked first,
                whatever the caps.
            per_hour: cap on any hour; None: none.
            per_day: cap on any 24 hours.
            at_s: the present.
            share: how much of an amount this process may have where other daemons share the caps.
        """
        with self.transaction():
            bucket = self.bucket(at_s)
            self._date_anew(left, bucket)
            debt = max(0.0, -left)
            if debt:
                self._add(bucket, debt)
            leased = self.allowed(
                max(0.0, amount - debt), per_hour=per_hour, per_day=per_day, at_s=at_s, bucket=bucket, share=share
            )
            if leased.amount:
                self._add(bucket, leased.amount)
        return replace(leased, amount=leased.amount + debt)

    def allowed(
        self,
        amount: float,
        *,
        per_hour: float | None,
        per_day: float | None,
        at_s: float,
        bucket: int,
        share: Share = min,
    ) -> Leased:
        """Returns how much the caps allow; leases nothing. Arguments as for `lease`, with the present's bucket."""
        least, tightest, opens_in_s = math.inf, "", 0.0
        for name, cap, buckets in (("hour", per_hour, HOUR_BUCKETS), ("day", per_day, DAY_BUCKETS)):
            if cap is None:
                continue
            room = cap - self._sum(bucket, buckets)
            room = room if room > FULL * cap else 0.0
            if room < least:
                least, tightest = room, name
                opens_in_s = self._opens_in_s(bucket, buckets, at_s) if room < amount else SHARED_AGAIN_S
        granted = share(amount, least)
        if granted >= amount:
            return Leased(granted)
        return Leased(granted, tightest, SHARED_AGAIN_S if granted < min(amount, least) else opens_in_s)

    def move(self, bucket: int, amount: float) -> None:
        """Adds money that another daemon borrows to a bucket, or takes it out, within a transaction.

        What a bucket does not hold is taken out of those before it: bills that are corrected may be older.
        """
        if amount >= 0:
            self._write(bucket, amount)
            return
        older = self._connection.execute(
            "SELECT bucket, amount FROM leases WHERE currency = ? AND bucket <= ? AND bucket > ? ORDER BY bucket DESC",
            (self._currency, bucket, bucket - HOUR_BUCKETS),
        ).fetchall()
        for at, held in older:
            part = min(held, -amount)
            self._write(at, -part)
            amount += part
            if amount >= 0:
                return

    def give_back(self, amount: float, *, at_s: float) -> None:
        """Takes leased money that is not needed out of the ledger."""
        with self.transaction():
            self._take(min(amount, sum(self._own.values())))
            self._forget(self.bucket(at_s))

    def date_anew(self, left: float, *, at_s: float) -> float:
        """Moves what is left to the present, and books what was spent beyond the leases; returns the latter."""
        with self.transaction():
            bucket = self.bucket(at_s)
            self._date_anew(left, bucket)
            debt = max(0.0, -left)
            if debt:
                self._add(bucket, debt)
            self._forget(bucket)
        return debt

    def _date_anew(self, left: float, bucket: int) -> None:
        moved = self._take(min(max(0.0, left), sum(self._own.values())))
        if moved:
            self._add(bucket, moved)

    def _take(self, amount: float) -> float:
        """Takes so much out of our own buckets, the newest first: what is left was leased last."""
        taken = 0.0
        for bucket in sorted(self._own, reverse=True):
            if taken >= amount:
                break
            part = min(self._own[bucket], amount - taken)
            taken += part
            self._add(bucket, -part)
        return taken

    def _add(self, bucket: int, amount: float) -> None:
        self._write(bucket, amount)
        self._own[bucket] = self._own.get(bucket, 0.0) + amount
        if self._own[bucket] <= 0:
            del self._own[bucket]

    def _write(self, bucket: int, amount: float) -> None:
        self._connection.execute(
            "INSERT INTO leases (currency, bucket, amount) VALUES (:currency, :bucket, :amount)"
            " ON CONFLICT (currency, bucket) DO UPDATE SET amount = max(0, amount + :amount)",
            {"currency": self._currency, "bucket": bucket, "amount": amount},
        )

    def _forget(self, bucket: int) -> None:
        """Drops buckets that have left every window, and empty ones."""
        oldest = bucket - DAY_BUCKETS
        self._connection.execute("DELETE FROM leases WHERE bucket <= ? OR amount <= 0", (oldest,))
        for old in [old for old in self._own if old <= oldest]:
            del self._own[old]

    def _sum(self, bucket: int, buckets: int) -> float:
        total = self._connection.execute(
            "SELECT total(amount) FROM leases WHERE currency = ? AND bucket > ?", (self._currency, bucket - buckets)
        ).fetchone()[0]
        return float(total)

    def _opens_in_s(self, bucket: int, buckets: int, at_s: float) -> float:
        oldest = self._connection.execute(
            "SELECT min(bucket) FROM leases WHERE currency = ? AND bucket > ? AND amount > 0",
            (self._currency, bucket - buckets),
        ).fetchone()[0]
        # A cap that is too small for any lease opens never; it is looked at once a window.
        opens_at = bucket + buckets if oldest is None else int(oldest) + buckets
        return max(1.0, opens_at * BUCKET_S - at_s)

    def bucket(self, at_s: float) -> int:
        """Returns the bucket of a time; none lies before the newest."""
        newest = self.newest_bucket()
        bucket = int(at_s // BUCKET_S)
        return bucket if newest is None else max(bucket, newest)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commits all or nothing; our own buckets follow the database."""
        own = dict(self._own)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._own = own
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
