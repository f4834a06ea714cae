"""Spend caps an hour and a day: what was spent, and what happens to requests when a cap is reached."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from scheduler.domain.statistics import CapStatistics

MINUTE_S = 60.0
"""Bucket of the hour: by definition, the cap may count 1/60 too much."""
QUARTER_S = 900.0
"""Bucket of the day: by definition, the cap may count 1/96 too much."""
KEPT_FOR_PRIORITY = 0.2
"""Part of each cap that requests of low priority may not use up where `refuse-low-priority` holds. Judgement: halved or
doubled, cost and lateness stay within noise."""
STATE = "state"
"""What closes the functions, in place of a cap, while the state folder leases nothing: at the start, or if it cannot be
written."""
LENDER = "lender"
"""What closes them while another daemon, from which the money is leased, leases nothing or does not answer."""
_ROUNDING = 1e-9
"""Three batches of a tenth fit into a cap of three tenths, whatever binary fractions make of their sum. Derived: a sum
of thousands of floats errs by less."""


class OverCap(str, Enum):
    """Rules for requests that only a function can answer in time, when a cap is reached (`over_cap`)."""

    SERVE_LATE = "serve-late"
    """The edge answers them, late if it must."""
    REFUSE_LOW_PRIORITY = "refuse-low-priority"
    """The last part of a cap is kept for the others; those of low priority get only spare capacity of the edge."""
    EDGE_ONLY = "edge-only"
    """The edge answers those that it can in time; the others are refused, or served late where their class says so."""


class SpendVerdict(str, Enum):
    """Verdicts: what the spend caps allow for a request."""

    FUNCTION = "function"
    """Any place may answer it: the caps allow its batch."""
    EDGE_IN_TIME = "edge-in-time"
    """Only the edge may answer it, and only in time."""
    EDGE_EVEN_LATE = "edge-even-late"
    """Only the edge may answer it, in time or late."""
    EDGE_IF_IDLE = "edge-if-idle"
    """Only the edge may answer it, if no request of higher priority needs the place; else it is refused at once."""


@dataclass(slots=True)
class SlidingSum:
    """Upper bound of the money booked in a sliding window: whole buckets, with the one that is leaving the window.

    Args:
        bucket_s: length of a bucket.
        buckets: number of buckets in the window; one more is kept.

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
    """By bucket: money booked in it, oldest first; at most `buckets` + 1."""
    _total: float = 0.0

    def book(self, amount: float, *, at_s: float) -> None:
        """Adds money; times must not descend."""
        self.sum(at_s)
        bucket = self._bucket(at_s)
        self._amounts[bucket] = self._amounts.get(bucket, 0.0) + amount
        self._total += amount

    def correct(self, difference: float, *, booked_at_s: float) -> None:
        """Changes the money booked at that time; does nothing if that has left the window."""
        bucket = self._bucket(booked_at_s)
        if bucket in self._amounts:
            self._amounts[bucket] += difference
            self._total += difference

    def sum(self, now_s: float) -> float:
        """Returns an upper bound of the money booked in the window that ends now; drops what has left the window."""
        first, left = self._bucket(now_s) - self.buckets, False
        while self._amounts and (oldest := next(iter(self._amounts))) < first:
            del self._amounts[oldest]
            left = True
        if left:
            # Anew, once a bucket, so that rounding does not add up for months.
            self._total = math.fsum(self._amounts.values())
        return self._total

    def falls_to_s(self, amount: float, now_s: float) -> float:
        """Returns the time from which on the sum is at most `amount` if nothing else is booked; inf for never."""
        left, falls_s = self.sum(now_s), now_s
        if amount < 0:
            return math.inf
        for bucket, booked in self._amounts.items():
            if left <= amount:
                break
            left -= booked
            falls_s = (bucket + 1 + self.buckets) * self.bucket_s
        return falls_s

    def ago(self, now_s: float) -> list[tuple[float, float]]:
        """Returns the money in the window as pairs of seconds ago and amount; a bucket counts as its end."""
        self.sum(now_s)
        ends_s = [((bucket + 1) * self.bucket_s, amount) for bucket, amount in self._amounts.items()]
        return [(max(0.0, now_s - end_s), amount) for end_s, amount in ends_s]

    def remember(self, amount: float, *, at_s: float) -> None:
        """Adds money that was booked before, in any order of times."""
        bucket = self._bucket(at_s)
        self._amounts[bucket] = self._amounts.get(bucket, 0.0) + amount
        self._amounts = dict(sorted(self._amounts.items()))
        self._total = math.fsum(self._amounts.values())

    def _bucket(self, at_s: float) -> int:
        return math.floor(at_s / self.bucket_s)


@dataclass(slots=True)
class Lease:
    """Money leased ahead from a ledger that outlives the process, where one is kept.

    Caps are the ledger's business then: what it does not lease is not spent. It leases less than was asked for when a
    cap is reached, or when it cannot be written; the lease is then `dry` until it gives all that is asked for.

    >>> lease = Lease()
    >>> lease.dry, lease.closed_by
    (True, 'state')
    >>> lease.grant(0.5, closed_by="", opens_at_s=0.0)
    >>> lease.left, lease.dry
    (0.5, False)
    """

    left: float = 0.0
    """Leased and not booked; negative after bills that were higher than what was held back for them."""
    closed_by: str = STATE
    """Why the ledger gave less than was asked for: "hour" or "day", "state" or "lender"; empty if it did not."""
    opens_at_s: float = 0.0
    """When it may give more."""
    batch_cost: float = math.inf
    """Highest cost of one batch, inf until it is known: while so much is left, any batch can be sent without asking."""
    ledger: str = STATE
    """Which ledger it is, "state" or "lender": what closes the functions while that does not answer."""

    @property
    def dry(self) -> bool:
        """Whether no more is to be had than what is left."""
        return bool(self.closed_by)

    def grant(self, amount: float, *, closed_by: str, opens_at_s: float) -> None:
        """Adds what the ledger has leased, with what it says about more."""
        self.left += amount
        self.closed_by, self.opens_at_s = closed_by, opens_at_s


@dataclass(slots=True)
class SpendCap:
    """Caps on the money spent in any hour and in any 24 hours.

    Batches in flight count with a cost that they are unlikely to exceed, so that the cap holds when the bills arrive.
    The windows are counted without a cap too, so that a cap set by a reload includes what was spent before.

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
    lease: Lease | None = None
    """None: no ledger outlives the process, and only what it spent itself counts."""

    @property
    def capped(self) -> bool:
        """Whether there is a cap."""
        return self.per_hour is not None or self.per_day is not None

    @property
    def funded(self) -> bool:
        """Whether a batch need not wait for money that the ledger is about to lease."""
        lease = self.lease
        return lease is None or lease.dry or lease.left >= lease.batch_cost or not self.capped

    def configure(
        self, *, per_hour: float | None, per_day: float | None, leased: str = "", idle_per_s: float = 0.0
    ) -> None:
        """Takes over reloaded caps; money spent before counts.

        Args:
            per_hour: cap on any hour; None: none.
            per_day: cap on any 24 hours.
            leased: which ledger money is leased from, "state" or "lender", which stays so once it is; empty: none.
            idle_per_s: what provisioned instances cost a second whatever is sent; it comes off both caps first.
        """
        hour_s, day_s = self.hour.bucket_s * self.hour.buckets, self.day.bucket_s * self.day.buckets
        self.per_hour = None if per_hour is None else max(0.0, per_hour - idle_per_s * hour_s)
        self.per_day = None if per_day is None else max(0.0, per_day - idle_per_s * day_s)
        if leased and self.lease is None:
            self.lease = Lease(closed_by=leased, ledger=leased)

    def remember(self, before: Iterable[tuple[float, float]], *, now_s: float) -> None:
        """Counts money that earlier processes spent: pairs of seconds ago and amount."""
        for ago_s, amount in before:
            self.hour.remember(amount, at_s=now_s - ago_s)
            self.day.remember(amount, at_s=now_s - ago_s)

    def book(self, amount: float, *, at_s: float) -> None:
        """Counts the cost of a batch that is sent; times must not descend."""
        self.hour.book(amount, at_s=at_s)
        self.day.book(amount, at_s=at_s)
        if self.lease is not None:
            self.lease.left -= amount

    def correct(self, difference: float, *, booked_at_s: float) -> None:
        """Changes the money booked at that time, however long ago it was."""
        self.hour.correct(difference, booked_at_s=booked_at_s)
        self.day.correct(difference, booked_at_s=booked_at_s)
        if self.lease is not None:
            self.lease.left -= difference

    def room(self, now_s: float, *, share: float = 1.0) -> float:
        """Returns the money that may still be spent now, at least 0; inf without a cap.

        Args:
            now_s: the present.
            share: fraction of each cap that may be used up.
        """
        rooms = (cap * share - window.sum(now_s) for _, cap, window in self._caps())
        return max(0.0, min(rooms, default=math.inf))

    def allows(self, cost: float, now_s: float, *, share: float = 1.0) -> bool:
        """Whether the caps allow a batch of at most this cost to be sent now."""
        return not self.closed_by(cost, now_s, share=share)

    def closed_by(self, cost: float, now_s: float, *, share: float = 1.0) -> str:
        """Returns the cap that forbids such a batch, "hour", "day" or the name of a ledger that fails; or empty."""
        caps, lease = self._caps(), self.lease
        for name, cap, window in caps:
            if window.sum(now_s) + cost > cap * share + _ROUNDING * cap:
                return name
        if caps and lease is not None and lease.dry and cost > lease.left + _ROUNDING * caps[0][1]:
            return lease.closed_by
        return ""

    def reopens_at_s(self, cost: float, now_s: float, *, share: float = 1.0) -> float:
        """Returns when such a batch can be sent if no other batch is sent until then; inf for never.

        A bill that is smaller than expected may allow it earlier.
        """
        opens_s = [window.falls_to_s(cap * share + _ROUNDING * cap - cost, now_s) for _, cap, window in self._caps()]
        if opens_s and self.lease is not None and self.lease.dry:
            opens_s.append(self.lease.opens_at_s)
        return max(opens_s, default=now_s)

    def closing(self, cost: float, now_s: float) -> tuple[str, float | None]:
        """Returns what forbids a batch of that cost now, and in how many seconds it is allowed; None: not known.

        A ledger that leases no more forbids it even while a little is left of what it leased before.
        """
        lease = self.lease
        if self.capped and lease is not None and lease.dry:
            return lease.closed_by, max(0.0, lease.opens_at_s - now_s)
        closed_by = self.closed_by(cost, now_s)
        opens_in_s = self.reopens_at_s(cost, now_s) - now_s if closed_by else math.inf
        return closed_by, max(0.0, opens_in_s) if math.isfinite(opens_in_s) else None

    def figures(self, now_s: float) -> tuple[CapStatistics, ...]:
        """Returns each cap with what is spent of it."""
        return tuple(CapStatistics(name, cap, window.sum(now_s)) for name, cap, window in self._caps())

    def _caps(self) -> list[tuple[str, float, SlidingSum]]:
        both = (("hour", self.per_hour, self.hour), ("day", self.per_day, self.day))
        return [(name, cap, window) for name, cap, window in both if cap is not None]


def verdict(cap: SpendCap, over_cap: OverCap, *, cost: float, now_s: float, low_priority: bool) -> SpendVerdict:
    """Returns what the spend caps allow for a request.

    Args:
        cap: the caps, with the cost of everything sent before.
        over_cap: the rule for when a cap is reached.
        cost: cost of the batch that the request would leave in, and of all gathered requests that are not sent yet.
        now_s: the present.
        low_priority: whether its priority is below its model's default level.

    >>> cap = SpendCap(per_hour=1.0)
    >>> cap.book(0.75, at_s=0.0)
    >>> rule = OverCap.REFUSE_LOW_PRIORITY
    >>> [verdict(cap, rule, cost=0.1, now_s=1.0, low_priority=low).value for low in (False, True)]
    ['function', 'edge-if-idle']
    """
    share = share_of(over_cap, low_priority=low_priority)
    if cap.allows(cost, now_s, share=share):
        return SpendVerdict.FUNCTION
    return SpendVerdict.EDGE_IF_IDLE if share < 1.0 else without_money(over_cap)


def without_money(over_cap: OverCap) -> SpendVerdict:
    """Returns what is left to a request that may not go to a function."""
    return SpendVerdict.EDGE_EVEN_LATE if over_cap is OverCap.SERVE_LATE else SpendVerdict.EDGE_IN_TIME


@dataclass(frozen=True, slots=True)
class Closed:
    """The cap that forbids a request to go to a function."""

    window: str
    """Which cap it is: "hour" or "day"; or "state" or "lender", for a ledger that leases nothing."""
    share: float
    """Fraction of the cap that the request might have used."""
    opens_s: float
    """Seconds until the cap allows it if nothing else is sent; inf for never."""
    tenant: str = ""
    """The tenant whose cap it is, or whose part of the common cap is used up; empty: the common cap is reached."""
    own: bool = False
    """Whether it is a cap of the tenant's own."""


OPEN = Closed("", 1.0, 0.0)
"""No cap forbids it."""


def closed(cap: SpendCap, over_cap: OverCap, *, cost: float, now_s: float, low_priority: bool) -> Closed:
    """Returns the cap for which `verdict`, with the same arguments, does not let a request go to a function."""
    share = share_of(over_cap, low_priority=low_priority)
    opens_s = cap.reopens_at_s(cost, now_s, share=share) - now_s
    return Closed(cap.closed_by(cost, now_s, share=share), share, opens_s)


def share_of(over_cap: OverCap, *, low_priority: bool) -> float:
    """Returns the fraction of the caps that a request may use up."""
    return 1.0 - KEPT_FOR_PRIORITY if over_cap is OverCap.REFUSE_LOW_PRIORITY and low_priority else 1.0
