"""The state folder: locked for one daemon, and the database in it, opened or put aside."""

import contextlib
import errno
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from scheduler.daemon.state.handover import Heir, Named
from scheduler.domain.errors import EdgeburstError

DATABASE = "state.sqlite3"
LOCK = "lock"
APPLICATION_ID = 0x65646762
"""Marks our database among others: `edgb` in ASCII."""
SCHEMA = 1
"""Version of the tables. A later one may add tables; a daemon that does not know it does not touch it."""
POLL_S = 0.05
"""How often a daemon that waits for its predecessor looks at the lock."""

_FORMAT = "unsupported file format"
"""What SQLite says of a header that is damaged; all other operational errors are of the disk."""

_TABLES = """
CREATE TABLE leases (currency TEXT, bucket INTEGER, amount REAL NOT NULL,
    PRIMARY KEY (currency, bucket)) WITHOUT ROWID;
CREATE TABLE limits (model TEXT PRIMARY KEY, content TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE parts (name TEXT PRIMARY KEY, version INTEGER NOT NULL, fingerprint TEXT NOT NULL,
    saved_at_s REAL NOT NULL, content TEXT NOT NULL) WITHOUT ROWID;
"""


_LOANS = """CREATE TABLE IF NOT EXISTS loans (process TEXT PRIMARY KEY, currency TEXT NOT NULL, name TEXT NOT NULL,
    number INTEGER NOT NULL, held REAL NOT NULL, bucket INTEGER NOT NULL, spent REAL NOT NULL,
    booked REAL NOT NULL, silent INTEGER NOT NULL, doubt REAL NOT NULL) WITHOUT ROWID"""


class StateError(EdgeburstError):
    """Error: the state folder cannot be used; the message says what to do."""


class FolderLock:
    """An exclusive lock on a folder, held as long as the process lives or until it is released."""

    def __init__(self, folder: Path, *, wait_s: float = 0.0) -> None:
        """Takes the lock.

        Args:
            folder: it is made where only its last part is missing.
            wait_s: how long to wait for a daemon that holds it.

        Raises:
            StateError: another daemon holds it, or the folder cannot be used.
        """
        try:
            folder.mkdir(exist_ok=True)
            self._file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(
                f"`state` in [daemon] names {folder}, which cannot be used ({error.strerror or error}); create it for"
                " the daemon's user or name another folder"
            ) from None
        self.inherited: Named = ()
        """Listening sockets of the daemon that had the folder."""
        give_up_s = time.monotonic() + wait_s
        heir = Heir(folder)
        while not self._taken():
            if wait_s > 0 and (inheritance := heir.wait(POLL_S)):
                os.close(self._file)
                self._file, self.inherited = inheritance.lock, inheritance.sockets
                break
            if time.monotonic() >= give_up_s:
                pid = os.pread(self._file, 32, 0).decode(errors="replace").strip() or "unknown"
                os.close(self._file)
                heir.close()
                raise StateError(
                    f"the state folder {folder} is in use by the daemon with process id {pid}; stop that one, or name"
                    " another folder in `state` of [daemon]"
                )
            time.sleep(POLL_S)
        heir.close()
        # On a full disk the lock holds all the same; only the number is missing then.
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    @property
    def descriptor(self) -> int:
        """The locked file, which a successor may be given."""
        return self._file

    def release(self) -> None:
        """Lets a successor have the folder."""
        os.close(self._file)

    def _taken(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            return False
        return True


def open_database(folder: Path, *, warn: Callable[[str], object]) -> sqlite3.Connection:
    """Returns the folder's database, made anew where there is none or where the file is damaged or not ours.

    Args:
        folder: locked by this process.
        warn: takes one sentence about a file that was put aside.

    Raises:
        StateError: the file was made by a later version of the program.
        sqlite3.Error: the disk is full or cannot be written.
    """
    path = folder / DATABASE
    try:
        return _opened(path)
    except _Unusable as error:
        try:
            aside = _put_aside(path)
        except OSError as why:
            raise sqlite3.OperationalError(f"{path} {error}, and cannot be renamed: {why.strerror or why}") from None
        warn(
            f"the state file {path} {error}; it is kept as {aside.name}, and the daemon starts without it: spend caps"
            " count from now on, and estimates start from the profiles"
        )
    return _opened(path)


class _Unusable(Exception):
    """A file that is not a sound database of ours; the message continues "the state file X ..."."""


def _opened(path: Path) -> sqlite3.Connection:
    # One thread uses it, but not the one that opens it.
    connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
    with contextlib.suppress(OSError):
        # Of an earlier version: the file names clients' models and money.
        path.chmod(0o600)
    # A text that is damaged makes its row useless, not the whole file.
    connection.text_factory = lambda content: content.decode(errors="replace")
    try:
        _check(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    try:
        application = _pragma(connection, "application_id")
        schema = _pragma(connection, "user_version")
        sound = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    except sqlite3.OperationalError as error:
        if str(error) == _FORMAT:
            raise _Unusable(f"is damaged or no database ({error})") from None
        raise
    except sqlite3.DatabaseError as error:
        raise _Unusable(f"is damaged or no database ({error})") from None
    except UnicodeDecodeError:
        # Of SQLite's own sentence, which repeats the damaged schema.
        raise _Unusable("is damaged (its schema is no text)") from None
    if sound != "ok":
        raise _Unusable(f"is damaged ({sound})")
    if application != APPLICATION_ID and not (empty and application == 0 and schema == 0):
        raise _Unusable("belongs to another program")
    if schema > SCHEMA:
        raise StateError(
            f"the state file {path} has schema {schema}, and this version of edgeburst knows only {SCHEMA}: it was"
            " made by a later version; run that one, or name another folder in `state` of [daemon]"
        )
    connection.execute("PRAGMA journal_mode = WAL")
    # A lease that is granted must not be lost with the power.
    connection.execute("PRAGMA synchronous = FULL")
    if empty:
        marks = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA};"
        connection.executescript(f"BEGIN; {_TABLES} {marks} COMMIT;")
    # Since the first version of the tables; a daemon that does not know it leaves it alone.
    connection.execute("CREATE TABLE IF NOT EXISTS identities (model TEXT PRIMARY KEY, content TEXT NOT NULL)")
    connection.execute("CREATE TABLE IF NOT EXISTS clock (boot TEXT PRIMARY KEY, ahead_s REAL NOT NULL)")
    connection.execute(_LOANS)
    known = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not {"leases", "limits", "parts"} <= known:
        raise _Unusable("lacks tables")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _put_aside(path: Path) -> Path:
    """Renames a database with its journals; returns its new name."""
    mark = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%f")
    aside = path.with_name(f"{path.name}.{mark}.aside")
    for suffix in ("-wal", "-shm"):
        journal = path.with_name(path.name + suffix)
        if journal.exists():
            journal.rename(aside.with_name(aside.name + suffix))
    path.rename(aside)
    return aside
