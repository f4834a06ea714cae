"""Keeps the history in the state folder: written every few seconds by a thread, so that the loop never waits for it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import suppress
from pathlib import Path

from scheduler.daemon.history.feed import Feed
from scheduler.daemon.history.file import DATABASE, HistoryFile
from scheduler.daemon.logs import log
from scheduler.daemon.threads import DaemonThreads

SAVE_EVERY_S = 10.0
CLOSE_LIMIT_S = 1.0
"""Longest that a stop waits for the disk."""


class HistoryKeeper:
    """Runs the feed; loads the history at the start, and saves what is new.

    A disk that fails costs history, and no request.
    """

    def __init__(self, feed: Feed, folder: Path | None) -> None:
        """Loads what an earlier process kept; blocks, so make it before the loop runs.

        Args:
            feed: whose history it is.
            folder: the state folder, which this process has locked; None: the history ends with the process.
        """
        self._feed = feed
        self._path = DATABASE if folder is None else str(folder / DATABASE)
        self._file = None if folder is None else HistoryFile(folder, warn=_warn)
        self._threads = DaemonThreads(limit=1, name="history")
        self.failure = ""
        """Why it cannot be kept now, in one sentence; empty: it is."""

        if self._file is not None:
            self._load(self._file)

    def _load(self, file: HistoryFile) -> None:
        try:
            names, rows = file.load()
        except sqlite3.Error as error:
            self._failed(error)
            return
        self._feed.restore(names, rows)

    async def run(self) -> None:
        """Runs the feed and saves what is new, for ever."""
        await asyncio.gather(self._feed.run(), self._save_for_ever())

    async def _save_for_ever(self) -> None:
        while self._file is not None:
            await asyncio.sleep(SAVE_EVERY_S)
            await self.save()

    async def save(self, *, last: bool = False) -> None:
        """Saves what is new; `last`: also what is not over yet, for the process that follows."""
        file, history = self._file, self._feed.history
        if file is None:
            return
        rows, names, now_s = history.take_unsaved(), list(history.names.keys), int(self._feed.wall_s())
        rows += history.open_rows() if last else []
        try:
            await self._threads.run(lambda: file.save(names, rows, now_s=now_s))
        except sqlite3.Error as error:
            history.not_saved(rows)
            self._failed(error)
            return
        if self.failure:
            self.failure = ""
            log(logging.INFO, "history_works", message=f"the history {self._path} can be written again")

    def stop(self) -> None:
        """Ends the streams of open pages, which ask the process that follows from then on."""
        self._feed.close()

    async def close(self) -> None:
        """Saves what is left, within a limit, and closes the file."""
        self.stop()
        file = self._file
        if file is not None:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.save(last=True), CLOSE_LIMIT_S)
                await asyncio.wait_for(self._threads.run(file.close), CLOSE_LIMIT_S)
        self._threads.close()

    def _failed(self, error: sqlite3.Error) -> None:
        if not self.failure:
            self.failure = (
                f"the history {self._path} cannot be written ({error}); the dashboard's history ends with this process"
                " unless there is room on the disk again"
            )
            log(logging.WARNING, "history_failed", message=self.failure)


def _warn(message: str) -> None:
    log(logging.WARNING, "history_put_aside", message=message)
