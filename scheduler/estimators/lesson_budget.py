"""How many of the answered batches are learned from where there are hundreds a second."""

import math
from dataclasses import dataclass

LESSONS_PER_S = 100
"""Answered batches of a model that are learned from in a second, at each place. Derived: a lesson takes a tenth of a
millisecond, so that learning takes a hundredth of a core at most. A change of the speed is found in some twenty lessons
(scripts/changepoint_figures.py), a fifth of a second."""


@dataclass(slots=True)
class LessonBudget:
    """Takes every batch while they are few, and of many every n-th.

    Which ones it takes depends on their number alone, never on the time that they took or on when they came back: a
    batch that is looked for at a time of one's choice is more often a long one. So what is learned of their mean and
    of their scatter is what all of them would teach.

    >>> budget = LessonBudget()
    >>> sum(budget.takes(number / 50) for number in range(200))
    200
    >>> budget = LessonBudget()
    >>> [sum(budget.takes(second + number / 1000) for number in range(1000)) for second in range(3)]
    [293, 91, 91]
    """

    _until_s: float = -math.inf
    """End of the second in which batches are counted."""
    _came: int = 0
    """Batches in it so far."""
    _every: int = 1
    """The second before had so many that one in this many is taken."""
    _left: int = 1
    """Batches until the next that is taken."""

    def takes(self, now_s: float) -> bool:
        """Counts a batch that came back at this time; returns whether it is learned from."""
        if now_s >= self._until_s:
            self._every = 1 + self._came // LESSONS_PER_S if now_s < self._until_s + 1.0 else 1
            self._came, self._until_s = 0, now_s + 1.0
        self._came += 1
        self._left -= 1
        if self._left > 0:
            return False
        self._left = max(self._every, 1 + self._came // LESSONS_PER_S)
        return True
