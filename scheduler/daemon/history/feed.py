"""What the page is told: each second is closed once, put into the history, and made one event for all pages."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime, timezone
from typing import Any

import orjson

from scheduler.daemon.clocks import wall_s
from scheduler.daemon.history.buckets import Bucket, Names
from scheduler.daemon.history.counting import ENDS_KEPT, Counting, End
from scheduler.daemon.history.figures import (
    PlanValues,
    Sightings,
    Sources,
    batch_row,
    figures,
    site_values,
    slow_figures,
)
from scheduler.daemon.history.rings import History, Row
from scheduler.daemon.history.savings import PARTS, SAVED, ItemCosts, Today
from scheduler.daemon.records import BatchRecord
from scheduler.domain.plans import EngineSettings
from scheduler.domain.statistics import EngineStatistics

EVENT_BYTES = 4500
"""Of one event, unless what changed at once is more: rows of batches beyond it are left out and counted."""
BATCHES_OF_EVENT = 16
ENDS_OF_EVENT = 12
EVENTS_KEPT = 30
"""A page that is behind by more begins anew."""
SECONDS_AT_FIRST = 60
BATCHES_AT_FIRST = 300
ENDS_AT_FIRST = 64
WATCHED_S = 30.0
"""How long after the last page has read anything events are made."""
BATCHES_LOOKED_AT = 1024
"""Of one second; more are not counted as cold or warm."""
SLOW_EVERY = 10
"""Events between looks at what changes in minutes."""
STEP_S = 1.0
"""A wall clock that is off by more was set. Judgement: as in `clocks`."""


def local_midnight_s(at_s: float) -> float:
    """Returns when the day of a moment began on this host, seconds since 1970."""
    local = datetime.fromtimestamp(at_s, timezone.utc).astimezone()
    return local.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()


class Feed:
    """Owns the counts of the present second, the history, and the latest events."""

    def __init__(
        self,
        sources: Sources | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = wall_s,
        midnight_s: Callable[[float], float] = local_midnight_s,
    ) -> None:
        """Stores what is asked.

        Args:
            sources: what is asked each second; None: nothing.
            clock: the daemon's monotonic seconds.
            wall: seconds since 1970.
            midnight_s: when the day of a moment began.
        """
        self.sources = Sources() if sources is None else sources
        self.counting = Counting()
        self.history = History()
        self.ready: Callable[[], bool] = bool
        """Returns whether the daemon has started."""
        self._clock = clock
        self._wall = wall
        self._ahead_s = wall() - clock()
        self._midnight_s = midnight_s
        self._today = Today(midnight_s)
        self._costs = ItemCosts()
        self._sightings = Sightings()
        self._plan_values = PlanValues()
        self._slow: dict[str, Any] = {}
        self._site: dict[str, Any] = {}
        self._spent: dict[str, float] = {}
        self._record = self._end = self._name = self._number = 0
        self._now: dict[str, Any] = {}
        self._events: deque[tuple[int, bytes]] = deque(maxlen=EVENTS_KEPT)
        self._waiting: set[asyncio.Future[None]] = set()
        self._watched_until_s = float("-inf")
        self.closed = False

    def reload(self, settings: EngineSettings, *, version: str, config: str) -> None:
        """Takes over a configuration."""
        self.counting.configure(frozenset(tenant.name for tenant in settings.tenants))
        self._costs.reload(settings.models)
        self._site = site_values(settings, version=version, config=config)

    def restore(self, names: Names, rows: Sequence[Row]) -> None:
        """Takes up what an earlier process kept, and today's money from it."""
        now_s = self.wall_s()
        self.history.restore(names, rows, now_s=int(now_s))
        self._name = len(names.keys)
        begins_s = self._midnight_s(now_s)
        for at_s, bucket in self.history.minutes(int(begins_s)):
            self._today.add(bucket, at_s)

    def wall_s(self) -> float:
        """Returns seconds since 1970, which do not jump within an event."""
        return self._clock() + self._ahead_s

    async def run(self) -> None:
        """Closes each second, for ever."""
        while True:
            wall_now_s = self.wall_s()
            await asyncio.sleep(1.0 - wall_now_s % 1.0 + 0.002)
            self.tick()

    def tick(self) -> None:
        """Closes the second that is over, and makes its event if a page is open."""
        self._follow_clock()
        at_s = int(self.wall_s()) - 1
        engine, records = self.sources.engine(), self.sources.batches(self._record, BATCHES_LOOKED_AT)
        second = self._second(engine, records)
        blob = self.history.add(at_s, second)
        self._today.add(second, at_s)
        if records:
            self._record = records[-1][0]
        ends = self.counting.ends_after(self._end, ENDS_OF_EVENT)
        if self.counting.ends:
            self._end = self.counting.ends[-1].number
        if self._clock() < self._watched_until_s:
            self._make_event(at_s, blob, records, ends)
        self._name = len(self.history.names.keys)
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def _follow_clock(self) -> None:
        """Takes over a wall clock that was set; what then lies in the future is forgotten."""
        ahead_s = self._wall() - self._clock()
        if abs(ahead_s - self._ahead_s) > STEP_S:
            self._ahead_s = ahead_s
            self.history.forget_after(int(self.wall_s()))

    def _second(self, engine: EngineStatistics | None, records: Sequence[tuple[int, BatchRecord]]) -> Bucket:
        bucket = Bucket()
        names = self.history.names
        plan = None if engine is None else engine.plan
        # A page is told each name before a row that has it; of many names in a second some have no cell.
        for end in self.counting.ends_after(self._end, ENDS_KEPT):
            names.number(end.key)
        for key, cell in self.counting.take().items():
            bucket.cells[names.number(key)] = cell
            if key.place.startswith("edge") and cell.items:
                saved = cell.items * self._costs.of(key.model, plan)
                bucket.money[SAVED] = bucket.money.get(SAVED, 0.0) + saved
        for _, record in records:
            self._costs.note(record)
            if record.error:
                self._sightings.failed(str(record.batch.place), record.error)
            if record.batch.tier:
                bucket.calls += 1
                bucket.cold += bool(record.report.cold_start)
        if engine is not None:
            self._sightings.note(engine, self.wall_s())
            self._spend(bucket, engine)
            bucket.queued = engine.queued_requests
            bucket.gauges = _gauges(engine)
        return bucket

    def _spend(self, bucket: Bucket, engine: EngineStatistics) -> None:
        spent: dict[str, float] = {}
        for row in engine.spending:
            part = PARTS[row.what]
            spent[part] = spent.get(part, 0.0) + row.amount
        for part, amount in spent.items():
            if (difference := amount - self._spent.get(part, 0.0)) != 0:
                bucket.money[part] = difference
        self._spent = spent

    def _make_event(
        self, at_s: int, blob: bytes, records: Sequence[tuple[int, BatchRecord]], ends: Sequence[End]
    ) -> None:
        before, self._now = self._now, self._figures()
        changed = {name: value for name, value in self._now.items() if before.get(name) != value}
        self._number += 1
        event: dict[str, Any] = {"id": self._number, "at": at_s, "second": orjson.Fragment(blob)}
        new_names = self.history.names.keys[self._name :]
        if new_names:
            event["names"] = [list(name) for name in new_names]
        if changed:
            event["now"] = changed
        if ends:
            event["ends"] = [self._end_row(end) for end in ends]
        left = EVENT_BYTES - len(orjson.dumps(event))
        rows: list[orjson.Fragment] = []
        for number, record in records[: -BATCHES_OF_EVENT - 1 : -1]:
            row = orjson.dumps(batch_row(number, record, ahead_s=self._ahead_s))
            left -= len(row) + 1
            if left < 0:
                break
            rows.append(orjson.Fragment(row))
        if records:
            event["batches"], event["left_out"] = rows[::-1], len(records) - len(rows)
        self._events.append((self._number, b"data: " + orjson.dumps(event) + b"\n\n"))

    def snapshot(self) -> dict[str, Any]:
        """Returns all that a page begins with; `id` is that of the last event that is in it."""
        watched = self._clock() < self._watched_until_s
        self.watch()
        if not watched:
            self._now = self._figures()
        seconds = list(self.history.levels[0].rows)[-SECONDS_AT_FIRST:]
        records = [row for row in self.sources.batches(0, BATCHES_AT_FIRST) if row[0] <= self._record]
        ends = [end for end in self.counting.ends_after(0, ENDS_AT_FIRST) if end.number <= self._end]
        return {
            "id": self._number,
            "at": int(self.wall_s()) - 1,
            "site": self._site,
            "names": [list(key) for key in self.history.names.keys[: self._name]],
            "seconds": [[at_s, orjson.Fragment(blob)] for at_s, blob in seconds],
            "now": self._now,
            "batches": [batch_row(number, record, ahead_s=self._ahead_s) for number, record in records],
            "ends": [self._end_row(end) for end in ends],
            "begins_s": self.history.begins_s(),
        }

    def watch(self) -> None:
        """Has events made for the next seconds."""
        self._watched_until_s = self._clock() + WATCHED_S

    async def events(self, after: int) -> AsyncGenerator[bytes, None]:
        """Yields the events after a number, as they are made; ends when this closes, or where that is too long ago."""
        while not self.closed:
            self.watch()
            if after > self._number or (self._events and after < self._events[0][0] - 1):
                return
            for number, event in list(self._events):
                if number > after:
                    yield event
                    after = number
            if after < self._number:
                continue  # one was made while another was written
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(waiting)
            try:
                await waiting
            finally:
                self._waiting.discard(waiting)

    def close(self) -> None:
        """Ends all streams."""
        self.closed = True
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def _figures(self) -> dict[str, Any]:
        if not self._slow or self._number % SLOW_EVERY == 0:
            self._slow = slow_figures(self.sources)
        found = figures(
            self.sources,
            self._sightings,
            self._plan_values,
            self._today.amounts,
            ahead_s=self._ahead_s,
            ready=self.ready(),
        )
        return {**found, **self._slow}

    def _end_row(self, end: End) -> list[Any]:
        key = self.history.names.number(end.key)
        slo_ms = round(1000 * end.slo_s) if end.slo_s < 1e6 else None
        at_s = round(end.at_s + self._ahead_s, 1)
        return [end.number, end.request_id, at_s, end.kind, key, round(1000 * end.latency_s), slo_ms, end.reason]


def _gauges(engine: EngineStatistics) -> dict[str, float]:
    found = {"rate": engine.rate_rps, "rtt": engine.uplink_rtt_s}
    if engine.uplink_bytes_per_s is not None:
        found["bandwidth"] = engine.uplink_bytes_per_s
    return {**found, **{f"pace {pace.model} {pace.place}": pace.times_profile for pace in engine.paces if pace.batches}}
