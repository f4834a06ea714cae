"""Which classes requests are of, and how large their items are on the wire."""

import math

from scheduler.domain.plans import SizeShare
from scheduler.estimators.size_effect import bin_end_bytes, size_bin

MEMORY = 2000.0
"""Requests after which older ones fade: shares are known to a few percent, and follow within minutes of traffic."""
_HEAVY = 1e12
MAX_SIZES = 6
"""Size classes that are told apart: the planner's work grows with their square."""
_RARE = 0.005
"""Sizes rarer than this part of the items are counted with the next larger ones."""


class TrafficMix:
    """Fading counts of items by class and by size.

    Newer requests weigh more instead of older ones less, so that an arrival touches two counts only.

    >>> mix = TrafficMix()
    >>> for number in range(4000):
    ...     mix.update("photo" if number % 4 else "video", 1, 20_000.0 if number % 10 else 900_000.0)
    >>> {name: round(share, 2) for name, share in mix.class_shares().items()}
    {'video': 0.25, 'photo': 0.75}
    >>> [(round(size.mean_bytes), round(size.share, 2)) for size in mix.item_sizes()]
    [(20000, 0.9), (900000, 0.1)]
    """

    def __init__(self) -> None:
        """Has seen nothing."""
        self._reset()

    def _reset(self) -> None:
        self._weight = 1.0
        self._classes: dict[str, float] = {}
        self._sizes: dict[int, tuple[float, float]] = {}
        """By bin: weighed items and weighed bytes."""

    def update(self, class_name: str, items: int, item_bytes: float) -> None:
        """Counts a request.

        Args:
            class_name: its class.
            items: how many it has, at least 1.
            item_bytes: bytes of each on the wire.
        """
        self._weight *= 1.0 + 1.0 / MEMORY
        weight = self._weight * items
        self._classes[class_name] = self._classes.get(class_name, 0.0) + weight
        number = size_bin(item_bytes)
        counted, weighed_bytes = self._sizes.get(number, (0.0, 0.0))
        self._sizes[number] = counted + weight, weighed_bytes + weight * item_bytes
        if self._weight > _HEAVY:
            self._lighten()

    def class_shares(self) -> dict[str, float]:
        """Returns the part of the items by class; empty while none was seen."""
        total = math.fsum(self._classes.values())
        return {name: count / total for name, count in self._classes.items()}

    def item_sizes(self) -> tuple[SizeShare, ...]:
        """Returns the part of the items by size, ascending; empty while none was seen."""
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

    def _lighten(self) -> None:
        self._classes = {name: count / self._weight for name, count in self._classes.items()}
        self._sizes = {number: (a / self._weight, b / self._weight) for number, (a, b) in self._sizes.items()}
        self._weight = 1.0


def _merged(sizes: list[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    """Joins the two neighbours that together are rarest."""
    i = min(range(len(sizes) - 1), key=lambda i: sizes[i][2] + sizes[i + 1][2])
    (_, low_bytes, low), (up_to, high_bytes, high) = sizes[i : i + 2]
    return [*sizes[:i], (up_to, low_bytes + high_bytes, low + high), *sizes[i + 2 :]]
