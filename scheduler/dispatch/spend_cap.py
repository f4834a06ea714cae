"""Most money an hour and a day: counted where batches are sent, and what is done when it is used up."""

import math
from dataclasses import dataclass, field
from enum import Enum

MINUTE_S = 60.0
QUARTER_S = 900.0
KEPT_FOR_PRIORITY = 0.2
"""Part of each cap that requests of low priority may not use up where `refuse-low-priority` holds."""
_ROUNDING = 1e-9
"""Three batches of a tenth fit into a cap of three tenths, whatever binary fractions make of their sum."""


class OverCap(str, Enum):
    """What happens to requests that only a function can answer in time when a cap is reached (`over_cap`)."""

    SERVE_LATE = "serve-late"
    """The edge answers them, late if it must."""
    REFUSE_LOW_PRIORITY = "refuse-low-priority"
    """The last of the money is kept for the others; those of low priority get only what the edge has to spare."""
    EDGE_ONLY = "edge-only"
    """The edge answers whom it can in time; the others are refused, or served late where their class says so."""


class SpendVerdict(str, Enum):
    """What may be done with a request, as far as money goes."""

    FUNCTION = "function"
    """Anything: there is money for its batch."""
    EDGE_IN_TIME = "edge-in-time"
    """The edge answers it in time, or nobody does."""
    EDGE_EVEN_LATE = "edge-even-late"
    """The edge answers it, in time or not."""
    EDGE_IF_IDLE = "edge-if-idle"
    """The edge answers it if nobody of higher priority needs the place; otherwise it is refused at once."""


@dataclass(slots=True)
class SlidingSum:
    """Upper bound of the money booked in a window that slides: whole buckets, the one that it leaves included.

    Args:
        bucket_s: length of a bucket.
        buckets: so many make up the window; one more is kept.

    >>> hour = SlidingSum(bucket_s=60.0, buckets=60)
    >>> hour.book(2.0, at_s=59.0)
    >>> hour.book(1.0, at_s=60.0)
    >>> hour.correct(0.5, booked_at_s=59.0)
    >>> hour.sum(3659.9), hour.sum(3660.0), hour.sum(3720.0)
    (3.5, 1.0, 0.0)
    """

    bucket_s: float
    buckets: int
    _amounts: dict[int, float] = field(default_factory=dict)
    """Bucket -> money booked in it, oldest first; at most `buckets` + 1."""
    _total: float = 0.0

    def book(self, amount: float, *, at_s: float) -> None:
        """Adds money; times must not descend."""
        self.sum(at_s)
        bucket = self._bucket(at_s)
        self._amounts[bucket] = self._amounts.get(bucket, 0.0) + amount
        self._total += amount

    def correct(self, difference: float, *, booked_at_s: float) -> None:
        """Changes what was booked at that time; nothing if it has left the window."""
        bucket = self._bucket(booked_at_s)
        if bucket in self._amounts:
            self._amounts[bucket] += difference
            self._total += difference

    def sum(self, now_s: float) -> float:
        """Returns at least what was booked in the window that ends now, and lets go what has left it."""
        first, left = self._bucket(now_s) - self.buckets, False
        while self._amounts and (oldest := next(iter(self._amounts))) < first:
            del self._amounts[oldest]
            left = True
        if left:
            # Anew, once a bucket, so that rounding does not add up for months.
            self._total = math.fsum(self._amounts.values())
        return self._total

    def falls_to_s(self, amount: float, now_s: float) -> float:
        """Returns from when on the sum is at most `amount` if nothing else is booked; inf for never."""
        left, falls_s = self.sum(now_s), now_s
        if amount < 0:
            return math.inf
        for bucket, booked in self._amounts.items():
            if left <= amount:
                break
            left -= booked
            falls_s = (bucket + 1 + self.buckets) * self.bucket_s
        return falls_s

    def _bucket(self, at_s: float) -> int:
        return math.floor(at_s / self.bucket_s)


@dataclass(slots=True)
class SpendCap:
    """Money allowed in any hour and any day, from whatever moment they are counted.

    What is in flight counts with the most that it is likely to cost, so that the cap holds when the bills come. The
    windows are counted without a cap too: one that a reload brings knows what was spent before.

    >>> cap = SpendCap(per_hour=1.0)
    >>> cap.book(0.9, at_s=0.0)
    >>> cap.allows(0.2, 10.0), cap.closed_by(0.2, 10.0), cap.reopens_at_s(0.2, 10.0)
    (False, 'hour', 3660.0)
    >>> cap.correct(-0.3, booked_at_s=0.0)
    >>> cap.allows(0.2, 20.0), round(cap.room(20.0), 6)
    (True, 0.4)
    """

    per_hour: float | None = None
    """None: no cap."""
    per_day: float | None = None
    hour: SlidingSum = field(default_factory=lambda: SlidingSum(bucket_s=MINUTE_S, buckets=60))
    day: SlidingSum = field(default_factory=lambda: SlidingSum(bucket_s=QUARTER_S, buckets=96))

    def book(self, amount: float, *, at_s: float) -> None:
        """Counts money when a batch is sent; times must not descend."""
        self.hour.book(amount, at_s=at_s)
        self.day.book(amount, at_s=at_s)

    def correct(self, difference: float, *, booked_at_s: float) -> None:
        """Moves what was booked at that time up or down, however much later."""
        self.hour.correct(difference, booked_at_s=booked_at_s)
        self.day.correct(difference, booked_at_s=booked_at_s)

    def room(self, now_s: float, *, share: float = 1.0) -> float:
        """Returns the money that may still be spent now, at least 0; inf without a cap.

        Args:
            now_s: the present.
            share: fraction of each cap that may be used up.
        """
        rooms = (cap * share - window.sum(now_s) for _, cap, window in self._caps())
        return max(0.0, min(rooms, default=math.inf))

    def allows(self, cost: float, now_s: float, *, share: float = 1.0) -> bool:
        """Whether a batch that may cost so much can be sent now."""
        return not self.closed_by(cost, now_s, share=share)

    def closed_by(self, cost: float, now_s: float, *, share: float = 1.0) -> str:
        """Returns which cap forbids such a batch, "hour" or "day"; empty where none does."""
        for name, cap, window in self._caps():
            if window.sum(now_s) + cost > cap * share + _ROUNDING * cap:
                return name
        return ""

    def reopens_at_s(self, cost: float, now_s: float, *, share: float = 1.0) -> float:
        """Returns when such a batch can be sent if nothing else is until then; inf for never.

        A bill that is smaller than expected may open it earlier.
        """
        opens_s = (window.falls_to_s(cap * share + _ROUNDING * cap - cost, now_s) for _, cap, window in self._caps())
        return max(opens_s, default=now_s)

    def _caps(self) -> list[tuple[str, float, SlidingSum]]:
        both = (("hour", self.per_hour, self.hour), ("day", self.per_day, self.day))
        return [(name, cap, window) for name, cap, window in both if cap is not None]


def course(cap: SpendCap, over_cap: OverCap, *, cost: float, now_s: float, low_priority: bool) -> SpendVerdict:
    """Returns what may be done with a request.

    Args:
        cap: with all that was sent before.
        over_cap: what is done when it is reached.
        cost: money of the batch that the request would leave in, with what is gathered and not yet sent.
        now_s: the present.
        low_priority: whether it is below its model's default level.

    >>> cap = SpendCap(per_hour=1.0)
    >>> cap.book(0.75, at_s=0.0)
    >>> [course(cap, OverCap.REFUSE_LOW_PRIORITY, cost=0.1, now_s=1.0, low_priority=low).value for low in (False, True)]
    ['function', 'edge-if-idle']
    """
    share = _share(over_cap, low_priority=low_priority)
    if cap.allows(cost, now_s, share=share):
        return SpendVerdict.FUNCTION
    if share < 1.0:
        return SpendVerdict.EDGE_IF_IDLE
    return SpendVerdict.EDGE_EVEN_LATE if over_cap is OverCap.SERVE_LATE else SpendVerdict.EDGE_IN_TIME


@dataclass(frozen=True, slots=True)
class Closed:
    """Why there is no money for a request."""

    window: str
    """The cap that forbids it: "hour" or "day"."""
    share: float
    """Fraction of the cap that it might have used up."""
    opens_s: float
    """Seconds until there is money for it if nothing else is sent; inf for never."""


def closed(cap: SpendCap, over_cap: OverCap, *, cost: float, now_s: float, low_priority: bool) -> Closed:
    """Returns why `course`, with the same arguments, does not let a request go to a function."""
    share = _share(over_cap, low_priority=low_priority)
    opens_s = cap.reopens_at_s(cost, now_s, share=share) - now_s
    return Closed(cap.closed_by(cost, now_s, share=share), share, opens_s)


def _share(over_cap: OverCap, *, low_priority: bool) -> float:
    return 1.0 - KEPT_FOR_PRIORITY if over_cap is OverCap.REFUSE_LOW_PRIORITY and low_priority else 1.0
