"""The state database as the daemon uses it: one call, one transaction. All calls but the first come from one thread."""

import json
import math
import sqlite3
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from scheduler.daemon.clocks import boot_id, elapsed_s, wall_s
from scheduler.daemon.identities import Acceptance
from scheduler.daemon.state.folder import open_database
from scheduler.daemon.state.lending import OWN, Report
from scheduler.daemon.state.loans import AGAIN_S, Caps, Loans
from scheduler.daemon.state.money import BUCKET_S, Leased, LedgerClock, Money
from scheduler.domain.failures import span
from scheduler.domain.memory import Memory, Part
from scheduler.domain.messages import RequestSpend
from scheduler.domain.plain import from_plain, to_plain
from scheduler.domain.plans import Limits


class Store:
    """The database in a folder that this process has locked; it is opened again if that failed."""

    def __init__(
        self,
        folder: Path,
        *,
        currency: str,
        warn: Callable[[str], object],
        wall_clock: Callable[[], float] = wall_s,
        elapsed: Callable[[], float] = elapsed_s,
        boot: Callable[[], str] = boot_id,
    ) -> None:
        """Stores where the database is; `open` opens it.

        Args:
            folder: locked.
            currency: of the spend caps.
            warn: takes one sentence about a file that was put aside.
            wall_clock: seconds since 1970.
            elapsed: seconds that pass also while the host sleeps.
            boot: names the host's present run, in which `elapsed` goes on; empty: there is no name.
        """
        self._folder = folder
        self._currency = currency
        self._warn = warn
        self._wall_clock = wall_clock
        self._elapsed = elapsed
        self._boot = boot
        self._connection: sqlite3.Connection | None = None
        self._money: Money | None = None
        self._clock: LedgerClock | None = None
        self._loans: Loans | None = None
        self.off = ""
        """Says by how much the wall clock is off the ledger's, where it is."""

    def open(self) -> None:
        """Opens the database.

        Raises:
            StateError: a later version made it.
            sqlite3.Error: the disk is full or cannot be written.
        """
        self._opened()

    def close(self) -> None:
        """Closes the database, if it is open."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def history(self) -> tuple[tuple[float, float], ...]:
        """Returns the money of the last day, as `Money.history` does."""
        money, at_s = self._ledger()
        return money.history(at_s)

    def lease(self, request: RequestSpend) -> Leased:
        """Leases money, as `Money.lease` does."""
        money, at_s = self._ledger()
        loans = self._lent()
        loans.expire(at_s)
        leased = money.lease(
            request.amount,
            left=request.left,
            per_hour=request.per_hour,
            per_day=request.per_day,
            at_s=at_s,
            share=loans.share(OWN, at_s),
        )
        if leased.closed_by and loans.alive(at_s):
            return replace(leased, opens_in_s=min(leased.opens_in_s, AGAIN_S))
        return leased

    def lend(self, report: Report, caps: Caps) -> tuple[Leased, list[dict[str, object]]]:
        """Lends money to another daemon, as `Loans.lend` does; returns all borrowers as well."""
        at_s = self._ledger()[1]
        return self._lent().lend(report, caps, at_s=at_s), self._lent().rows(at_s)

    def borrowers(self) -> list[dict[str, object]]:
        """Takes back what borrowers hold that have gone silent; returns all of them."""
        at_s = self._ledger()[1]
        self._lent().expire(at_s)
        return self._lent().rows(at_s)

    def give_back(self, amount: float) -> None:
        """Gives leased money back."""
        money, at_s = self._ledger()
        money.give_back(amount, at_s=at_s)

    def date_anew(self, left: float) -> float:
        """Dates what is left of the leases anew; returns what was spent beyond them and is booked now."""
        money, at_s = self._ledger()
        return money.date_anew(left, at_s=at_s)

    def limits(self) -> dict[str, Limits]:
        """Returns the limits that operators set, by model; a row that does not hold limits is skipped."""
        found: dict[str, Limits] = {}
        with closing(self._opened().execute("SELECT model, content FROM limits")) as rows:
            for model, content in rows:
                try:
                    found[model] = from_plain(Limits, json.loads(content))
                except (TypeError, ValueError, RecursionError):
                    self._warn(f"the limits of model {model} in the state file are not understood and not used")
        return found

    def save_limits(self, model: str, limits: Limits) -> None:
        """Keeps a model's limits."""
        self._opened().execute("INSERT OR REPLACE INTO limits VALUES (?, ?)", (model, json.dumps(to_plain(limits))))

    def forget_limits(self, models: Collection[str]) -> None:
        """Forgets the limits of these models."""
        self._opened().executemany("DELETE FROM limits WHERE model = ?", [(model,) for model in models])

    def identities(self) -> dict[str, Acceptance]:
        """Returns what operators have accepted, by model; a row that cannot be read is skipped."""
        found: dict[str, Acceptance] = {}
        with closing(self._opened().execute("SELECT model, content FROM identities")) as rows:
            for model, content in rows:
                try:
                    found[model] = from_plain(Acceptance, json.loads(content))
                except (TypeError, ValueError, RecursionError):
                    self._warn(f"the identity of model {model} in the state file is not understood and not used")
        return found

    def save_identity(self, model: str, accepted: Acceptance | None) -> None:
        """Keeps what an operator has accepted of a model; None: nothing."""
        self._opened().execute("DELETE FROM identities WHERE model = ?", (model,))
        if accepted is not None:
            row = (model, json.dumps(to_plain(accepted)))
            self._opened().execute("INSERT INTO identities VALUES (?, ?)", row)

    def memory(self) -> Memory:
        """Returns what the last process knew; parts that are no JSON are skipped."""
        parts, age_s = {}, 0.0
        now_s = self._ledger()[1]
        with closing(
            self._opened().execute("SELECT name, version, fingerprint, saved_at_s, content FROM parts")
        ) as rows:
            for name, version, fingerprint, saved_at_s, content in rows:
                try:
                    age_s = max(0.0, now_s - float(saved_at_s))
                    parts[name] = Part(name, version, fingerprint, json.loads(content))
                except (TypeError, ValueError, RecursionError):
                    self._warn(f"part {name} of the state file is not understood and not used")
        return Memory(parts, age_s)

    def save_memory(self, parts: Sequence[Part]) -> None:
        """Keeps what is known, in place of what was kept before."""
        now_s, connection = self._ledger()[1], self._opened()
        saved = [(part.name, part.version, part.fingerprint, now_s, json.dumps(part.content)) for part in parts]
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute("DELETE FROM parts")
            connection.executemany("INSERT INTO parts VALUES (?, ?, ?, ?, ?)", saved)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _lent(self) -> Loans:
        self._opened()
        assert self._loans is not None
        return self._loans

    def _ledger(self) -> tuple[Money, float]:
        self._opened()
        assert self._money is not None
        assert self._clock is not None
        return self._money, self._clock()

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = open_database(self._folder, warn=self._warn)
            self._money = Money(connection, self._currency)
            self._clock = self._ledger_clock(connection, self._money.newest_bucket())
            self._loans = Loans(connection, self._money, self._currency)
            self._connection = connection
        return self._connection

    def _ledger_clock(self, connection: sqlite3.Connection, newest_bucket: int | None) -> LedgerClock:
        """Returns the ledger's clock, which goes on from what a process before has kept since the host started."""
        boot, wall_now_s = self._boot(), self._wall_clock()
        row = connection.execute("SELECT ahead_s FROM clock WHERE boot = ?", (boot,)).fetchone() if boot else None
        kept_s = row[0] if row is not None and isinstance(row[0], float) and math.isfinite(row[0]) else None
        clock = LedgerClock(wall_s=wall_now_s, newest_bucket=newest_bucket, elapsed=self._elapsed, ahead_s=kept_s)
        if boot and clock.ahead_s != kept_s:
            connection.execute("DELETE FROM clock")
            connection.execute("INSERT INTO clock VALUES (?, ?)", (boot, clock.ahead_s))
        off_s = wall_now_s - clock()
        if abs(off_s) > 2 * BUCKET_S:
            way = "ahead of" if off_s > 0 else "behind"
            self.off = (
                f"this host's clock is {span(abs(off_s))} {way} the time that the state folder has counted;"
                " spend caps go on by that time"
            )
        return clock
