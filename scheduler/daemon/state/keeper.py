"""The daemon's side of the state folder: requests for money, limits and snapshots, done by a thread beside the loop."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from scheduler.daemon.identities import Acceptance, Identities
from scheduler.daemon.logs import log
from scheduler.daemon.state.folder import FolderLock
from scheduler.daemon.state.lending import Report
from scheduler.daemon.state.loans import Caps
from scheduler.daemon.state.money import Leased
from scheduler.daemon.state.store import Store
from scheduler.daemon.threads import DaemonThreads
from scheduler.dispatch.spend_cap import STATE
from scheduler.domain.memory import Memory, Part
from scheduler.domain.messages import Message, RequestSpend, ReturnSpend, SpendGranted
from scheduler.domain.plans import Limits
from scheduler.domain.statistics import EngineStatistics

T = TypeVar("T")

SAVE_EVERY_S = 60.0
"""How often what was learned is saved, and what is left of the leases dated anew; `money.HOUR_BUCKETS` relies on it."""
LOOK_EVERY_S = 1.0
"""How often it is looked which borrowers have gone silent."""
TRY_AGAIN_S = 5.0
"""When a folder that could not be written is tried again."""
BEGIN_LIMIT_S = 1.0
"""Longest that the daemon waits for its first lease before it listens."""
CLOSE_LIMIT_S = 2.0
"""Longest that a stop waits for the disk."""
WITHOUT = "a spend cap starts anew with each process; to keep it, name a folder in daemon.state"
"""Said where no folder is configured."""


def _warn(message: str) -> None:
    log(logging.WARNING, "state_put_aside", message=message)


class StateKeeper:
    """Keeps what outlives the process. The loop never waits for the disk: a call is a task that ends in a message."""

    def __init__(
        self, folder: Path, *, currency: str, wait_s: float = 0.0, models: Collection[str] | None = None
    ) -> None:
        """Takes the folder's lock and opens its database; a disk that cannot be written is no error yet.

        Args:
            folder: the state folder.
            currency: of the spend caps.
            wait_s: how long to wait for a daemon that has the folder.
            models: that are configured: limits of others, which are gone, are forgotten; None: all are kept.

        Raises:
            StateError: the folder cannot be used, or another daemon uses it, or a later version made its file.
        """
        self._folder = folder
        self._lock = FolderLock(folder, wait_s=wait_s)
        self._store = Store(folder, currency=currency, warn=_warn)
        self._threads = DaemonThreads(limit=1, name="state")
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure = ""
        self._failures = 0
        self._first = True
        self._closing = False
        self._borrowers: list[dict[str, object]] = []
        """As they were when they were looked at last."""
        self._recalled: dict[str, object] = {}
        self._begun = asyncio.Event()
        self._post: Callable[[Message], None] = lambda _: None
        self._left: Callable[[], float | None] = lambda: None
        self._known: Callable[[], Sequence[Part]] = tuple
        self.limits: Mapping[str, Limits] = {}
        """What operators had set when the folder was opened, by model."""
        self.memory = Memory()
        """What the last process knew."""
        self._accepted: Mapping[str, Acceptance] = {}
        try:
            self._store.open()
            self.limits, self.memory = self._limits_of(models), self._store.memory()
            self._accepted = self._store.identities()
            self._borrowers = self._store.borrowers()
            if self._store.off:
                log(logging.WARNING, "state_clock", message=self._store.off)
        except sqlite3.Error as error:
            self._failed(error)
        except BaseException:
            self._lock.release()
            raise

    def _limits_of(self, models: Collection[str] | None) -> Mapping[str, Limits]:
        limits = self._store.limits()
        gone = [] if models is None else sorted(limits.keys() - set(models))
        if gone:
            self._store.forget_limits(gone)
            named = ", ".join(gone)
            log(logging.INFO, "limits_forgotten", models=named, message=f"not configured any more: {named}")
        return {model: given for model, given in limits.items() if model not in gone}

    def connect(
        self,
        *,
        post: Callable[[Message], None],
        left: Callable[[], float | None],
        known: Callable[[], Sequence[Part]] = tuple,
    ) -> None:
        """Connects the keeper with the engine.

        Args:
            post: gives the engine a message.
            left: returns what is left of the leases, negative where more was spent; None where nothing is leased.
            known: returns what is known now, for the next process.
        """
        self._post, self._left, self._known = post, left, known

    async def begun(self) -> None:
        """Waits for the first lease, so that no request comes before it; not for long."""
        try:
            await asyncio.wait_for(self._begun.wait(), BEGIN_LIMIT_S)
        except asyncio.TimeoutError:
            log(logging.WARNING, "state_slow", message=f"the state folder {self._folder} is slow: no lease yet")

    def request(self, command: RequestSpend) -> None:
        """Leases money; the engine gets SpendGranted."""
        self._start(self._lease(command))

    async def lend(self, report: Report, caps: Caps) -> Leased | None:
        """Lends money to another daemon; None where the folder cannot be used, or the daemon stops.

        Raises:
            StaleReport: a later report of the same process was taken up.
            TooManyBorrowers: as many as may borrow do.
        """
        found = None if self._closing else await self._do(lambda: self._store.lend(report, caps))
        if found is None:
            return None
        leased, self._borrowers = found
        return leased

    def give_back(self, command: ReturnSpend) -> None:
        """Gives leased money back."""
        self._start(self._do(lambda: self._store.give_back(command.amount)))

    def save_limits(self, model: str, limits: Limits) -> None:
        """Keeps limits that an operator set."""
        self._start(self._do(lambda: self._store.save_limits(model, limits)))

    def identities(self) -> Identities:
        """Returns what compares identities, with those that operators have accepted; it keeps what they accept."""
        return Identities(before=self._accepted, save=self._save_identity)

    def _save_identity(self, model: str, accepted: Acceptance | None) -> None:
        self._start(self._do(lambda: self._store.save_identity(model, accepted)))

    async def run(self) -> None:
        """Saves once a minute, and looks after borrowers once a second, without end."""
        while True:
            for _ in range(round(SAVE_EVERY_S / LOOK_EVERY_S)):
                await asyncio.sleep(LOOK_EVERY_S)
                if self._borrowers:
                    found = await self._do(self._store.borrowers)
                    self._borrowers = self._borrowers if found is None else found
            await self.save()

    async def save(self) -> None:
        """Saves what has to be saved now and then."""
        left = self._left()
        if left is not None:
            debt = await self._do(lambda: self._store.date_anew(left))
            if debt:
                self._post(SpendGranted(debt))
        parts = self._known()
        if parts:
            await self._do(lambda: self._store.save_memory(parts))

    async def close(self, *, clean: bool) -> None:
        """Closes the database; the lock stays, and nothing is lent any more.

        Args:
            clean: whether the engine's numbers can be trusted; then what is left of the leases is given back.
        """
        self._closing = True
        try:
            await asyncio.wait_for(self._close(clean=clean), CLOSE_LIMIT_S)
        except asyncio.TimeoutError:
            log(logging.WARNING, "state_slow", message=f"the state folder {self._folder} is slow: not all was saved")
        # What came while it closed, as limits that an operator set, is not waited for.
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def recalled(self, parts: Sequence[str], statistics: EngineStatistics) -> None:
        """Notes what the engine began with, before anything is measured, for the log and /v1/status."""
        self._recalled = {
            "parts": list(parts),
            "saved_s_ago": self.memory.age_s if parts else None,
            "uplink_bytes_per_s": statistics.uplink_bytes_per_s,
            "uplink_rtt_s": statistics.uplink_rtt_s,
        }
        names = ",".join(parts) or "nothing"
        log(logging.INFO, "recalled", parts=names, **{k: v for k, v in self._recalled.items() if k != "parts"})

    def release(self) -> None:
        """Lets a successor have the folder."""
        self._lock.release()

    @property
    def folder(self) -> Path:
        """The state folder."""
        return self._folder

    @property
    def lock(self) -> FolderLock:
        """Its lock."""
        return self._lock

    def status(self) -> dict[str, object]:
        """Returns the folder and whether it works, as /v1/status shows it."""
        return {
            "folder": str(self._folder),
            "up": not self._failure,
            "failures": self._failures,
            "recalled": self._recalled,
            "borrowers": self._borrowers,
            "message": self._failure or "spend caps, limits and estimates outlive this process",
        }

    async def _close(self, *, clean: bool) -> None:
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        left = self._left()
        if clean and left is not None:
            if left > 0:
                await self._do(lambda: self._store.give_back(left))
            else:
                await self._do(lambda: self._store.date_anew(left))
        parts = self._known() if clean else ()
        if parts:
            await self._do(lambda: self._store.save_memory(parts))
        await self._threads.run(self._store.close)
        self._threads.close()

    async def _lease(self, command: RequestSpend) -> None:
        first = self._first
        found = await self._do(lambda: (self._store.history() if first else (), self._store.lease(command)))
        if found is None:
            self._post(SpendGranted(0.0, STATE, TRY_AGAIN_S))
        else:
            before, leased = found
            self._first = False
            self._post(SpendGranted(leased.amount, leased.closed_by, leased.opens_in_s, before))
        self._begun.set()

    async def _do(self, work: Callable[[], T]) -> T | None:
        """Returns what the work returns in the thread; None if the disk refuses."""
        try:
            result = await self._threads.run(work)
        except sqlite3.Error as error:
            self._failed(error)
            return None
        if self._failure:
            self._failure = ""
            log(logging.INFO, "state_works", message=f"the state folder {self._folder} can be written again")
        return result

    def _failed(self, error: sqlite3.Error) -> None:
        self._failures += 1
        if not self._failure:
            self._failure = (
                f"the state folder {self._folder} cannot be used ({error}); while a spend cap is set, no function is"
                " called; make room on the disk or make it writable"
            )
            log(logging.ERROR, "state_failed", message=self._failure)

    def _start(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="state")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
