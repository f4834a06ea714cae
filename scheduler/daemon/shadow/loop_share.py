"""The part of the event loop's time that the shadow takes, and when that is too much."""

import math
from collections import deque

LIMIT = 0.1
"""Part of the loop's time that the shadow may take. Derived: asked for."""
WINDOW_S = 10.0
"""Of which time it is a part. Judgement: one plan or one burst takes less than a second, and is no reason to pause."""
PAUSE_S = 60.0
"""The first pause. Judgement: a burst is over by then."""
LONGEST_PAUSE_S = 3600.0
"""Pauses double up to it, while one follows soon on another."""
CALM_S = 600.0
"""Without a pause, after which the next one is short again."""


class LoopShare:
    """What was taken lately, and how long to pause."""

    def __init__(self) -> None:
        """Nothing was taken."""
        self.taken_s = 0.0
        """Since the start."""
        self._recent: deque[tuple[float, float]] = deque()
        """When, and how many seconds; those within a tenth of the window are one."""
        self._recent_s = 0.0
        self._pause_s = PAUSE_S
        self._resumed_at_s = -math.inf

    def begin(self, now_s: float) -> None:
        """Counts from now on, after a start or a pause."""
        self._recent.clear()
        self._recent_s, self._resumed_at_s = 0.0, now_s

    def take(self, seconds: float, now_s: float) -> None:
        """Notes that so many seconds were taken until now."""
        self.taken_s += seconds
        self._recent_s += seconds
        if self._recent and now_s - self._recent[-1][0] < WINDOW_S / 10:
            at_s, before_s = self._recent[-1]
            self._recent[-1] = at_s, before_s + seconds
        else:
            self._recent.append((now_s, seconds))
        self._forget(now_s)

    def share(self, now_s: float) -> float:
        """Returns the part of the last seconds' time that was taken."""
        self._forget(now_s)
        return self._recent_s / WINDOW_S if self._recent else 0.0

    def too_much(self, now_s: float) -> bool:
        """Whether it is more than it may be."""
        return self.share(now_s) > LIMIT

    def pause_s(self, now_s: float) -> float:
        """Returns how long to pause now; the next pause is longer, unless it comes late."""
        if now_s - self._resumed_at_s >= CALM_S:
            self._pause_s = PAUSE_S
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, LONGEST_PAUSE_S)
        return pause_s

    def _forget(self, now_s: float) -> None:
        while self._recent and self._recent[0][0] <= now_s - WINDOW_S:
            self._recent_s -= self._recent.popleft()[1]
        if not self._recent:
            self._recent_s = 0.0
