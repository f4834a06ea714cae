"""Plans that the dispatcher follows, settings and limits, and the snapshots of estimates that plans are made from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from scheduler.domain.latency import FunctionTier, LatencyModel
from scheduler.domain.quotas import Quota
from scheduler.domain.requests import EDGE_NAME
from scheduler.domain.tenants import TenantSettings


@dataclass(frozen=True, slots=True)
class ServiceClass:
    """Service class: requests with the same SLO, percentile and treatment when they are late."""

    name: str = "default"
    slo_s: float = 1.0
    percentile: float = 0.99
    """Fraction of the class's requests that must be answered within the SLO."""
    serve_late: bool = False
    """True: a request that no backend can answer in time is sent all the same (`late = "serve"`)."""
    edge_only: bool = False
    """True: its data never leaves the site; it is never sent to a function, whatever fails."""
    spends: bool = False
    """True: where being in time costs more than a miss, the misses that the percentile allows are spent on purpose
    (`budget = "spend"`); False: a request misses only by chance."""
    deferrable: bool = False
    """True: it may wait for an idle edge as long as its deadline allows, and all other classes go first."""


@dataclass(frozen=True, slots=True)
class BufferPlan:
    """Plan of one function buffer: requests of one model that are gathered for the same function batches."""

    classes: tuple[str, ...]
    tier: str
    """Name of the function tier that its batches go to."""
    target_batch: int
    """Where fixed, the items at which a batch leaves. Otherwise the cheapest size in time, as planned; a batch then
    leaves when waiting for another member does not pay any longer, which may be earlier or later."""
    timeouts_s: Mapping[str, float]
    """By class: longest wait of a request for other requests, as far as deadlines allow."""
    margins: Mapping[str, float]
    """By class: factor on the predicted service at which the class's percentile holds."""
    percentile: float
    """That of the strictest class: requests of one batch are in time or late together, so the strictest decides."""
    share: float = 1.0
    """Fraction of the model's items that it gets."""
    up_to_bytes: float | None = None
    """Largest item on the wire that is gathered here; larger ones go to the next buffer of the class. None: any."""
    item_bytes: float | None = None
    """Mean item on the wire, where items are routed by size; None: the model's."""
    size_factor: float = 1.0
    """Learned factor on service times for the size of its items; 1: not distinguished by size."""
    fixed: bool = False
    """Whether its batches leave at the target or the first timeout, as loaded, while the percentile holds."""


@dataclass(frozen=True, slots=True)
class ClassOutlook:
    """What a plan expects for one service class."""

    name: str
    expected_within_slo: float
    """Fraction of its items that are expected in time."""
    feasible: bool
    """Whether its percentile can be kept."""
    reason: str = ""
    """Where not feasible: what is missing and what would help, in one sentence."""


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """Plan of one model: its edge batches, and its function buffers."""

    model: str
    classes: tuple[str, ...]
    edge_batch_cap: int
    """Largest edge batch in items; 0 means the edge is not used."""
    edge_margins: Mapping[str, float]
    """By class: factor on the predicted edge service at which the class's percentile holds."""
    percentile: float
    """That of the strictest class, which binds on the edge."""
    buffers: tuple[BufferPlan, ...]
    """Buffers of the same class ascend in `up_to_bytes`; empty: no function is used."""
    expected_cost_per_s: float
    expected_within_slo: float
    expected_spill_fraction: float
    feasible: bool = True
    """Whether the percentile of every class can be kept."""
    reason: str = ""
    """Where not feasible: what is missing and what would help, in one sentence, for the class that misses most."""
    outlooks: tuple[ClassOutlook, ...] = ()
    """One for each class, in the order of `classes`; empty if the plan was not made by the planner."""
    edge_caps: Mapping[str, int] = field(default_factory=dict)
    """By edge server: its largest batch, where that is not `edge_batch_cap`, the largest of all."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Plan of the whole host. Plans are replaced, never changed."""

    plan_id: int
    made_at_s: float
    expires_at_s: float
    cause: str
    """Why it was made: start, expiry, limits, settings, or a change that was found: rate, bandwidth, edge-service,
    function-service or function-start."""
    detail: str
    groups: tuple[GroupPlan, ...]
    currency: str = "CNY"

    def group(self, model: str) -> GroupPlan:
        """Returns the group plan of a model; KeyError if the plan has none."""
        for group in self.groups:
            if group.model == model:
                return group
        raise KeyError(model)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one model that an operator sets at run time; None leaves a value to the plan."""

    window_s: float | None = None
    """Longest wait of a request for other members of its batch; 0: each request is sent at once."""
    edge_batch_cap: int | None = None
    function_batch_cap: int | None = None

    def taking(self, takes: Mapping[str, int]) -> "Limits":
        """Returns the limits within what edge servers take, by their names."""
        return TakenLimits(self.window_s, self.edge_batch_cap, self.function_batch_cap, takes) if takes else self

    def widest(self, edges: Iterable[str]) -> "Limits":
        """Returns the same for all of these edge servers together: the one that takes most counts."""
        caps = [self.on_edge(edge) for edge in edges]
        known = [cap for cap in caps if cap is not None]
        cap = max(known) if known and len(known) == len(caps) else self.edge_batch_cap
        return Limits(self.window_s, cap, self.function_batch_cap)

    def on_edge(self, edge: str) -> int | None:  # noqa: ARG002
        """Returns the most items in a batch on an edge server; None: any number."""
        return self.edge_batch_cap

    def sentence(self) -> str:
        """Returns them in words."""
        named = {
            "window": None if self.window_s is None else f"{self.window_s:g} s",
            "edge batch": self.edge_batch_cap,
            "function batch": self.function_batch_cap,
        }
        return ", ".join(f"{name} at most {value}" for name, value in named.items() if value is not None) or "none"


@dataclass(frozen=True, slots=True)
class TakenLimits(Limits):
    """An operator's limits, within what edge servers take."""

    takes: Mapping[str, int] = field(default_factory=dict)
    """By edge server: most items in a batch; servers that take any number are absent."""

    def on_edge(self, edge: str) -> int | None:
        """Returns the most items in a batch on an edge server; None: any number."""
        known = [items for items in (self.edge_batch_cap, self.takes.get(edge)) if items is not None]
        return min(known, default=None)


@dataclass(frozen=True, slots=True)
class LoadedBuffer:
    """Function buffer of a plan that was loaded; the planner takes it over unchanged."""

    classes: tuple[str, ...]
    tier: str
    target_batch: int
    """Items at which a batch leaves at once."""
    timeouts_s: Mapping[str, float]
    """By class: longest wait of a request for other requests."""
    cost_per_item: float
    """Expected money for an item."""
    up_to_bytes: float | None = None
    """Largest item on the wire; larger ones go to the next buffer of the class. None: any."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Settings of one model, as the engine needs them."""

    name: str
    max_items: int = 64
    """Largest number of items in one request and in one batch."""
    classes: tuple[ServiceClass, ...] = (ServiceClass(),)
    edge_latency: LatencyModel | None = None
    """None: no edge serves this model."""
    tiers: tuple[FunctionTier, ...] = ()
    """Empty: no function serves this model."""
    buffers: tuple[LoadedBuffer, ...] = ()
    """Buffers of a loaded plan; each class that may leave the site is in at least one. Empty: buffers are planned."""
    default_priority: int = 1
    """Level of requests that name none; requests with a larger number are of low priority."""
    identity: str = ""
    """Of the network's card and files: what was learned of others does not hold for it. Empty: not known."""
    edge_latencies: Mapping[str, LatencyModel | None] = field(default_factory=dict)
    """By edge server, where it is not `edge_latency`; None: this server does not serve the model."""

    def edge_latency_on(self, edge: str) -> LatencyModel | None:
        """Returns the latency model on an edge server; None where that does not serve this model."""
        return self.edge_latencies.get(edge, self.edge_latency)

    def service_class(self, name: str) -> ServiceClass:
        """Returns the class of that name; KeyError if there is none."""
        for service_class in self.classes:
            if service_class.name == name:
                return service_class
        raise KeyError(name)

    def tier(self, name: str) -> FunctionTier:
        """Returns the tier of that name; KeyError if there is none."""
        for tier in self.tiers:
            if tier.name == name:
                return tier
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """Settings of one edge server."""

    name: str = EDGE_NAME
    parallel: int | None = 1
    """Batches that it serves at once; None: to be learned."""
    ahead: int | None = None
    """Batches that are sent to each of them before the one that it serves is back: 0 or 1; None: as it pays."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Settings of the engine: the models, and the keys of `[engine]`, `[spend]` and `[explain]` that it needs."""

    models: tuple[ModelSettings, ...]
    max_timeout_s: float = 3600.0
    """The longest deadline that a client may ask for."""
    queue_max_requests: int = 4096
    queue_max_bytes: int = 256 * 2**20
    max_function_in_flight: int = 64
    uplink_bytes_per_s: float | None = None
    """Bandwidth assumed until one is measured; None: ample."""
    uplink_rtt_s: float = 0.02
    """Round trip assumed until one is measured."""
    edges: tuple[EdgeSettings, ...] = (EdgeSettings(),)
    """The edge servers that there may be; which models each serves is in the models."""
    edge_overhead_s: float = 0.004
    """Transfer and scheduling in addition to the edge's service and decoding, assumed until measured."""
    plan_expiry_s: float = 600.0
    replan_min_interval_s: float = 2.0
    """Shortest time between two plans; changes within it lead to one plan."""
    probe_interval_s: float = 30.0
    """Seconds without a transfer after which the uplink is probed."""
    failures_to_open: int = 3
    """Failures of whole batches in a row after which a backend is not used until a probe succeeds."""
    reopen_after_s: float = 1.0
    """First pause before a failed backend is probed; it doubles after each failed probe, up to a limit."""
    changepoints: bool = True
    changepoint_package: bool = False
    """Whether changes are found by the densities of bayesian-changepoint-detection; read at the start only."""
    spend_per_hour: float | None = None
    """Largest cost of functions in any hour, in the prices' currency; None: no cap."""
    spend_per_day: float | None = None
    over_cap: str = "edge-only"
    """What happens to requests for a function when a cap is reached: serve-late, refuse-low-priority or edge-only."""
    spend_leased: str = ""
    """From which ledger that outlives the process money under a cap is leased: "state" (in the state folder) or
    "lender" (of another daemon): none leased, none spent. Empty: there is no such ledger."""
    explain_ring: int = 4096
    """Number of requests whose decisions are kept, so that they can be explained."""
    tenants: tuple[TenantSettings, ...] = ()
    """Between which the edge's time and the money are shared under overload; empty: requests are not told apart."""


@dataclass(frozen=True, slots=True)
class SizeShare:
    """Share of the items that have about the same size on the wire."""

    up_to_bytes: float
    """Size of the largest of them."""
    mean_bytes: float
    share: float
    """Fraction of all items."""


@dataclass(frozen=True, slots=True)
class SizeFactors:
    """Effect of a batch's largest item on the services of a tier."""

    factors: tuple[float, ...]
    """Factor on the service of mixed sizes, for each size that is distinguished; not descending."""
    sigma: float
    """Standard deviation of the logarithm of services of one size."""


@dataclass(frozen=True, slots=True)
class EdgeEstimate:
    """Estimate of one model's services on one edge server."""

    latency: LatencyModel
    """As learned so far."""
    quantile_factor: Mapping[float, float]
    """By percentile: observed / predicted service at that percentile."""


@dataclass(frozen=True, slots=True)
class ModelEstimates:
    """Estimates of one model's traffic and services at one moment."""

    rate_rps: float
    """Items a second."""
    dispersion: float
    """Index of dispersion of counts; 1 for Poisson."""
    item_bytes: float
    edge_latency: LatencyModel | None
    """Latency model as learned so far of the first edge server that serves it; None where none does."""
    edge_quantile_factor: Mapping[float, float]
    """The same edge server's, by percentile: observed / predicted service at that percentile."""
    function_latencies: Mapping[str, LatencyModel]
    function_quantile_factor: Mapping[float, float]
    class_shares: Mapping[str, float] = field(default_factory=dict)
    """By class: its fraction of the items; empty while none was observed."""
    item_sizes: tuple[SizeShare, ...] = ()
    """Ascending; empty while none was observed."""
    size_factors: Mapping[str, SizeFactors] = field(default_factory=dict)
    """By tier, where the size of a batch's largest item has an effect."""
    edges: Mapping[str, EdgeEstimate] = field(default_factory=dict)
    """By edge server that serves it, in the order of the settings."""
    tick_s: float = 0.25
    """Seconds of the intervals in which the dispersion was counted."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Snapshot that a plan is made from: settings, estimates and limits at one moment."""

    taken_at_s: float
    settings: EngineSettings
    models: Mapping[str, ModelEstimates]
    uplink_bytes_per_s: float | None
    """None: ample or unknown."""
    uplink_rtt_s: float
    """Round trip to the functions, with what the path takes in addition at the strictest percentile."""
    limits: Mapping[str, Limits] = field(default_factory=dict)
    edge_up: bool = True
    function_up: bool = True
    plan_expiry_s: float = 600.0
    """Seconds for which the plan holds: few while little has been observed."""
    quotas: tuple[Quota, ...] = ()
    """What the provider is known to grant at most."""
    edge_parallel: Mapping[str, int] = field(default_factory=dict)
    """By edge server: batches that it is given at once; of one that is not in it, as the settings say."""
    edge_leads_s: Mapping[str, float] = field(default_factory=dict)
    """By edge server to which batches are sent ahead: seconds of a batch in which its device serves another one."""
    edges_away: tuple[str, ...] = ()
    """Names of the edge servers that do not answer at present."""
    edge_takes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By model and edge server: most items in a batch, where that limits it."""

    def within_quotas(self) -> "Snapshot":
        """Returns the snapshot with no more batches in flight configured than the provider grants."""
        if not self.quotas:
            return self
        granted = {(quota.model, quota.tier): quota.granted for quota in self.quotas}
        settings, in_all = self.settings, granted.get(("", ""), 2**31)
        models = tuple(
            replace(
                model,
                tiers=tuple(
                    replace(tier, max_in_flight=min(tier.max_in_flight, granted.get((model.name, tier.name), 2**31)))
                    for tier in model.tiers
                ),
            )
            for model in settings.models
        )
        most = min(settings.max_function_in_flight, in_all)
        return replace(self, settings=replace(settings, models=models, max_function_in_flight=most), quotas=())
