"""Takes down each arrival as a few packed numbers, and has them written every few seconds by a thread."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from scheduler.daemon.clocks import wall_s
from scheduler.daemon.logs import log
from scheduler.daemon.recording.files import RecordingFolder
from scheduler.daemon.threads import DaemonThreads
from scheduler.domain.messages import Message, RequestArrived, RequestCancelled, SettingsChanged
from scheduler.domain.plans import EngineSettings
from scheduler.domain.requests import Request
from scheduler.recordings.layout import EVENT, LARGEST, MOST_KINDS, Kind, packed_block

_logger = logging.getLogger("edgeburst")

WRITE_EVERY_S = 5.0
MOST_WAITING = 250_000
"""Events that wait for the disk, 28 bytes each; what comes while there are so many is lost, and counted."""
CLOSE_LIMIT_S = 1.0
"""Longest that a stop waits for the disk."""
OWN_TIMEOUT_S = 1e-6
"""A deadline that differs by more from that of the class is the client's own."""
_SHAPES = 2**16


class Recorder:
    """Hears every message to the engine. A disk that fails costs arrivals, and no request."""

    def __init__(
        self,
        folder: RecordingFolder | None,
        settings: EngineSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = wall_s,
    ) -> None:
        """Stores its parts; `run` writes.

        Args:
            folder: takes what is written; None: nothing is recorded.
            settings: of the engine, for the deadlines of classes.
            clock: monotonic seconds of the arrivals.
            wall: seconds since 1970.
        """
        self._folder = folder
        self._clock = clock
        self._wall = wall
        self._threads = DaemonThreads(limit=1, name="record")
        self._events: list[bytes] = []
        self._kinds: dict[tuple[str, str, str, int], tuple[int, float]] = {}
        """Of the events that wait: index, and deadline of the class in seconds."""
        self._slos_s: dict[tuple[str, str], float] = {}
        self.written = 0
        self.lost = 0
        """Arrivals and cancellations that could not be written."""
        self.failure = ""
        """Why nothing can be written now, in one sentence; empty: it can."""
        self._follow(settings)

    @property
    def records(self) -> bool:
        """Whether anything is recorded."""
        return self._folder is not None

    def hear(self, messages: Sequence[Message], now_s: float) -> None:
        """Takes down what arrives and what is cancelled among the messages of one engine call at `now_s`."""
        for message in messages:
            if isinstance(message, RequestArrived):
                self._arrived(message.request)
            elif isinstance(message, RequestCancelled):
                self._add(EVENT.pack(now_s, message.request_id & LARGEST, 0, 0, 0, 0, math.nan))
            elif isinstance(message, SettingsChanged):
                self._follow(message.settings)

    def _arrived(self, request: Request) -> None:
        key = (request.model, request.class_name, request.tenant, request.priority)
        found = self._kinds.get(key)
        if found is None:
            if len(self._kinds) == MOST_KINDS:
                self.lost += 1
                return
            found = self._kinds[key] = len(self._kinds), self._slos_s.get(key[:2], math.nan)
        index, slo_s = found
        arrived_at_s, body_bytes = request.arrived_at_s, request.body_bytes
        timeout_s = request.deadline_s + request.reserve_s - arrived_at_s
        if -OWN_TIMEOUT_S < timeout_s - slo_s < OWN_TIMEOUT_S:
            timeout_s = math.nan
        number, shape_id = request.request_id & LARGEST, request.shape_id % _SHAPES
        if body_bytes > LARGEST:
            body_bytes = LARGEST
        self._add(EVENT.pack(arrived_at_s, number, body_bytes, request.items, index, shape_id, timeout_s))

    def _add(self, event: bytes) -> None:
        if len(self._events) < MOST_WAITING:
            self._events.append(event)
        else:
            self.lost += 1

    def _follow(self, settings: EngineSettings) -> None:
        self._slos_s = {(model.name, each.name): each.slo_s for model in settings.models for each in model.classes}
        self._kinds = {key: (found[0], self._slos_s.get(key[:2], math.nan)) for key, found in self._kinds.items()}

    async def run(self) -> None:
        """Writes what has come every few seconds, for ever; returns at once where nothing is recorded."""
        while self._folder is not None:
            await asyncio.sleep(WRITE_EVERY_S)
            await self.write()

    async def write(self) -> None:
        """Writes what has come."""
        folder = self._folder
        while folder is not None and self._events:
            # Cancellations name no kind; a block has one all the same, so that their index 0 is one.
            kinds = [Kind(*key) for key in self._kinds] or [Kind("", "", "", 0)]
            events, self._events, self._kinds = self._events, [], {}
            ahead_s = self._wall() - self._clock()
            try:
                await self._threads.run(partial(_append, folder, events, kinds, ahead_s))
            except OSError as error:
                self.lost += len(events)
                self._failed(folder.folder, error.strerror or str(error))
                return
            except Exception:  # a bug costs arrivals, too, and no request
                self.lost += len(events)
                _logger.exception("record_bug")
                self._failed(folder.folder, "an internal error, which is in the log")
                return
            self.written += len(events)
            self._works()

    async def close(self) -> None:
        """Writes what is left, within a limit, and ends the file."""
        if self._folder is not None:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.write(), CLOSE_LIMIT_S)
                await asyncio.wait_for(self._threads.run(self._folder.close), CLOSE_LIMIT_S)
        self._threads.close()

    def status(self) -> dict[str, object]:
        """Returns what is written where, as /v1/status shows it."""
        if self._folder is None:
            return {"folder": None}
        folder = str(self._folder.folder)
        return {"folder": folder, "written": self.written, "lost": self.lost, "failure": self.failure}

    def _failed(self, folder: Path, why: str) -> None:
        if not self.failure:
            self.failure = (
                f"arrivals cannot be recorded in {folder} ({why}); requests are"
                " answered all the same; make room on the disk, make the folder writable, or leave [record] out"
            )
            log(logging.WARNING, "record_failed", message=self.failure)

    def _works(self) -> None:
        if self.failure:
            self.failure = ""
            log(logging.INFO, "record_works", lost=self.lost, message="arrivals can be recorded again")


def _append(folder: RecordingFolder, events: list[bytes], kinds: list[Kind], ahead_s: float) -> None:
    folder.append(packed_block(b"".join(events), kinds, ahead_s), ahead_s)
