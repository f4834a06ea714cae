"""Traffic: when requests came, and what they were, whatever file that is read from."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from scheduler.recordings.layout import Kind, RecordingError

Seconds = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

MOST_REQUESTS = 20_000_000
"""More would fill the memory of a client host."""


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """Requests by arrival. All arrays have shape (requests,).

    Attributes:
        times_s: arrivals, ascending: seconds since 1970, or since the file's own zero where it has no dates.
        dated: whether they are since 1970.
        kinds: what requests have in common.
        kind: index in `kinds` of each.
        body_bytes: bytes that each adds to a batch on the wire; 0: not known.
        items: length of the batch axis of each, at least 1.
        shapes: number of the shapes of each one's items.
        timeouts_s: each client's own deadline after the arrival; NaN: that of the class.
        cancelled_s: seconds after the arrival at which the client gave up; NaN: it did not.
        notes: sentences about what was left out.
    """

    times_s: Seconds
    dated: bool
    kinds: tuple[Kind, ...]
    kind: Whole
    body_bytes: Whole
    items: Whole
    shapes: Whole
    timeouts_s: Seconds
    cancelled_s: Seconds
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        """Returns the number of requests."""
        return len(self.times_s)

    @property
    def duration_s(self) -> float:
        """Seconds from the first arrival to the last."""
        return float(self.times_s[-1] - self.times_s[0]) if len(self) else 0.0

    def at(self, which: Any) -> "Traffic":
        """Returns the requests at an index array, a mask or a slice."""
        arrays = {name: getattr(self, name)[which] for name in _ARRAYS}
        return replace(self, **arrays)

    def between(self, begin_s: float, end_s: float) -> "Traffic":
        """Returns the requests that came from `begin_s` on and before `end_s`."""
        first, last = np.searchsorted(self.times_s, (begin_s, end_s), side="left")
        return self.at(slice(int(first), int(last)))

    def noted(self, *notes: str) -> "Traffic":
        """Returns the same with further notes."""
        return replace(self, notes=(*self.notes, *filter(None, notes)))


_ARRAYS = ("times_s", "kind", "body_bytes", "items", "shapes", "timeouts_s", "cancelled_s")


def plain_traffic(
    times_s: Seconds,
    *,
    dated: bool,
    kinds: Sequence[Kind] = (Kind("", "", "", 0),),
    kind: Whole | None = None,
    body_bytes: Whole | None = None,
    items: Whole | None = None,
) -> Traffic:
    """Returns traffic of which only this is known, sorted by arrival; requests that come together keep their order.

    An empty name of a model or class stands for the first that is configured.
    """
    requests = len(times_s)
    unsorted = Traffic(
        times_s=times_s,
        dated=dated,
        kinds=tuple(kinds),
        kind=np.zeros(requests, dtype=np.int64) if kind is None else kind,
        body_bytes=np.zeros(requests, dtype=np.int64) if body_bytes is None else body_bytes,
        items=np.ones(requests, dtype=np.int64) if items is None else items,
        shapes=np.zeros(requests, dtype=np.int64),
        timeouts_s=np.full(requests, np.nan),
        cancelled_s=np.full(requests, np.nan),
    )
    return unsorted.at(np.argsort(times_s, kind="stable"))


def joined(parts: Sequence[Traffic]) -> Traffic:
    """Returns all requests of several files by arrival.

    Raises:
        RecordingError: they are too many.
    """
    if sum(map(len, parts)) > MOST_REQUESTS:
        raise RecordingError(f"these are more than {MOST_REQUESTS} requests; choose fewer with --from and --to")
    numbers: dict[Kind, int] = {}
    kinds = [np.array([numbers.setdefault(k, len(numbers)) for k in part.kinds], dtype=np.int64) for part in parts]
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS if name != "kind"}
    arrays["kind"] = np.concatenate([known[part.kind] for known, part in zip(kinds, parts, strict=True)])
    notes = tuple(note for part in parts for note in part.notes)
    whole = Traffic(**arrays, dated=all(part.dated for part in parts), kinds=tuple(numbers), notes=notes)
    return whole.at(np.argsort(whole.times_s, kind="stable"))
