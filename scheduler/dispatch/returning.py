"""Clients that send their next request as soon as they have an answer, and the moment that an idle edge waits for them.

Of eight such clients the first that comes back finds the edge idle. Were it sent alone, the other seven would wait for
it, and batches of one and of seven would alternate: each client pays the edge's seconds for a batch twice. So what
arrives within a short window after each answer is counted. Under arrivals that do not depend on answers no more of them
than the window's part of the edge's time fall into it, whatever the rate; a closed loop returns nearly all.
"""

import math
from collections import deque
from dataclasses import dataclass, field

WINDOW = 0.2
"""Part of the answered batch's service in which clients are expected back. It bounds what is counted of arrivals that
do not depend on answers, and what a held batch can lose. Judgement: far below `RETURNS`."""
LONGEST_WINDOW_S = 0.025
"""The same in seconds at most: a client that takes longer is thinking, and a batch is not held for that."""
RETURNS = 0.7
"""Part of the answers that must be followed by arrivals, with four more answers that were not: the lower bound, at two
standard deviations, of a part near 1. Judgement: a held batch gains where most come."""
DOUBT = 4
FEWEST = 4
"""Answered batches before any is believed: of a burst's first ones, which are small, as many requests come at once."""
LOOKED_AT = 16
"""Answered batches that are remembered. Judgement: so a loop is soon known, and soon forgotten."""


@dataclass(slots=True)
class Returning:
    """How arrivals of one lane follow its answers from the edge.

    >>> loop = Returning()
    >>> for second in range(10):
    ...     loop.answered(8, 0.1, float(second))
    ...     for client in range(8):
    ...         loop.arrived(1, second + 0.001 * client)
    >>> loop.answered(8, 0.1, 10.0)
    >>> loop.missing, round(loop.until_s, 3)
    (8, 10.007)
    """

    open_until_s: float = -math.inf
    """Until when arrivals are counted."""
    until_s: float = -math.inf
    """Until when an idle edge may wait for those that are missing; in the past where answers are not followed."""
    held_s: float = -math.inf
    """Until when the idle edge does wait."""
    missing: int = 0
    """Items that are still expected after the last answer."""
    share: float = 0.0
    """Items that return, by item that is answered; 0: answers are not followed."""
    stranger_waits: bool = False
    """Whether a request may wait that followed no answer: it is not made to wait for others."""
    _opened_s: float = 0.0
    _answered: int = 0
    _came: int = 0
    _last_s: float = 0.0
    _seen: deque[tuple[int, int, float]] = field(default_factory=lambda: deque(maxlen=LOOKED_AT))
    """Of the last windows: items answered, items that came, seconds until the last of them."""

    def answered(self, items: int, service_s: float, now_s: float) -> None:
        """Notes that the edge answered a batch of that expected service, and learns from the answer before it."""
        if self._answered:
            self._seen.append((self._answered, self._came, self._last_s - self._opened_s))
        self._opened_s = self._last_s = now_s
        self._answered, self._came = items, 0
        window_s = min(WINDOW * service_s, LONGEST_WINDOW_S)
        self.open_until_s, self.until_s = now_s + window_s, -math.inf
        answered, came = sum([seen[0] for seen in self._seen]), sum([seen[1] for seen in self._seen])
        self.missing, self.share = 0, 0.0
        if len(self._seen) >= FEWEST and came >= RETURNS * (answered + DOUBT):
            self.missing, self.share = round(items * came / answered), came / answered
            self.until_s = now_s + min(window_s, max([seen[2] for seen in self._seen]))

    def arrived(self, items: int, now_s: float) -> None:
        """Counts an arrival while the window is open; more than were answered do not return."""
        if self._came < self._answered:
            self._came, self._last_s = min(self._came + items, self._answered), now_s
            self.missing -= items
        else:
            self.stranger_waits = True
