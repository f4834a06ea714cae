"""Money between tenants: caps of their own, the share of the common caps that is kept for each, and what each spent."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from scheduler.dispatch.queue import QueuedRequest
from scheduler.dispatch.spend_cap import OPEN, Closed, SlidingSum, SpendCap
from scheduler.dispatch.tenants import Tenants
from scheduler.domain.tenants import TenantSettings, TenantStatistics

RECENT_S = 300.0
"""Seconds over which a tenant's spending is averaged. Judgement: long beside a burst, short beside an hour."""
EXPECTED = 1.5
"""So many times what a tenant spends at its recent rate is kept for it, up to its share. Judgement: at twice the rate,
as after a change, it still finds three quarters of its money."""
KEPT = 0.1
"""Part of its share that is kept for a tenant whatever its rate, for an hour after it has asked for money. Judgement:
what it may cost the others if it does not come back."""
MOST_LEFT = 256
"""Tenants that left of which is kept what they spent. A bound of memory."""
HOUR_S, DAY_S = 3600.0, 86400.0
_ROUNDING = 1e-9

Parts = tuple[tuple[tuple[str, str, str], float], ...]
"""((tenant, model, class), part of a batch by items); the parts are 1 in sum. Empty: tenants are not told apart."""


@dataclass(slots=True)
class SpendRate:
    """Average of money a second, exponentially weighted over the last minutes; unbiased from the first booking on."""

    since_s: float = math.inf
    at_s: float = 0.0
    amount: float = 0.0

    def book(self, amount: float, now_s: float) -> None:
        """Adds money; times must not descend."""
        if now_s - self.at_s > HOUR_S:
            self.since_s = math.inf
        self.amount = self.amount * math.exp((self.at_s - now_s) / RECENT_S) + amount
        self.since_s, self.at_s = min(self.since_s, now_s), now_s

    def per_s(self, now_s: float) -> float:
        """Returns money a second."""
        if self.since_s == math.inf:
            return 0.0
        weight_s = RECENT_S * -math.expm1((self.since_s - now_s - 1.0) / RECENT_S)
        return self.amount * math.exp((self.at_s - now_s) / RECENT_S) / weight_s


def water_filling(amount: float, needs: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """Returns weighted max-min fair parts of an amount: none above its need, the others in the ratio of their weights.

    >>> water_filling(10.0, {"a": 9.0, "b": 9.0, "c": 1.0}, {"a": 2.0, "b": 1.0, "c": 1.0})
    {'c': 1.0, 'a': 6.0, 'b': 3.0}
    """
    parts: dict[str, float] = {}
    left, weight = amount, sum(weights[name] for name in needs)
    # The tenant that needs least for its weight is satisfied first; from then on all others get what is left.
    for name in sorted(needs, key=lambda name: needs[name] / weights[name]):
        parts[name] = min(needs[name], left * weights[name] / weight)
        left, weight = left - parts[name], weight - weights[name]
    return parts


@dataclass(slots=True)
class TenantMoney:
    """What the tenants have spent, and what each may still spend.

    Of a common cap each tenant that has asked for money within an hour has its share (weighted max-min fairness): what
    one of them does not need goes to the others in the ratio of their shares. Needed is what it has spent, what it will
    spend at its recent rate, and at least a tenth of its share; without limit, if it was refused money lately.
    """

    tenants: Tenants = field(default_factory=Tenants)
    own: dict[str, SpendCap] = field(default_factory=dict)
    """By tenant: caps of its own, and what it spent in the last hour and day."""
    costs: dict[tuple[str, str, str], float] = field(default_factory=dict)
    """By (tenant, model, class): settled cost."""
    rates: dict[str, SpendRate] = field(default_factory=dict)
    asked_at_s: dict[str, float] = field(default_factory=dict)
    refused_at_s: dict[str, float] = field(default_factory=dict)
    left: dict[str, SpendCap] = field(default_factory=dict)
    """Of tenants that left the configuration: what they spent, for when they come back."""
    capped: bool = False
    """Whether any tenant has a cap of its own."""

    def configure(self, settings: Sequence[TenantSettings], waiting: Iterable[QueuedRequest] = ()) -> None:
        """Takes over tenants, shares and caps; money spent before counts.

        Args:
            settings: the configured tenants.
            waiting: all requests that have not ended.
        """
        self.tenants.configure(settings, waiting)
        caps = {tenant.name: (tenant.per_hour, tenant.per_day) for tenant in settings}
        known = self.left | self.own
        self.own = {label: known.get(label) or SpendCap() for label in self.tenants.shares}
        left = [(label, own) for label, own in known.items() if label not in self.own]
        self.left = dict(left[-MOST_LEFT:])
        self.rates = {label: self.rates.get(label) or SpendRate() for label in self.own}
        self.asked_at_s = {label: self.asked_at_s.get(label, -math.inf) for label in self.own}
        self.refused_at_s = {label: self.refused_at_s.get(label, -math.inf) for label in self.own}
        for label, own in self.own.items():
            per_hour, per_day = caps.get(label, (None, None))
            own.configure(per_hour=per_hour, per_day=per_day)
        self.capped = any(own.per_hour is not None or own.per_day is not None for own in self.own.values())

    def parts(self, members: Sequence[QueuedRequest]) -> Parts:
        """Returns whose batch of these members it is, by items; empty without tenants, and for a warming call."""
        if not self.own or not members:
            return ()
        items: dict[tuple[str, str, str], int] = {}
        for queued in members:
            request = queued.request
            key = self.tenants.label(queued), request.model, request.class_name
            items[key] = items.get(key, 0) + request.items
        total = sum(items.values())
        return tuple((key, count / total) for key, count in items.items())

    def book(self, parts: Parts, held: float, *, now_s: float) -> None:
        """Counts a batch that is sent, with the money that is held back for it."""
        for (label, _, _), part in parts:
            if label in self.own:
                self.own[label].book(held * part, at_s=now_s)
                self.rates[label].book(held * part, now_s)

    def correct(self, parts: Parts, difference: float, *, booked_at_s: float) -> None:
        """Changes the money held for a batch that was booked at that time."""
        for (label, _, _), part in parts:
            if label in self.own:
                self.own[label].correct(difference * part, booked_at_s=booked_at_s)

    def settle(self, parts: Parts, cost: float) -> None:
        """Counts the cost of a batch, or a correction to it."""
        for key, part in parts:
            self.costs[key] = self.costs.get(key, 0.0) + cost * part

    def items_of(self, label: str, waiting: Iterable[QueuedRequest]) -> int:
        """Returns the items of one tenant's requests."""
        return sum(q.request.items for q in waiting if self.tenants.label(q) == label)

    def closed(self, label: str, cap: SpendCap, *, cost: float, now_s: float) -> Closed:
        """Returns which cap forbids a tenant so much more money, its own or a common one; OPEN if none does.

        Args:
            label: the tenant.
            cap: the common caps.
            cost: what it asks for, with what is gathered of it already.
            now_s: the present.
        """
        window = self.closed_by(label, cost, now_s)
        if window:
            opens_s = self.own[label].reopens_at_s(cost, now_s) - now_s
            return Closed(window, 1.0, opens_s, label, own=True)
        for window, amount in (("hour", cap.per_hour), ("day", cap.per_day)):
            if amount is None:
                continue
            spent = self._window(label, window)
            most = self._entitled(label, window, amount, spent.sum(now_s) + cost, now_s) * (1.0 + _ROUNDING)
            if spent.sum(now_s) + cost > most:
                self.refused_at_s[label] = now_s
                return Closed(window, 1.0, spent.falls_to_s(most - cost, now_s) - now_s, label)
        return OPEN

    def refused(self, queued: QueuedRequest, now_s: float) -> None:
        """Notes that a request got no money because a common cap is reached: its tenant needs more than it spends."""
        label = self.tenants.label(queued)
        if label in self.own:
            self.asked_at_s[label] = self.refused_at_s[label] = now_s

    def closed_by(self, label: str, cost: float, now_s: float) -> str:
        """Returns the tenant's own cap that forbids so much more, "hour" or "day"; empty if none does."""
        return self.own[label].closed_by(cost, now_s) if label in self.own else ""

    def _window(self, label: str, name: str) -> SlidingSum:
        return self.own[label].hour if name == "hour" else self.own[label].day

    def _entitled(self, label: str, window: str, amount: float, wanted: float, now_s: float) -> float:
        """Returns how much of a common cap a tenant may use within the window, or at least what it wants now."""
        self.asked_at_s[label] = now_s
        if wanted <= self.tenants.shares[label] * amount:
            return wanted
        needs = {
            other: self._needs(other, window, amount, now_s)
            for other, asked_at_s in self.asked_at_s.items()
            if other != label and now_s - asked_at_s <= HOUR_S
        }
        return water_filling(amount, {**needs, label: math.inf}, self.tenants.shares)[label]

    def _needs(self, label: str, window: str, amount: float, now_s: float) -> float:
        if now_s - self.refused_at_s[label] <= RECENT_S:
            return math.inf
        expected = EXPECTED * self.rates[label].per_s(now_s) * (HOUR_S if window == "hour" else DAY_S)
        return max(self._window(label, window).sum(now_s), expected, KEPT * self.tenants.shares[label] * amount)

    def statistics(self, in_flight: Iterable[tuple[Parts, float]], now_s: float) -> tuple[TenantStatistics, ...]:
        """Returns the state of every tenant.

        Args:
            in_flight: parts and expected cost of each batch in flight.
            now_s: the present.
        """
        spent = dict.fromkeys(self.own, 0.0)
        costs: dict[str, list[tuple[str, str, float]]] = {label: [] for label in self.own}
        for (label, model, class_name), cost in sorted(self.costs.items()):
            if label in spent:
                spent[label] += cost
                costs[label].append((model, class_name, cost))
        for parts, cost in in_flight:
            for (label, _, _), part in parts:
                if label in spent:
                    spent[label] += cost * part
        return tuple(
            TenantStatistics(
                name=label,
                share=share,
                open_requests=self.tenants.open[label][0],
                edge_s=self.tenants.edge_s[label],
                spent=spent[label],
                spent_hour=self.own[label].hour.sum(now_s),
                spent_day=self.own[label].day.sum(now_s),
                costs=tuple(costs[label]),
            )
            for label, share in self.tenants.shares.items()
        )
