"""The record of a decision: the offers that were compared, the choice and the cause. Wording is left to readers."""

import math
from enum import Enum
from typing import NamedTuple

from scheduler.domain.lifecycle import State
from scheduler.domain.requests import Place, Request


class Cause(str, Enum):
    """Causes of decisions; the values are the words of records and files."""

    ARRIVAL = "arrival"
    DEFERRAL_OVER = "deferral-over"
    """A deferrable request could not wait for an idle edge any longer."""
    DISPLACED = "displaced"
    """Another request took its place."""
    EDGE_SENT = "edge-sent"
    """An edge batch left without it."""
    EDGE_DELAYED = "edge-delayed"
    """The edge was slower than forecast."""
    NO_SLOT = "no-slot"
    """It waited too long for a free function call."""
    BISECTED = "bisected"
    """Its deadline passed while it waited to be sent again in half a batch."""
    FAILURE = "failure"
    """A backend failed."""
    QUOTA = "quota"
    """The provider refused its function batch for want of capacity: as many calls ran as it grants."""
    LIMITS = "limits"
    """An operator changed limits or the configuration, or a limit no longer lets its batch leave."""
    PLAN = "plan"
    """A new plan was adopted."""
    SPEND_CAP = "spend-cap"
    """The spend cap no longer lets the gathered batch leave."""
    TOP_UP = "top-up"
    """A function batch that was being sent had room; no choice."""
    PIGGYBACK = "piggyback"
    """An edge batch that was being sent had room; no choice."""
    RECLAIMED = "reclaimed"
    """The following edge batch had room for a request that was gathered for a function; no choice."""
    HEDGE = "hedge"
    """Its batch was overdue, so a second copy was sent to the other side; no choice."""
    OVERDUE_SENT = "overdue-sent"
    """It waited to be answered late, and a function took it; no choice."""
    TRIAL = "trial"
    """It, or a copy, was sent to learn whether a place that seems too slow for it still is; no choice."""


NO_CHOICE = frozenset({Cause.TOP_UP, Cause.PIGGYBACK, Cause.RECLAIMED, Cause.HEDGE, Cause.OVERDUE_SENT, Cause.TRIAL})
"""Causes of moves in which no offers are compared."""


class Reason(str, Enum):
    """Reasons why an offer is impossible or costs more than the chosen one; the values are public words."""

    CLASS = "class"
    """The request's class may not go there (edge-only data stays on the site)."""
    NO_BACKEND = "no-backend"
    """No backend serves the model there."""
    FAILED_THERE = "failed-there"
    """A batch with this request failed there, or the request has already changed from there to the other side."""
    QUOTA = "quota"
    """The provider's quota refused it there, as often as it is sent there."""
    TOO_LARGE = "too-large"
    """The request has more items, or more bytes, than a batch there may have."""
    CIRCUIT_OPEN = "circuit-open"
    """The backend does not answer, and is not used until a probe succeeds."""
    BATCH_FULL = "batch-full"
    """The edge's next batch has its largest allowed number of items."""
    JOINS_LATE = "joins-late"
    """With the newcomers that are expected, the batch that this request would open is expected to miss its deadline."""
    FIRST_DEADLINE = "first-deadline"
    """With this request the batch is expected to miss the deadline of its first member."""
    NO_SLOT = "no-slot"
    """No function call is free before it is too late."""
    COLD = "cold"
    """It would most likely meet a cold start, which would make it late."""
    LATE = "late"
    """It is expected to be answered after its deadline."""
    TOO_RISKY = "too-risky"
    """The risk of being late costs more than a refusal."""
    SPEND_CAP = "spend-cap"
    """A spend cap forbids the money for it."""
    BUDGET = "budget"
    """It misses its objective on purpose: its class may, and being in time would have cost more."""
    GIVES_WAY = "gives-way"
    """The edge's remaining capacity is kept for requests of higher priority."""
    NOT_SERVED_LATE = "not-served-late"
    """Its class is not answered after its deadline."""
    NO_PLACE_GIVEN_UP = "no-place-given-up"
    """No member of the edge's next batch can be moved elsewhere to make room."""
    MONEY = "money"
    """It costs more money."""
    LATENESS = "lateness"
    """The risk of being late costs more there."""
    COST_TO_OTHERS = "cost-to-others"
    """It costs other requests more."""
    LEAST_TOTAL = "least-total"
    """It has the least total; used where no other offer was possible or asked for."""


class Offer(NamedTuple):
    """The offer of one place for one request at one moment.

    `total = money + lateness_price x late_probability + cost_to_others`, in money; only totals are compared.
    """

    place: Place
    queue: State
    """The queue in which the request would wait."""
    reason: Reason | None
    """The gate that makes it impossible; None: possible."""
    start_s: float
    """When its batch would start on the edge or begin at the function; absolute, on the shell's clock. inf: never."""
    finish_s: float
    """When it would be answered (median); inf: never."""
    items: int
    """Expected items in the batch."""
    late_probability: float
    money: float
    cost_to_others: float
    """What it costs other requests, in money: their lateness, or the place that they lose."""
    total: float
    displaces: int = 0
    """Id of the request that would have to leave the batch; 0: none."""

    @property
    def possible(self) -> bool:
        """Whether it can be chosen."""
        return self.reason is None


def impossible(
    place: Place,
    queue: State,
    reason: Reason,
    *,
    start_s: float = math.inf,
    finish_s: float = math.inf,
    items: int = 0,
    late_probability: float = 1.0,
    money: float = 0.0,
) -> Offer:
    """Returns an offer that a gate makes impossible, with the figures that are known."""
    return Offer(place, queue, reason, start_s, finish_s, items, late_probability, money, 0.0, math.inf)


def move(place: Place, queue: State, *, now_s: float) -> tuple[Offer]:
    """Returns the only offer of a move that is no choice: where the request went."""
    return (Offer(place, queue, None, now_s, math.inf, 0, 0.0, 0.0, 0.0, 0.0),)


class Decision(NamedTuple):
    """The decision where one request is placed, with the offers that were compared."""

    request: Request
    at_s: float
    """On the shell's monotonic clock."""
    cause: Cause
    plan_id: int
    lateness_price: float
    """Price of answering this request late, in money, that the comparison used."""
    compared: bool
    """Whether offers were compared; False for a move that was no choice, whose chosen offer says where it went."""
    offers: tuple[Offer, ...]
    chosen: int
    """Index of the chosen offer; -1: the request was refused."""

    @property
    def choice(self) -> Offer | None:
        """The chosen offer; None: refused."""
        return self.offers[self.chosen] if self.chosen >= 0 else None

    @property
    def nearest_miss(self) -> Offer | None:
        """For a refusal, the offer with the earliest answer; None for other decisions, or where no place was asked."""
        return _nearest(self.offers) if self.chosen < 0 else None

    @property
    def rival(self) -> Offer | None:
        """The offer that the reason describes; None: there is none."""
        return rival_of(self.offers, self.chosen) if self.compared else None

    @property
    def reason(self) -> Reason:
        """What decided: why the rival of the chosen offer was impossible or cost more."""
        if not self.compared:
            return Reason.LEAST_TOTAL
        return deciding_reason(self.offers, self.chosen, self.lateness_price)


def rival_of(offers: tuple[Offer, ...], chosen: int) -> Offer | None:
    """Returns the offer that the deciding reason describes; None where no other was possible or asked for.

    The places are asked in the order of preference at equal cost: an edge before a function. A choice is explained by
    the first offer, a choice of the first by the next possible one. A refusal is explained by the class of the request
    where that forbids a place, by its budget where it misses on purpose, and otherwise by the earliest answer.
    """
    if chosen > 0:
        return offers[0]
    if chosen == 0:
        return next((offer for offer in offers[1:] if offer.reason is None), None)
    kept_away = next((offer for offer in offers if offer.reason in {Reason.CLASS, Reason.BUDGET}), None)
    return kept_away or _nearest(offers)


def _nearest(offers: tuple[Offer, ...]) -> Offer | None:
    """Returns the earliest answer; of places that would never answer, one that is not there says least."""
    return min(offers, key=lambda offer: (offer.finish_s, offer.reason is Reason.NO_BACKEND), default=None)


def deciding_reason(offers: tuple[Offer, ...], chosen: int, lateness_price: float) -> Reason:
    """Returns why the rival of the chosen offer was not chosen, or why a request was refused."""
    rival = rival_of(offers, chosen)
    if chosen < 0:
        return Reason.NO_BACKEND if rival is None else rival.reason or Reason.LATE
    if rival is None:
        return Reason.LEAST_TOTAL
    if rival.reason is not None:
        return rival.reason
    choice = offers[chosen]
    terms = (
        (rival.money - choice.money, Reason.MONEY),
        (lateness_price * (rival.late_probability - choice.late_probability), Reason.LATENESS),
        (rival.cost_to_others - choice.cost_to_others, Reason.COST_TO_OTHERS),
    )
    return max(terms, key=lambda term: term[0])[1]
