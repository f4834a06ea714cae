"""Whether another speed of a function is one, or only other sizes of items."""

from collections import deque
from collections.abc import Iterable

from scheduler.estimators.changepoint import SHORT_RUN
from scheduler.estimators.size_effect import size_bin


class ServiceChanges:
    """The last services of a tier with the sizes of their largest items, which services may depend on.

    >>> changes = ServiceChanges()
    >>> for deviation, item_bytes in [(0.0, 1e4), (1.1, 3e5)] * 20 + [(0.0, 1e4)] * 6:
    ...     changes.note(item_bytes, deviation)
    >>> changes.step(6)
    0.0
    >>> for _ in range(4):
    ...     changes.note(1e4, 0.7)
    >>> round(changes.step(4), 1)
    0.7
    """

    def __init__(self) -> None:
        """Starts without any service."""
        self._recent: deque[tuple[int, float]] = deque(maxlen=2 * SHORT_RUN)
        """Bin of the size, and log(service / profile)."""

    def note(self, largest_item_bytes: float, deviation: float) -> None:
        """Notes an answered batch, with its log(service / profile)."""
        self._recent.append((size_bin(largest_item_bytes), deviation))

    def step(self, run_length: int) -> float:
        """Returns by how much the last `run_length` deviations exceed earlier ones of the same sizes, on average.

        0 where no batches of the same sizes came before: then nothing is known.
        """
        notes = list(self._recent)
        before, after = _by_bin(notes[:-run_length]), _by_bin(notes[-run_length:])
        steps = [
            (len(own), sum(own) / len(own) - sum(before[number]) / len(before[number]))
            for number, own in after.items()
            if number in before
        ]
        weight = sum(count for count, _ in steps)
        return sum(count * step for count, step in steps) / weight if weight else 0.0


def _by_bin(notes: Iterable[tuple[int, float]]) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for number, deviation in notes:
        found.setdefault(number, []).append(deviation)
    return found
