"""The history: seconds of a quarter of an hour, ten seconds of a day, minutes of a week, in rings of bounded size."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from scheduler.daemon.history.buckets import Bucket, Names, loaded

STEPS_S = (1, 10, 60)
KEPT = (900, 8640, 10_080)
"""Buckets of each step: 15 minutes, 24 hours, 7 days."""
MOST_POINTS = 1500
"""Of one answer: about the pixels of a wide page."""
UNSAVED_KEPT = 4096
"""Rows that wait to be written; the oldest go first while the disk takes none. A bound of memory."""


class Row(NamedTuple):
    """A bucket as it is kept."""

    step_s: int
    at_s: int
    """When it begins, seconds since 1970."""
    blob: bytes


@dataclass(slots=True)
class Level:
    """The buckets of one length."""

    step_s: int
    kept: int
    rows: deque[tuple[int, bytes]] = field(default_factory=deque)
    open_at_s: int | None = None
    """When the bucket begins that is not over yet; None: there is none."""
    open: Bucket = field(default_factory=Bucket)

    def close(self, at_s: int, blob: bytes) -> None:
        """Appends a bucket that is over."""
        self.rows.append((at_s, blob))
        while len(self.rows) > self.kept:
            self.rows.popleft()


class Selection(NamedTuple):
    """Buckets of a span of time."""

    step_s: int
    """Of one point: so many seconds are added up in it."""
    from_s: int
    """When the first point begins."""
    points: int
    rows: Iterator[tuple[int, Bucket]]
    """In order, each with the number of its point; gaps are left out."""


class History:
    """What happened, by seconds since 1970, which rise."""

    def __init__(self) -> None:
        """Starts with nothing."""
        self.names = Names()
        self.levels = [Level(step_s, kept) for step_s, kept in zip(STEPS_S, KEPT, strict=True)]
        self._unsaved: deque[Row] = deque(maxlen=UNSAVED_KEPT)

    def add(self, at_s: int, second: Bucket) -> bytes:
        """Adds a second that is over; returns it as JSON. One that is not later than the last is added to that one."""
        finest = self.levels[0]
        if finest.rows and at_s <= finest.rows[-1][0]:
            before, blob = finest.rows.pop()
            merged = loaded(blob) or Bucket()
            merged.add(second)
            blob, at_s = merged.dumped(), before
        else:
            blob = second.dumped()
        finest.close(at_s, blob)
        self._unsaved.append(Row(finest.step_s, at_s, blob))
        for level in self.levels[1:]:
            self._add_to(level, at_s, second)
        return blob

    def _add_to(self, level: Level, at_s: int, second: Bucket) -> None:
        begins_s = at_s - at_s % level.step_s
        if level.open_at_s is not None and begins_s > level.open_at_s:
            blob = level.open.dumped()
            level.close(level.open_at_s, blob)
            self._unsaved.append(Row(level.step_s, level.open_at_s, blob))
            level.open_at_s = None
        if level.open_at_s is None:
            level.open_at_s, level.open = begins_s, Bucket()
        level.open.add(second)

    def forget_after(self, at_s: int) -> None:
        """Forgets what lies in the future: the host's clock was set back."""
        for level in self.levels:
            while level.rows and level.rows[-1][0] > at_s:
                level.rows.pop()
            if level.open_at_s is not None and level.open_at_s > at_s:
                level.open_at_s = None
        self._unsaved = deque((row for row in self._unsaved if row.at_s <= at_s), maxlen=UNSAVED_KEPT)

    def take_unsaved(self) -> list[Row]:
        """Returns the rows that were added since the last call."""
        taken, self._unsaved = list(self._unsaved), deque(maxlen=UNSAVED_KEPT)
        return taken

    def not_saved(self, rows: Sequence[Row]) -> None:
        """Takes rows back that could not be written; newer ones come first where there are too many."""
        self._unsaved = deque([*rows, *self._unsaved], maxlen=UNSAVED_KEPT)

    def open_rows(self) -> list[Row]:
        """Returns the buckets that are not over yet, for the next process."""
        return [
            Row(level.step_s, level.open_at_s, level.open.dumped())
            for level in self.levels
            if level.open_at_s is not None
        ]

    def restore(self, names: Names, rows: Sequence[Row], *, now_s: int) -> None:
        """Takes up what an earlier process kept, in any order; what lies in the future or is too old is left out."""
        self.names = names
        for level in self.levels:
            oldest_s = now_s - level.step_s * level.kept
            own = sorted((row.at_s, row.blob) for row in rows if row.step_s == level.step_s)
            level.rows = deque([row for row in own if oldest_s <= row[0] <= now_s][-level.kept :])
            if level.step_s > 1 and level.rows and level.rows[-1][0] == now_s - now_s % level.step_s:
                level.open_at_s, blob = level.rows.pop()
                level.open = loaded(blob) or Bucket()

    def begins_s(self) -> int | None:
        """Returns when what is known begins; None: nothing is."""
        known = [level.rows[0][0] for level in self.levels if level.rows]
        known += [level.open_at_s for level in self.levels if level.open_at_s is not None]
        return min(known, default=None)

    def minutes(self, from_s: int) -> Iterator[tuple[int, Bucket]]:
        """Yields the minutes since then, that which is not over yet included, each with its begin."""
        level = self.levels[-1]
        for at_s, blob in level.rows:
            if at_s >= from_s and (bucket := loaded(blob)) is not None:
                yield at_s, bucket
        if level.open_at_s is not None and level.open_at_s >= from_s:
            yield level.open_at_s, level.open

    def select(self, from_s: int, to_s: int) -> Selection:
        """Returns the buckets of a span, in at most MOST_POINTS points and as fine as they are kept."""
        level = self._level_of(from_s, to_s)
        wanted = max(1, to_s - from_s)
        step_s = level.step_s * -(-wanted // (level.step_s * MOST_POINTS))
        first_s = from_s - from_s % step_s
        points = max(1, -(-(to_s - first_s) // step_s))

        def rows() -> Iterator[tuple[int, Bucket]]:
            for at_s, blob in list(level.rows):
                if first_s <= at_s < to_s and (bucket := loaded(blob)) is not None:
                    yield (at_s - first_s) // step_s, bucket
            if level.open_at_s is not None and first_s <= level.open_at_s < to_s:
                yield (level.open_at_s - first_s) // step_s, level.open

        return Selection(step_s, first_s, points, rows())

    def _level_of(self, from_s: int, to_s: int) -> Level:
        """Returns the finest level that reaches back so far and has not too many buckets for an answer."""
        for level in self.levels:
            newest_s = level.rows[-1][0] if level.rows else to_s
            reaches = from_s >= newest_s - level.step_s * level.kept
            if reaches and (to_s - from_s) / level.step_s <= MOST_POINTS:
                return level
        return self.levels[-1]
