"""Whether another speed of a function is one, or only chance, other sizes of items, or the order of the answers."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from scheduler.estimators.changepoint import SHORT_RUN, Change
from scheduler.estimators.service_time import MIN_SIGMA
from scheduler.estimators.size_effect import size_bin

LEAST_STEP = 0.15
"""Change of the logarithm of a function's service that is reported. Judgement: a plan changes little for less than a
sixth."""
LEAST_BATCHES = 4
"""Batches since the change that are needed. Judgement: with fewer, their own scatter is not known."""
LEAST_DEVIATIONS = 4.5
"""Standard errors by which the change must exceed 0. Derived: about 3e-6 of the suspected changes exceed it by chance;
at 3.5, a bursty hour of the simulator has one that does (tests/simulation/test_slow_functions.py)."""
MOST_BATCHES = SHORT_RUN
"""Batches after which a suspected change that has not shown is none."""
OUTLIVED = SHORT_RUN // 4
"""Batches after which another suspicion replaces one that has not shown."""
KEPT = 8 * SHORT_RUN
"""Services kept. Derived: a burst may have several hundred batches out at once, and those before it must be known."""
HANGS = 3.0
"""A batch that is out for so many times the longest of these services is not waited for."""
SPACING = 1.25
"""Growth of the number of answers between two comparisons: a suspicion costs little however many answers it takes."""


class Note(NamedTuple):
    """An answered batch."""

    sent_at_s: float
    bin: int
    """Of the size of its largest item, which the service may depend on."""
    elapsed_s: float
    """From the send to the answer."""
    level: float
    """log(service / profile), without the error of the profile at that number of items."""


@dataclass(slots=True)
class Suspicion:
    """A change that the detector has seen among answers."""

    change: Change
    since_s: float
    """When the first of its batches was sent."""
    answers: int = 0
    """Answers since."""
    next_at: float = 1.0
    """Number of answers at which batches are compared."""


class ServiceChanges:
    """The last services of a tier, by which a change that the detector suspects is confirmed.

    The detector gets answers in their order, and batches that were sent together come back the fastest first: a few
    fast ones, then a few slow ones, although nothing has changed. So the batches are compared by when they were sent,
    and only when none that was sent before them is still out. They are compared with earlier ones of the same sizes.

    >>> changes, none = ServiceChanges(), math.inf
    >>> for number in range(40):
    ...     changes.note(1e4, 0.1 * (number % 2), sent_at_s=number, elapsed_s=9.0)
    >>> for number in range(40, 46):
    ...     changes.note(1e4, 0.7 + 0.1 * (number % 2), sent_at_s=number, elapsed_s=9.0)
    >>> suspected = Change(index=45, run_length=4, before_mean=0.05, after_mean=0.75, probability=0.95)
    >>> changes.shown(suspected, open_since_s=41.0)
    >>> changes.shown(None, open_since_s=none).run_length
    4
    >>> changes.shown(None, open_since_s=none)
    """

    def __init__(self) -> None:
        """Starts without any service."""
        self._recent: deque[Note] = deque(maxlen=KEPT)
        self._suspicion: Suspicion | None = None

    def note(self, largest_item_bytes: float, level: float, *, sent_at_s: float, elapsed_s: float) -> None:
        """Notes an answered batch, with its log(service / profile)."""
        self._recent.append(Note(sent_at_s, size_bin(largest_item_bytes), elapsed_s, level))

    def shown(self, suspected: Change | None, *, open_since_s: float) -> Change | None:
        """Returns the suspected change as soon as batches in the order of their sends show it, once.

        Args:
            suspected: what the detector has found by the newest answer.
            open_since_s: when the oldest function batch was sent that is still in flight; inf for none.
        """
        if suspected is not None and (self._suspicion is None or self._suspicion.answers > OUTLIVED):
            notes = list(self._recent)[-suspected.run_length :]
            self._suspicion = Suspicion(suspected, min(note.sent_at_s for note in notes))
        suspicion = self._suspicion
        if suspicion is None:
            return None
        suspicion.answers += 1
        if suspicion.answers < suspicion.next_at:
            return None
        suspicion.next_at = suspicion.answers * SPACING
        return self._compare(suspicion, self._all_back_until_s(open_since_s))

    def _all_back_until_s(self, open_since_s: float) -> float:
        """Returns the time before which all batches are back that were sent, but for those that hang."""
        newest = self._recent[-1]
        hangs_s = HANGS * max(note.elapsed_s for note in self._recent)
        return max(open_since_s, newest.sent_at_s + newest.elapsed_s - hangs_s)

    def _compare(self, suspicion: Suspicion, until_s: float) -> Change | None:
        before: list[Note] = []
        after: list[Note] = []
        for note in self._recent:
            if note.sent_at_s < until_s:
                (before if note.sent_at_s < suspicion.since_s else after).append(note)
        change, step = suspicion.change, _step(before[-2 * SHORT_RUN :], after)
        shown = step * (change.after_mean - change.before_mean) > 0
        if shown or len(after) >= MOST_BATCHES:
            self._suspicion = None
        if not shown:
            return None
        after_mean = _mean([note.level for note in after])
        return replace(change, run_length=len(after), before_mean=after_mean - step, after_mean=after_mean)


def _step(before: Sequence[Note], after: Sequence[Note]) -> float:
    """Returns by how much later levels exceed earlier ones of the same sizes, on average; 0 where that may be chance.

    0 also where no batches of the same sizes came before: then nothing is known.
    """
    earlier, later = _by_bin(before), _by_bin(after)
    pairs = [(earlier[number], own) for number, own in later.items() if number in earlier]
    count = sum(len(own) for _, own in pairs)
    if count < LEAST_BATCHES:
        return 0.0
    step = sum(len(own) * (_mean(own) - _mean(others)) for others, own in pairs) / count
    scatter = [(level - _mean(levels)) ** 2 for pair in pairs for levels in pair for level in levels]
    groups = 2 * len(pairs)
    variance = max(sum(scatter) / max(1, len(scatter) - groups), MIN_SIGMA**2)
    # Of the mean of each bin, earlier and later.
    error = math.sqrt(variance * sum((len(own) / count) ** 2 * (1 / len(own) + 1 / len(o)) for o, own in pairs))
    return step if abs(step) >= max(LEAST_STEP, LEAST_DEVIATIONS * error) else 0.0


def _by_bin(notes: Sequence[Note]) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for note in notes:
        found.setdefault(note.bin, []).append(note.level)
    return found


def _mean(levels: Sequence[float]) -> float:
    return sum(levels) / len(levels)
