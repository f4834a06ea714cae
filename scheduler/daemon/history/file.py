"""The history's file in the state folder: a database of its own, as nothing in it is worth the daemon's start."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from scheduler.daemon.history.buckets import MOST_NAMES, Names
from scheduler.daemon.history.counting import Key
from scheduler.daemon.history.rings import KEPT, STEPS_S, Row

DATABASE = "history.sqlite3"
APPLICATION_ID = 0x65646768
"""`edgh` in ASCII."""
SCHEMA = 1
_TABLES = f"""
CREATE TABLE names (number INTEGER PRIMARY KEY, model TEXT NOT NULL, class TEXT NOT NULL, tenant TEXT NOT NULL,
    place TEXT NOT NULL);
CREATE TABLE buckets (step_s INTEGER, at_s INTEGER, content BLOB NOT NULL, PRIMARY KEY (step_s, at_s)) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA};
"""


_REMOVE_OLD = """
DELETE FROM buckets WHERE step_s = :step_s AND at_s <= (SELECT at_s FROM buckets
    WHERE step_s = :step_s AND at_s <= :now_s ORDER BY at_s DESC LIMIT 1 OFFSET :kept)
"""
_REMOVE_FUTURE = """
DELETE FROM buckets WHERE step_s = :step_s AND at_s >= (SELECT at_s FROM buckets
    WHERE step_s = :step_s AND at_s > :now_s ORDER BY at_s LIMIT 1 OFFSET :kept)
"""


class HistoryFile:
    """Reads and writes the rows; every call blocks, and all come from one thread at a time."""

    def __init__(self, folder: Path, *, warn: Callable[[str], object]) -> None:
        """Stores where it is; opens nothing yet.

        Args:
            folder: the state folder, which this process has locked.
            warn: takes one sentence about a file that was put aside.
        """
        self._path = folder / DATABASE
        self._warn = warn
        self._connection: sqlite3.Connection | None = None
        self._names_saved = 0

    def load(self) -> tuple[Names, list[Row]]:
        """Returns what an earlier process kept; nothing where the file is new, damaged or not ours.

        Raises:
            sqlite3.Error: the disk is full or cannot be read.
        """
        connection = self._sound()
        try:
            return self._read(connection)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            self._put_aside(f"is damaged ({error})")
        return self._read(self._sound())

    def save(self, names: Sequence[Key], rows: Sequence[Row], *, now_s: int) -> None:
        """Writes rows, and removes the oldest of those that are too many.

        They are counted, in the past and in the future each for itself, and not judged by their age: a wall clock that
        is wrong for an hour would empty the file.

        Raises:
            sqlite3.Error: the disk is full or cannot be written.
        """
        connection = self._sound()
        new = [(number, *key) for number, key in enumerate(names) if number >= self._names_saved]
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany("INSERT OR REPLACE INTO names VALUES (?, ?, ?, ?, ?)", new)
            connection.executemany("INSERT OR REPLACE INTO buckets VALUES (?, ?, ?)", rows)
            for step_s, kept in zip(STEPS_S, KEPT, strict=True):
                for statement in (_REMOVE_OLD, _REMOVE_FUTURE):
                    connection.execute(statement, {"step_s": step_s, "now_s": now_s, "kept": kept})
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self.close()
            raise
        self._names_saved = len(names)

    def close(self) -> None:
        """Closes the database, if it is open."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _read(self, connection: sqlite3.Connection) -> tuple[Names, list[Row]]:
        keys = connection.execute("SELECT model, class, tenant, place FROM names ORDER BY number").fetchall()
        rows = connection.execute("SELECT step_s, at_s, content FROM buckets").fetchall()
        names = Names([Key(*map(str, key)) for key in keys[:MOST_NAMES]])
        self._names_saved = len(names.keys)
        sound = [Row(*row) for row in rows if isinstance(row[1], int) and isinstance(row[2], bytes)]
        return names, sound

    def _sound(self) -> sqlite3.Connection:
        """Returns the open database; one that is damaged or not ours is put aside, and a new one begun."""
        try:
            return self._opened()
        except _Unusable as error:
            self._put_aside(str(error))
        return self._opened()

    def _put_aside(self, why: str) -> None:
        self.close()
        self._names_saved = 0
        aside = self._path.with_name(f"{DATABASE}.aside")
        try:
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            self._path.replace(aside)
        except OSError as error:
            raise sqlite3.OperationalError(f"it {why}, and cannot be renamed: {error.strerror or error}") from None
        self._warn(
            f"the history {self._path} {why}; it is kept as {aside.name}, and the dashboard's history begins anew"
        )

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        connection = sqlite3.connect(self._path, timeout=1.0, isolation_level=None, check_same_thread=False)
        try:
            with contextlib.suppress(OSError):
                self._path.chmod(0o600)
            self._check(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        try:
            empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            schema = connection.execute("PRAGMA user_version").fetchone()[0]
            sound = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.OperationalError as error:
            if "file format" in str(error):
                raise _Unusable(f"is damaged or no database ({error})") from None
            raise
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise _Unusable(f"is damaged or no database ({error})") from None
        if sound != "ok":
            raise _Unusable("is damaged")
        if not empty and (application, schema) != (APPLICATION_ID, SCHEMA):
            raise _Unusable("is of another program, or of another version of this one")
        connection.execute("PRAGMA journal_mode = WAL")
        # What the last seconds were may be lost with the power.
        connection.execute("PRAGMA synchronous = NORMAL")
        if empty:
            connection.executescript(f"BEGIN; {_TABLES} COMMIT;")


class _Unusable(Exception):
    """A file that is not a sound history; the message continues "the history X ..."."""
