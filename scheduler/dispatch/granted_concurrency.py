"""The concurrency that a provider grants, learned from its 429s: additive increase, multiplicative decrease."""

import math
from dataclasses import dataclass

from scheduler.domain.memory import finite, rows

DECREASE = 0.8
"""Part of the limit that is left after a refusal of a batch that the limit allowed. Judgement: where other clients
share the quota, one less than what was refused is still too much; half, as in TCP, would leave half of a steady quota
unused."""
FIRST_PAUSE_S = 10.0
"""After a refusal the wall is not tried again so long. Judgement: a burst is over by then; it doubles with each try
that is refused."""
SOON_PAUSES = 4.0
"""A refusal within so many pauses after one says that the wall still stands. Judgement: a wall that was gone for a
moment, as one batch ended, is found again by then."""
TRIALS = 4
"""A wall is gone when so many batches have run where it was. Judgement: one may have met the moment at which another
ended."""
LONGEST_PAUSE_S = 600.0
"""Longest such pause. Judgement: how late a raised quota may be noticed."""


@dataclass(slots=True)
class GrantedConcurrency:
    """Most batches that may be in flight on the instances of one tier, or of one account.

    Nothing is known before the first refusal. A batch that is refused while `n - 1` others run shows a wall at `n`:
    the limit falls below it, and to DECREASE of itself where the refused batch was sent under the present limit. Each
    round, from the send of a batch that used the limit up to its answer, raises it by one. Below the wall it stays
    until the wall may be tried again, which is ever more seldom as long as it stands. A batch that is refused alone
    shows no wall: the provider grants nothing for the time being, and what refusals since the last answer have taught
    is forgotten.

    >>> granted = GrantedConcurrency()
    >>> for _ in range(6):
    ...     granted.refused(5, sent_at_s=0.0, now_s=0.1)
    >>> granted.limit(0.2), granted.limit(20.0)
    (4, 5)
    """

    level: float = math.inf
    """The limit, with its fraction; inf: nothing is known."""
    wall: int | None = None
    """Fewest batches at which the last one was refused; None: no wall is known, or it is gone."""
    pause_s: float = FIRST_PAUSE_S
    try_at_s: float = -math.inf
    """When the wall may be tried again."""
    lowered_at_s: float = -math.inf
    _raised_at_s: float = -math.inf
    _before: tuple[float, int | None] | None = None
    """Level and wall before the refusals that no answer has followed yet."""

    def limit(self, now_s: float) -> int | None:
        """Returns how many batches may be in flight; None: nothing is known."""
        if self.level == math.inf:
            return None
        allowed = int(self.level)
        if self.wall is None or allowed < self.wall - 1:
            return allowed
        return self.wall if now_s >= self.try_at_s else self.wall - 1

    @property
    def granted(self) -> int | None:
        """How many are granted for all that is known, for plans and people: just below the wall."""
        if self.wall is not None:
            return self.wall - 1
        return None if self.level == math.inf else int(self.level)

    def answered(self, running: int, *, sent_at_s: float, now_s: float) -> None:
        """Learns from a batch that ran.

        Args:
            running: batches in flight when it was sent, with itself.
            sent_at_s: when it was sent.
            now_s: the present.
        """
        if sent_at_s > self.lowered_at_s:
            self._before = None
        if running < int(min(self.level, 2**31)) or self.level == math.inf:
            return
        if self.wall is not None and running >= self.wall:
            self.level = max(self.level, self.wall - 1.0) + 1.0 / TRIALS
            if self.level >= self.wall:
                self.wall = None
        elif sent_at_s >= self._raised_at_s:
            below_wall = math.inf if self.wall is None else self.wall - 1.0
            self.level, self._raised_at_s = max(self.level, min(self.level + 1.0, below_wall)), now_s

    def refused(self, running: int, *, sent_at_s: float, now_s: float) -> None:
        """Learns from a batch that was refused for lack of concurrency.

        Args:
            running: batches in flight that were sent before it, and itself.
            sent_at_s: when it was sent.
            now_s: the present.
        """
        if running <= 1:
            if self._before is not None:
                (self.level, self.wall), self._before = self._before, None
            return
        if self._before is None:
            self._before = self.level, self.wall
        below = running - 1
        if sent_at_s <= self.lowered_at_s:
            # It belongs to the burst that has lowered the limit already.
            self.level = min(self.level, below)
        else:
            self.level = max(1.0, min(below, DECREASE * min(self.level, running)))
            self.lowered_at_s = now_s
            if now_s >= self.try_at_s:
                again = now_s < self.try_at_s + SOON_PAUSES * self.pause_s
                self.pause_s = min(2.0 * self.pause_s, LONGEST_PAUSE_S) if again else FIRST_PAUSE_S
            self.try_at_s = now_s + self.pause_s
        if self.wall is None or running < self.wall:
            self.wall = running

    def snapshot(self, now_s: float) -> list[float | None]:
        """Returns what is known, of the types of JSON."""
        return [self.level, self.wall, self.pause_s, self.try_at_s - now_s]

    @classmethod
    def restored(cls, content: object, *, age_s: float, now_s: float) -> "GrantedConcurrency":
        """Returns what was known some time ago; the older it is, the sooner the wall is tried.

        Raises:
            TypeError, ValueError: the content is not understood.
        """
        level, wall, pause_s, try_in_s = rows(content)
        known = cls(
            level=finite(level),
            wall=None if wall is None else int(finite(wall)),
            pause_s=min(max(finite(pause_s), FIRST_PAUSE_S), LONGEST_PAUSE_S),
            try_at_s=now_s + min(finite(try_in_s) - age_s, LONGEST_PAUSE_S),
        )
        if known.level < 1.0 or (known.wall is not None and known.wall < 2):
            raise ValueError("a limit of at least 1 and a wall of at least 2 are needed")
        return known
