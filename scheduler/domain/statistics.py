"""The state of the engine in numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from scheduler.domain.bills import Spent
from scheduler.domain.edge_limits import EdgeLimit
from scheduler.domain.plans import Plan
from scheduler.domain.quotas import Quota
from scheduler.domain.tenants import TenantStatistics


@dataclass(frozen=True, slots=True)
class FoundChange:
    """One change of the world."""

    at_s: float
    """When it was found."""
    cause: str
    """Of the plan that it asks for."""
    detail: str
    """What has changed, from what to what, in one sentence."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes of the world that were found since the start."""

    found: Mapping[str, int] = field(default_factory=dict)
    """Number by the cause of the plan that each asks for."""
    slower: tuple[tuple[str, str], ...] = ()
    """Model and tier of functions that serve or start more slowly than before the last change found of them."""
    latest: tuple[FoundChange, ...] = ()
    """The latest, oldest first."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a place serves a model, beside the profile that it started from."""

    model: str
    place: str
    """As in records: `edge:NAME` or `function:TIER`."""
    times_profile: float
    """Learned service time over the profile's: 1 as profiled, 2 takes twice as long."""
    batches: int
    """Answered batches that it was learned from, since the start."""


@dataclass(frozen=True, slots=True)
class CapStatistics:
    """One spend cap; what provisioned instances cost idle came off it first."""

    window: str
    """"hour" or "day"."""
    cap: float
    spent: float
    """In the window, at most: batches in flight count with what they are unlikely to exceed."""


@dataclass(frozen=True, slots=True)
class ModelUp:
    """Where a model is believed to be answered; None: it is not served there."""

    model: str
    edge_up: bool | None
    function_up: bool | None
    edges: tuple[tuple[str, bool], ...] = ()
    """By edge server that serves it: whether it is believed to be answered there."""


@dataclass(frozen=True, slots=True)
class EdgeStatistics:
    """One edge server."""

    name: str
    up: bool
    batches_in_flight: int
    parallel: int
    """Batches that it is given at once."""
    ahead_s: float = 0.0
    """Seconds before a batch is expected back at which the next one is sent to it; 0: not before it is back."""


@dataclass(frozen=True, slots=True)
class SharedWait:
    """The wait at an edge server behind batches of other daemons."""

    since_s: float
    """When one was first seen, since the others were last gone."""
    observed_s: float
    """Mean seconds of the latest batches, as the server reports them."""
    learned_s: float
    """Those that forecasts count with; 0 while there is a doubt."""
    doubt: str
    """Why forecasts do not count with the reports: "few-batches", "short-wait" or "predicts-worse"; empty: they do."""

    @property
    def trusted(self) -> bool:
        """Whether forecasts count with what the server reports."""
        return not self.doubt


@dataclass(frozen=True, slots=True)
class SharedEdge:
    """An edge server at which batches of one model wait for those of other daemons."""

    model: str
    edge: str
    since_s: float
    observed_s: float
    learned_s: float
    trusted: bool
    doubt: str
    """All as in `SharedWait`."""


@dataclass(frozen=True, slots=True)
class BudgetStatistics:
    """The SLO budget of one class."""

    model: str
    class_name: str
    balance: float
    """Misses that are still allowed; below 0, misses more than allowed."""
    multiplier: float
    """Price of a late answer, in requests of the cheapest function batch."""
    missed_on_purpose: int
    """Requests that were refused or answered late on purpose, since the start."""
    saved: float
    """Money that being in time would have cost them."""


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """State of the engine at one moment, for people and metrics."""

    queued_requests: int
    unanswered_bytes: int
    requests_in_flight: int
    edge_batches_in_flight: int
    function_batches_in_flight: int
    warming_calls: int
    """Warming calls sent since the start."""
    rate_rps: float
    uplink_bytes_per_s: float | None
    uplink_rtt_s: float
    edge_up: bool
    """Whether any edge server is believed to answer."""
    function_up: bool
    spent: float
    leased: float | None
    """Money leased from the state folder and not spent; negative: spent beyond it. None where none is leased."""
    expected_drain_s: float
    draining: bool
    changes: Changes
    plan: Plan | None
    tenants: tuple[TenantStatistics, ...] = ()
    """What each configured tenant, and all others together, hold and used."""
    spending: tuple[Spent, ...] = ()
    """The settled part of `spent`, by purpose, tier, model and tenant."""
    budgets: tuple[BudgetStatistics, ...] = ()
    """The SLO budget of each class."""
    quotas: tuple[Quota, ...] = ()
    """What the provider's refusals have shown of its limits on concurrency; empty: it has refused nothing."""
    edge_limits: tuple[EdgeLimit, ...] = ()
    """The largest batches that the edge takes, as far as it says or has shown."""
    edges: tuple[EdgeStatistics, ...] = ()
    """Each edge server, in the order of the settings."""
    shared_edges: tuple[SharedEdge, ...] = ()
    """Where batches wait for those of other daemons, by edge server and model; empty: nowhere."""
    models_up: tuple[ModelUp, ...] = ()
    """Where each model is believed to be answered."""
    caps: tuple[CapStatistics, ...] = ()
    """The spend caps; empty: there is none."""
    closed_by: str = ""
    """What lets no money be spent now: "hour", "day", "state" or "lender"; empty: nothing does."""
    opens_in_s: float | None = None
    """Seconds until money may be spent again, where something is closed and that is known."""
    paces: tuple[Pace, ...] = ()
    """How fast each place serves each model, beside its profile."""
    rates_rps: Mapping[str, float] = field(default_factory=dict)
    """Items a second that arrive just now, by model."""
