"""The rate of arrivals: at present, and in the current regime."""

import math
from collections import deque

from scheduler.domain.memory import entries, finite
from scheduler.estimators.dispersion import IndexOfDispersion

MAX_CLOSED = 400
"""Closed ticks kept for the detector, if it is not asked for long."""
MAX_EMPTY = 128
"""Empty ticks of one silence (32 s) that the detector is given. Derived: a change is reported with runs of at most
`changepoint.SHORT_RUN` ticks, so that more of them report nothing; the rates are told of all."""
HISTORY = 256
"""Closed ticks from which the rate of a regime can be computed again. Changes are reported with runs of at most 128
ticks (`changepoint.SHORT_RUN`), so 256 are enough."""


class ArrivalRate:
    """Counts arrivals per tick, and turns counts into rates.

    Ticks are counted from the first call, so an idle time is a row of empty ticks, and rates fall to 0 in it.

    Args:
        tick_s: length of a tick. Judgement: shorter ticks have few counts each, so that a step takes as many seconds to
            detect; longer ones delay the detection of fast traffic.
        recent_ticks: length of the window of `recent_rps`, in ticks. Judgement: two seconds are what a batch waits for.
        memory_ticks: ticks after which the rate of a long regime forgets, so that it follows slow drift. Judgement: a
            minute; half of it scatters 1.4 times as much.

    >>> import numpy as np
    >>> arrivals = ArrivalRate()
    >>> for at_s in np.cumsum(np.random.default_rng(1).exponential(1 / 50, 5000)).tolist():
    ...     arrivals.update(1, at_s)
    >>> closed = arrivals.advance(at_s)
    >>> 40 < arrivals.recent_rps(at_s) < 60, 45 < arrivals.regime_rps < 55, 0.7 < arrivals.dispersion < 1.3
    (True, True, True)
    >>> arrivals.recent_rps(at_s + 10)
    0.0
    """

    def __init__(self, *, tick_s: float = 0.25, recent_ticks: int = 8, memory_ticks: int = 240) -> None:
        """Stores the parameters."""
        self.tick_s = tick_s
        self._recent_ticks = recent_ticks
        self._memory_ticks = memory_ticks
        self._reset()

    def _reset(self) -> None:
        self._started_s: float | None = None
        self._tick = 0
        self.open_until_s = -math.inf
        """A time that is certainly in the open tick, whatever the rounding."""
        self._open = 0
        self._empty = 0
        """Empty ticks closed since the last one with a count."""
        self._recent: deque[int] = deque([0] * self._recent_ticks, maxlen=self._recent_ticks)
        self._recent_items = 0
        self._closed: deque[int] = deque(maxlen=MAX_CLOSED)
        self._history: deque[int] = deque(maxlen=HISTORY)
        self._regime_ticks = 0
        self._regime_mean = 0.0
        self._dispersion = IndexOfDispersion()

    @property
    def regime_rps(self) -> float:
        """Items a second since the last change; 0 before a tick has closed."""
        return self._regime_mean / self.tick_s

    @property
    def dispersion(self) -> float:
        """Index of dispersion of the counts per tick: 1 for Poisson arrivals, more for bursts."""
        return self._dispersion.value

    def snapshot(self) -> dict[str, object]:
        """Returns what is known of the regime, for `restore`; present counts are not worth saving."""
        regime = {"mean": self._regime_mean, "ticks": self._regime_ticks}
        return {"tick_s": self.tick_s, **regime, "dispersion": self._dispersion.snapshot()}

    def restore(self, content: object, *, age_s: float) -> None:
        """Takes up what a snapshot of that age knew: the older it is, the fewer ticks outweigh it.

        Raises:
            KeyError, TypeError, ValueError: the content is no snapshot with the same ticks; nothing is taken up.
        """
        given = entries(content)
        mean, ticks = finite(given["mean"]), finite(given["ticks"])
        if finite(given["tick_s"]) != self.tick_s or mean < 0 or ticks < 0:
            raise ValueError("a snapshot of other ticks")
        self._dispersion.restore(given["dispersion"], age_s=age_s)
        memory_s = self._memory_ticks * self.tick_s
        self._regime_ticks = min(self._memory_ticks, int(ticks / (1.0 + max(0.0, age_s) / memory_s)))
        self._regime_mean = mean

    def update(self, items: int, now_s: float) -> None:
        """Counts an arrival of `items` items."""
        if now_s >= self.open_until_s:
            self._roll(now_s)
        self._open += items

    def advance(self, now_s: float) -> list[int]:
        """Returns the counts of the ticks closed since the last call, at most the last MAX_CLOSED.

        Of a silence they are the first MAX_EMPTY empty ticks; those after them are left out.
        """
        if now_s >= self.open_until_s:
            self._roll(now_s)
        if not self._closed:
            return []
        closed = list(self._closed)
        self._closed.clear()
        return closed

    def recent_rps(self, now_s: float) -> float:
        """Returns the items a second over the last `recent_ticks` whole ticks and the open one.

        At the start it is the rate since the start, over at least two ticks.
        """
        if self._started_s is None:
            # The first tick starts with the first arrival or tick, not with a query.
            return 0.0
        items = self._open + self._recent_items
        if now_s < self.open_until_s:
            tick = self._tick
            into_tick_s = max(now_s - self._started_s - tick * self.tick_s, 0.0)
        else:
            tick, into_tick_s = self._position(now_s)
            missed = tick - self._tick
            if missed > self._recent_ticks:
                return 0.0
            for oldest in range(missed):
                items -= self._recent[oldest]
        whole_ticks = min(tick, self._recent_ticks)
        return items / max(whole_ticks * self.tick_s + into_tick_s, 2 * self.tick_s)

    def restart(self, run_length: int) -> None:
        """Starts a new regime, to which only the last `run_length` closed ticks belong."""
        regime = list(self._history)[-run_length:] if run_length > 0 else []
        self._regime_ticks = len(regime)
        self._regime_mean = sum(regime) / max(len(regime), 1)

    def _position(self, now_s: float) -> tuple[int, float]:
        """Returns the tick of `now_s` and the time into it; if the clock goes back, it stays in the open tick."""
        if self._started_s is None:
            self._started_s = now_s
        tick = max(int((now_s - self._started_s) / self.tick_s), self._tick)
        return tick, max(now_s - self._started_s - tick * self.tick_s, 0.0)

    def _roll(self, now_s: float) -> None:
        tick, into_tick_s = self._position(now_s)
        self.open_until_s = now_s - into_tick_s + (1.0 - 1e-6) * self.tick_s
        if tick == self._tick:
            return
        self._close(self._open)
        self._close_empty(tick - self._tick - 1)
        self._open = 0
        self._tick = tick

    def _close(self, count: int) -> None:
        self._empty = 0 if count else self._empty + 1
        self._recent_items += count - self._recent[0]
        self._recent.append(count)
        if self._empty <= MAX_EMPTY:
            self._closed.append(count)
        self._history.append(count)
        self._regime_ticks = min(self._regime_ticks + 1, self._memory_ticks)
        self._regime_mean += (count - self._regime_mean) / self._regime_ticks
        self._dispersion.update(count)

    def _close_empty(self, ticks: int) -> None:
        """Closes so many empty ticks: the first as any tick, the others together."""
        if not ticks:
            return
        self._close(0)
        more = ticks - 1
        self._closed.extend([0] * max(0, min(more, MAX_EMPTY - self._empty)))
        self._empty += more
        self._recent.extend([0] * min(more, self._recent_ticks))
        self._recent_items = sum(self._recent)
        self._history.extend([0] * min(more, HISTORY))
        # A regime that is not full counts them; a full one forgets with each of them.
        filling = min(more, self._memory_ticks - self._regime_ticks)
        self._regime_mean *= self._regime_ticks / (self._regime_ticks + filling)
        self._regime_ticks += filling
        self._regime_mean *= (1.0 - 1.0 / self._memory_ticks) ** (more - filling)
