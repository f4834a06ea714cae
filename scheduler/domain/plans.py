"""Plans: what the dispatcher obeys; snapshots: the estimates a plan was made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from scheduler.domain.latency import FunctionTier, LatencyModel


@dataclass(frozen=True, slots=True)
class ServiceClass:
    """A service level objective: requests of a class share deadline, percentile and fate when late."""

    name: str = "default"
    slo_s: float = 1.0
    percentile: float = 0.99
    """Fraction of the class's requests that shall be answered within the SLO."""
    serve_late: bool = False
    """True: a request that nobody can answer in time is sent anyway (`late = "serve"`)."""
    edge_only: bool = False
    """True: its data never leaves the site; no fallback sends it to a function."""
    deferrable: bool = False
    """True: it may wait for an idle edge up to its deadline, and gives way to everybody else."""


@dataclass(frozen=True, slots=True)
class BufferPlan:
    """Requests of one model that are gathered for the same function batches."""

    classes: tuple[str, ...]
    tier: str
    """Name of the function tier that its batches go to."""
    target_batch: int
    """Where fixed, the items at which a batch leaves. Otherwise the cheapest size that can still be in time, as planned;
    a batch then leaves when waiting for another member does not pay any longer, earlier or later."""
    timeouts_s: Mapping[str, float]
    """By class: longest a request waits for others, deadlines permitting."""
    margins: Mapping[str, float]
    """By class: factor on the predicted service at which the class's percentile holds."""
    percentile: float
    """The strictest class's: who shares a batch shares its fate, so batches are formed for that one."""
    share: float = 1.0
    """Its part of the model's items."""
    up_to_bytes: float | None = None
    """Largest item on the wire that is gathered here; larger ones go to the next buffer of the class. None: any."""
    item_bytes: float | None = None
    """Mean item on the wire, where items are routed by size; None: the model's."""
    size_factor: float = 1.0
    """Factor on a service time that its items' size makes, where that was learned."""
    fixed: bool = False
    """Whether its batches leave at the target or the first timeout, as loaded, while the percentile holds."""


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """What holds for one model: its edge batches, and the buffers of what goes to functions."""

    model: str
    classes: tuple[str, ...]
    edge_batch_cap: int
    """Largest edge batch in items; 0 means the edge is not used."""
    edge_margins: Mapping[str, float]
    """By class: factor on the predicted edge service at which the class's percentile holds."""
    percentile: float
    """The strictest class's, which binds on the edge."""
    buffers: tuple[BufferPlan, ...]
    """Those of a class ascend in `up_to_bytes`; empty means that no function is used."""
    expected_cost_per_s: float
    expected_within_slo: float
    expected_spill_fraction: float
    feasible: bool = True
    reason: str = ""
    """Where not feasible: what stands in the way and what would help, in one sentence."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One plan for the whole host. Plans are replaced, never changed."""

    plan_id: int
    made_at_s: float
    expires_at_s: float
    cause: str
    """Why it was asked for: start, rate, bandwidth, edge-service, expiry, limits, settings."""
    detail: str
    groups: tuple[GroupPlan, ...]
    currency: str = "CNY"

    def group(self, model: str) -> GroupPlan:
        """Returns the plan of a model's group; KeyError if the plan does not know it."""
        for group in self.groups:
            if group.model == model:
                return group
        raise KeyError(model)


@dataclass(frozen=True, slots=True)
class Limits:
    """What an operator may narrow at run time, per model; None leaves it to the plan."""

    window_s: float | None = None
    """Longest a request is held back to gather a batch. 0 sends each at once."""
    edge_batch_cap: int | None = None
    function_batch_cap: int | None = None


@dataclass(frozen=True, slots=True)
class LoadedBuffer:
    """A function buffer as a plan that was made beforehand wants it; the planner leaves it as it is."""

    classes: tuple[str, ...]
    tier: str
    target_batch: int
    """Items at which a batch leaves at once."""
    timeouts_s: Mapping[str, float]
    """By class: longest a request waits for others."""
    cost_per_item: float
    """Expected money."""
    up_to_bytes: float | None = None
    """Largest item on the wire; larger ones go to the next buffer of the class. None: any."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What the engine must know of one model."""

    name: str
    max_items: int = 64
    """Most items in one request and in one batch."""
    classes: tuple[ServiceClass, ...] = (ServiceClass(),)
    edge_latency: LatencyModel | None = None
    """None: no edge serves this model."""
    tiers: tuple[FunctionTier, ...] = ()
    """Empty: no function serves this model."""
    buffers: tuple[LoadedBuffer, ...] = ()
    """Of a loaded plan, every class that may leave the site in one at least; empty: buffers are planned."""
    default_priority: int = 1
    """Level of requests that name none; what is above it in number is of low priority."""

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
class EngineSettings:
    """Everything the engine is configured with. Field by field what an operator may set in `[engine]`."""

    models: tuple[ModelSettings, ...]
    queue_max_requests: int = 4096
    queue_max_bytes: int = 256 * 2**20
    max_function_in_flight: int = 64
    uplink_bytes_per_s: float | None = None
    """Bandwidth assumed until one is measured; None: ample."""
    uplink_rtt_s: float = 0.02
    """Round trip assumed until one is measured."""
    edge_overhead_s: float = 0.004
    """Transfer, decoding and scheduling around the edge's service time, until measured."""
    plan_expiry_s: float = 600.0
    replan_min_interval_s: float = 2.0
    """Hysteresis: changes that come faster wait for each other."""
    probe_interval_s: float = 30.0
    """Idle seconds after which the uplink is probed."""
    failures_to_open: int = 3
    """Whole-batch failures in a row after which a backend is left alone until a probe succeeds."""
    reopen_after_s: float = 1.0
    """First pause before a failed backend is probed; doubles up to 30 s."""
    changepoints: bool = True
    spend_per_hour: float | None = None
    """Most money that functions may cost in any hour, in the prices' currency; None: no cap."""
    spend_per_day: float | None = None
    over_cap: str = "edge-only"
    """What happens when a cap is reached: serve-late, refuse-low-priority or edge-only."""
    explain_ring: int = 4096
    """Requests whose decisions are kept to be explained."""


@dataclass(frozen=True, slots=True)
class SizeShare:
    """Items of about one size on the wire."""

    up_to_bytes: float
    """The largest of them, and larger than the largest of the size before."""
    mean_bytes: float
    share: float
    """Their part of all items."""


@dataclass(frozen=True, slots=True)
class SizeFactors:
    """What the size of a batch's largest item makes of a tier's services."""

    factors: tuple[float, ...]
    """On a service of items of any size, for each size that is told apart; not descending."""
    sigma: float
    """Scatter of the logarithm of services of one size."""


@dataclass(frozen=True, slots=True)
class ModelEstimates:
    """Live estimates of one model's traffic and service."""

    rate_rps: float
    """Items a second."""
    dispersion: float
    """Index of dispersion of counts; 1 for Poisson."""
    item_bytes: float
    edge_latency: LatencyModel | None
    """The law as learned so far, None without an edge."""
    edge_quantile_factor: Mapping[float, float]
    """Percentile -> observed / predicted edge service at that percentile."""
    function_latencies: Mapping[str, LatencyModel]
    function_quantile_factor: Mapping[float, float]
    class_shares: Mapping[str, float] = field(default_factory=dict)
    """By class: its part of the items; empty while none was seen."""
    item_sizes: tuple[SizeShare, ...] = ()
    """Ascending; empty while none was seen."""
    size_factors: Mapping[str, SizeFactors] = field(default_factory=dict)
    """By tier, where a batch's largest item matters."""
    tick_s: float = 0.25
    """Length of the intervals that the dispersion was counted in."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a plan is made from: settings, estimates and limits, frozen at one moment."""

    taken_at_s: float
    settings: EngineSettings
    models: Mapping[str, ModelEstimates]
    uplink_bytes_per_s: float | None
    """None: ample or unknown."""
    uplink_rtt_s: float
    """Round trip to the functions, with what the way takes beyond it at the strictest percentile."""
    limits: Mapping[str, Limits] = field(default_factory=dict)
    edge_up: bool = True
    function_up: bool = True
    plan_expiry_s: float = 600.0
    """How long a plan made from this may stand: short while little has been seen."""
