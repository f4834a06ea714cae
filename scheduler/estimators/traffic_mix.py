"""Shares of the service classes, and sizes of items on the wire."""

import math

from scheduler.domain.memory import entries, finite, finites, part_known
from scheduler.domain.plans import SizeShare
from scheduler.estimators.size_effect import bin_end_bytes, size_bin

MEMORY = 2000.0
"""Requests after which older ones fade. A share of a half then scatters by 0.8 %; with half the memory by 1.1 %, and
with twice as much it follows a change half as fast."""
_MAX_WEIGHT = 1e12
"""Weight above which all counts are divided, long before a float loses digits."""
MAX_SIZES = 6
"""Largest number of size classes: the work of the planner grows with its square. Judgement: with 12 a plan by size
takes four times as long, and sizes within a factor of two need no buffers of their own."""
_RARE = 0.005
"""Share of the items below which a size is counted with the next larger one. Judgement: half a percent is at most what
a percentile of 0.99 leaves."""


class TrafficMix:
    """Fading counts of items by class and by size.

    Newer requests get a larger weight instead of older ones a smaller one, so that an arrival changes two counts only.

    >>> mix = TrafficMix()
    >>> for number in range(4000):
    ...     mix.update("photo" if number % 4 else "video", 1, 20_000.0 if number % 10 else 900_000.0)
    >>> {name: round(share, 2) for name, share in mix.class_shares().items()}
    {'video': 0.25, 'photo': 0.75}
    >>> [(round(size.mean_bytes), round(size.share, 2)) for size in mix.item_sizes()]
    [(20000, 0.9), (900000, 0.1)]
    """

    def __init__(self) -> None:
        """Starts without requests."""
        self._reset()

    def _reset(self) -> None:
        self._weight = 1.0
        self._classes: dict[str, float] = {}
        self._sizes: dict[int, tuple[float, float]] = {}
        """By bin: weighted items and weighted bytes."""
        self._last_bytes, self._last_bin = -1.0, 0
        """The size of the last item, and its bin."""

    def update(self, class_name: str, items: int, item_bytes: float) -> None:
        """Counts a request.

        Args:
            class_name: its class.
            items: number of its items, at least 1.
            item_bytes: bytes of each item on the wire.
        """
        self._weight *= 1.0 + 1.0 / MEMORY
        weight = self._weight * items
        self._classes[class_name] = self._classes.get(class_name, 0.0) + weight
        if item_bytes != self._last_bytes:
            self._last_bytes, self._last_bin = item_bytes, size_bin(item_bytes)
        number = self._last_bin
        counted, weighed_bytes = self._sizes.get(number, (0.0, 0.0))
        self._sizes[number] = counted + weight, weighed_bytes + weight * item_bytes
        if self._weight > _MAX_WEIGHT:
            self._rescale()

    def snapshot(self) -> dict[str, object]:
        """Returns what is known, for `restored`."""
        weight = self._weight
        return {
            "classes": {name: count / weight for name, count in self._classes.items()},
            "sizes": {str(bin_): [a / weight, b / weight] for bin_, (a, b) in self._sizes.items()},
        }

    @classmethod
    def restored(cls, content: object, *, age_s: float) -> "TrafficMix":
        """Returns the mix that a snapshot of that age knew; KeyError, TypeError or ValueError where it is none."""
        given, mix, kept = entries(content), cls(), part_known(age_s)
        mix._classes = {name: kept * finite(count) for name, count in entries(given["classes"]).items()}
        if any(count <= 0 for count in mix._classes.values()):
            raise ValueError("a snapshot with classes of no items")
        for bin_, counts in entries(given["sizes"]).items():
            items, weighed_bytes = finites(counts)
            if items <= 0 or weighed_bytes < 0:
                raise ValueError("a snapshot with sizes of no items")
            mix._sizes[int(bin_)] = kept * items, kept * weighed_bytes
        return mix

    def class_shares(self) -> dict[str, float]:
        """Returns the share of the items by class; empty before the first request."""
        total = math.fsum(self._classes.values())
        return {name: count / total for name, count in self._classes.items()}

    def item_sizes(self) -> tuple[SizeShare, ...]:
        """Returns the share of the items by size, ascending; empty before the first request."""
        total = math.fsum(count for count, _ in self._sizes.values())
        found: list[tuple[float, float, float]] = []
        count = weighed_bytes = 0.0
        largest = max(self._sizes, default=0)
        for number in sorted(self._sizes):
            more, more_bytes = self._sizes[number]
            count, weighed_bytes = count + more, weighed_bytes + more_bytes
            if count >= _RARE * total or number == largest:
                found.append((bin_end_bytes(number), weighed_bytes, count))
                count = weighed_bytes = 0.0
        while len(found) > MAX_SIZES:
            found = _merged(found)
        return tuple(SizeShare(up_to, weighed / count, count / total) for up_to, weighed, count in found)

    def _rescale(self) -> None:
        self._classes = {name: count / self._weight for name, count in self._classes.items()}
        self._sizes = {number: (a / self._weight, b / self._weight) for number, (a, b) in self._sizes.items()}
        self._weight = 1.0


def _merged(sizes: list[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    """Merges the two neighbouring sizes that are rarest together."""
    i = min(range(len(sizes) - 1), key=lambda i: sizes[i][2] + sizes[i + 1][2])
    (_, low_bytes, low), (up_to, high_bytes, high) = sizes[i : i + 2]
    return [*sizes[:i], (up_to, low_bytes + high_bytes, low + high), *sizes[i + 2 :]]
