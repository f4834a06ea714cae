"""How late the daemon itself is: for its own wake-ups, and with answers that have been read.

On a host whose processor others use as well, a timer fires tens of milliseconds late. A batch that waits for further
members until shortly before its first deadline is then late by as much, however well its service is known. In virtual
time nothing is ever late, and nothing is decided otherwise.
"""

import math
from collections import deque
from dataclasses import dataclass, field

WINDOW = 256
"""Latest occasions that are looked at. Judgement: the quantile below needs some hundred, and with one wake-up a second
it follows a change of the load in minutes."""
QUANTILE = 0.99
LEAST_S = 0.002
"""Below it nothing is late: timers are as coarse, and sums of floats less. Judgement: services scatter by more."""
MOST_S = 1.0
"""A host that was frozen for longer is not late but was away; it does not happen again soon."""


@dataclass(slots=True)
class _Latest:
    """The latest values, and a high quantile of them that is worked out when it is asked for."""

    values: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _quantile: float | None = 0.0

    def add(self, value_s: float) -> None:
        self.values.append(min(max(0.0, value_s), MOST_S))
        self._quantile = None

    def quantile(self) -> float:
        if self._quantile is None:
            ordered = sorted(self.values)
            self._quantile = ordered[math.ceil(QUANTILE * len(ordered)) - 1]
        return self._quantile


@dataclass(slots=True)
class OwnLateness:
    """Lateness of the latest wake-ups and of the latest answers.

    >>> own = OwnLateness()
    >>> for late_s in (0.0, 0.25, 0.125):
    ...     own.called(due_s=1.0, now_s=1.0 + late_s)
    >>> own.slack_s
    0.25
    >>> own.called(due_s=None, now_s=9.0), own.called(due_s=9.0, now_s=8.0), own.slack_s
    (None, None, 0.25)
    """

    _wakeups: _Latest = field(default_factory=_Latest)
    _answers: _Latest = field(default_factory=_Latest)

    def called(self, *, due_s: float | None, now_s: float) -> None:
        """Notes a call of the engine.

        Args:
            due_s: when something was due; None: nothing was.
            now_s: when the call came.
        """
        if due_s is not None and due_s <= now_s:
            self._wakeups.add(now_s - due_s)

    def heard(self, *, read_at_s: float, now_s: float) -> None:
        """Notes an answer that had been read at one time, and of which the engine hears now."""
        self._answers.add(now_s - read_at_s)

    @property
    def of_answers_s(self) -> float:
        """How late answers are that have been read."""
        return _if_late(self._answers.quantile())

    @property
    def slack_s(self) -> float:
        """How much sooner a batch must leave than it would if nothing here were late."""
        return _if_late(self._wakeups.quantile()) + self.of_answers_s


def _if_late(late_s: float) -> float:
    return late_s if late_s >= LEAST_S else 0.0
