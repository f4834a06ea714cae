"""Scenarios as values: classes, models, edge, functions, uplink, faults. The module scenario_file reads them."""

from dataclasses import dataclass, field, replace

from scheduler.domain.errors import EdgeburstError
from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.plans import EdgeSettings, EngineSettings, ModelSettings, ServiceClass
from scheduler.domain.requests import EDGE_NAME
from scheduler.domain.tenants import TenantSettings
from scheduler.simulator.backends import ColdStarts
from scheduler.simulator.faults import Fault
from scheduler.simulator.network import AMPLE, Bandwidth

MODEL = "simulated"
ORACLES = ("oracle-laws", "log-oracle")
SEPARATE = ("separate", "separate-oracle")
POLICIES = (
    *("edgeburst", "edge-only", "function-only", "static", "critical-rate", "batch", "aimd", "edf"),
    *("symphony", "smdp", "slots", *ORACLES, *SEPARATE),
)
"""The engine, the policies in scheduler/simulator/policies, the engine with true values instead of estimates, and
several engines."""

TOLD = ("rate", "laws", "scatter", "link", "changes")
"""What the oracles are told: the rate of arrivals, medians of services, their scatter, the uplink, and when something
has changed or is away."""

ORIN_LATENCY = LatencyModel(0.04234, 0.008165, 128)
"""The published fit of ResNet50 on a Jetson Orin. An SLO of one second limits its batches to less than 128."""
FUNCTION_LATENCY = LatencyModel(0.216, 0.141, 5)
FUNCTION_PRICE = Price(per_s=1.27e-5, per_call=9e-7, sheet="cny-gbs-2023")
EDGE_FAULTS = ("slow", "down")
DEFAULT_PRIORITY = 2
"""The priority that the daemon gives to requests without one."""
CONCURRENCY = 300
"""Instances of an account in a region, and the default limit of the engine's calls in flight."""


class ScenarioError(EdgeburstError):
    """Error: a scenario cannot be simulated; the message names the file and the key."""


@dataclass(frozen=True, slots=True)
class SimulatedClass:
    """Service class with the priority and the relative share of its requests."""

    service_class: ServiceClass
    priority: int = DEFAULT_PRIORITY
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class SimulatedModel:
    """One of several models that share the edge, the functions and the uplink.

    Attributes:
        name: name of the model.
        share: share of the traffic, relative to the other models.
        classes: service classes of its requests.
        edge_latency: true latency model on the edge; None if the edge does not serve the model.
        tiers: function configurations with their true latency models; empty if no function serves the model.
        request_bytes: bytes of each request on the wire.
        max_items: the largest number of items in a batch.
        shapes: shares of the shapes of its requests' items, relative; requests of unlike shapes share no batch.
    """

    name: str
    share: float
    classes: tuple[SimulatedClass, ...]
    edge_latency: LatencyModel | None
    tiers: tuple[FunctionTier, ...]
    request_bytes: int
    max_items: int
    shapes: tuple[float, ...] = (1.0,)


@dataclass(frozen=True, slots=True)
class EdgeServer:
    """One of several edge servers.

    Attributes:
        name: its name.
        latency: true latency model of all models on it; None: that of each model.
        latencies: (model, true latency model) of single models.
        models: names of the models that it serves; empty: all.
        parallel: batches that it serves at once.
        noise: sigma of the lognormal factor on its service times.
        faults: times at which it fails or is slow.
        decode_s: seconds that a batch is decoded beside the device.
        lan_s: seconds that a batch takes to get there.
        ahead: setting of the engine.
        told: whether the engine is told how many batches it serves at once.
        silent: whether it reports nothing of what a batch took.
    """

    name: str
    latency: LatencyModel | None = None
    latencies: tuple[tuple[str, LatencyModel], ...] = ()
    models: tuple[str, ...] = ()
    parallel: int = 1
    noise: float = 0.0
    faults: tuple[Fault, ...] = ()
    decode_s: float = 0.0
    lan_s: float = 0.0
    ahead: int | None = None
    told: bool = True
    silent: bool = False

    def latency_of(self, model: SimulatedModel) -> LatencyModel | None:
        """Returns the true latency model of a model on this server; None if it does not serve the model."""
        if model.edge_latency is None or (self.models and model.name not in self.models):
            return None
        latency = dict(self.latencies).get(model.name, self.latency or model.edge_latency)
        return replace(latency, decode_s=self.decode_s) if self.decode_s else latency


@dataclass(frozen=True, slots=True)
class SpendCaps:
    """Caps on the cost of functions in any hour and in any day, CNY, and what the engine does at a cap."""

    per_hour_cny: float | None = None
    per_day_cny: float | None = None
    over_cap: str = "edge-only"


@dataclass(frozen=True, slots=True)
class SimulatedTenant:
    """Tenant with its part of the requests.

    Attributes:
        settings: name, share of the edge and the money, and caps of its own.
        rate: part of the workload's requests, relative to the other tenants.
        bursts: arrivals of its own in addition.
    """

    settings: TenantSettings
    rate: float = 1.0
    bursts: "tuple[Burst, ...]" = ()


@dataclass(frozen=True, slots=True)
class Burst:
    """Poisson arrivals in addition to the workload, for a limited time.

    Attributes:
        start_s: time at which the burst begins.
        duration_s: length in seconds.
        rate_rps: additional requests a second.
    """

    start_s: float
    duration_s: float
    rate_rps: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """Description of a simulation, except the arrival times.

    Attributes:
        policy: name of the policy that makes the decisions.
        classes: service classes of the requests.
        request_bytes: bytes of each request on the wire.
        edge_latency: true latency model of the edge.
        edge_parallel: batches that the edge serves at once.
        edge_told: whether the engine is told that.
        edge_decode_s: seconds that a batch is decoded beside the edge's device.
        edge_lan_s: seconds that a batch takes to the edge.
        edge_ahead: setting of the engine.
        edge_silent: whether the edge reports nothing of what a batch took.
        edges: the edge servers, if there are several. If empty, the fields `edge_…` describe the only one.
        tiers: function configurations with their true latency models; empty without functions.
        models: the models, if there are several. If empty, the other fields describe the only model.
        edge_noise, function_noise: sigma of the lognormal factor on a service time.
        function_tail: exponent of the Pareto law of the function's factor; 0: it is lognormal.
        edge_faults, function_faults: times at which a backend fails or is slow.
        cold_starts: start-up behaviour of function instances.
        concurrency: busy instances of a tier at which further calls get status 429.
        bandwidth: of the uplink.
        rtt_s: round trip to the functions, seconds.
        max_items: the largest number of items in a batch.
        shapes: shares of the shapes of requests' items; only the engine tells shapes apart, other policies do not.
        max_function_in_flight: setting of the engine.
        changepoints, changepoint_package: settings of the engine.
        told_changes: whether the engine is told the true times of changes instead of using detectors; for ablations.
        told: names of `TOLD` that the engine is told instead of learning them, for ablations.
        plan_expiry_s: setting of the engine.
        caps: setting of the engine.
        rate_steps: (seconds, requests a second) of consecutive steps; empty if another workload is given.
        bursts: additional arrivals.
        tenants: tenants of the requests; empty: requests name none.
        daemons: parts of the requests that go to each of several daemons, which share all edge servers.
        seed: seed of every random number.
    """

    policy: str = "edgeburst"
    classes: tuple[SimulatedClass, ...] = (SimulatedClass(ServiceClass()),)
    request_bytes: int = 24_000
    edge_latency: LatencyModel = ORIN_LATENCY
    edge_parallel: int = 1
    edge_told: bool = True
    edge_decode_s: float = 0.0
    edge_lan_s: float = 0.0
    edge_ahead: int | None = None
    edge_silent: bool = False
    edges: tuple[EdgeServer, ...] = ()
    tiers: tuple[FunctionTier, ...] = (
        FunctionTier("function", "function", FUNCTION_LATENCY, FUNCTION_PRICE, max_in_flight=CONCURRENCY),
    )
    models: tuple[SimulatedModel, ...] = ()
    edge_noise: float = 0.0
    function_noise: float = 0.0
    function_tail: float = 0.0
    edge_faults: tuple[Fault, ...] = ()
    function_faults: tuple[Fault, ...] = ()
    cold_starts: ColdStarts = field(default_factory=ColdStarts)
    concurrency: int = CONCURRENCY
    bandwidth: Bandwidth = AMPLE
    rtt_s: float = 0.0
    max_items: int = 128
    shapes: tuple[float, ...] = (1.0,)
    max_function_in_flight: int = CONCURRENCY
    changepoints: bool = True
    changepoint_package: bool = False
    told_changes: bool = False
    told: tuple[str, ...] = ()
    plan_expiry_s: float = 600.0
    caps: SpendCaps = field(default_factory=SpendCaps)
    rate_steps: tuple[tuple[float, float], ...] = ()
    bursts: tuple[Burst, ...] = ()
    tenants: tuple[SimulatedTenant, ...] = ()
    daemons: tuple[float, ...] = (1.0,)
    seed: int = 0

    def served(self) -> tuple[SimulatedModel, ...]:
        """Returns every model; the only one, if `models` is empty, has the name `MODEL`."""
        if self.models:
            return self.models
        return (
            SimulatedModel(
                name=MODEL,
                share=1.0,
                classes=self.classes,
                edge_latency=self.edge_latency,
                tiers=self.tiers,
                request_bytes=self.request_bytes,
                max_items=self.max_items,
                shapes=self.shapes,
            ),
        )

    def edge_servers(self) -> tuple[EdgeServer, ...]:
        """Returns every edge server; the only one, if `edges` is empty, has the name `EDGE_NAME`."""
        if self.edges:
            return self.edges
        return (
            EdgeServer(
                EDGE_NAME,
                parallel=self.edge_parallel,
                noise=self.edge_noise,
                faults=self.edge_faults,
                decode_s=self.edge_decode_s,
                lan_s=self.edge_lan_s,
                ahead=self.edge_ahead,
                told=self.edge_told,
                silent=self.edge_silent,
            ),
        )

    @property
    def one_edge_slot(self) -> bool:
        """Whether there is one edge server, without a name, that serves one batch at a time."""
        return not self.edges and self.edge_parallel == 1

    def engine_settings(self) -> EngineSettings:
        """Returns the engine's settings: true latency models as profiles; bandwidth and rates must be learned."""
        return EngineSettings(
            models=tuple(self._model_settings(model) for model in self.served()),
            queue_max_bytes=2**40,
            uplink_rtt_s=self.rtt_s,
            edges=tuple(
                EdgeSettings(server.name, server.parallel if server.told else None, server.ahead)
                for server in self.edge_servers()
            ),
            edge_overhead_s=max(server.lan_s for server in self.edge_servers()),
            max_function_in_flight=self.max_function_in_flight,
            changepoints=self.changepoints,
            changepoint_package=self.changepoint_package,
            plan_expiry_s=self.plan_expiry_s,
            spend_per_hour=self.caps.per_hour_cny,
            spend_per_day=self.caps.per_day_cny,
            over_cap=self.caps.over_cap,
            tenants=tuple(tenant.settings for tenant in self.tenants),
        )

    def _model_settings(self, model: SimulatedModel) -> ModelSettings:
        laws = {server.name: server.latency_of(model) for server in self.edge_servers()}
        return ModelSettings(
            name=model.name,
            max_items=model.max_items,
            classes=tuple(c.service_class for c in model.classes),
            edge_latency=next((law for law in laws.values() if law is not None), None),
            edge_latencies=laws if self.edges else {},
            tiers=tuple(self._told(tier) for tier in model.tiers),
            default_priority=DEFAULT_PRIORITY,
        )

    def _told(self, tier: FunctionTier) -> FunctionTier:
        """Returns a tier as the engine knows it: without cold starts all its instances are provisioned, at no cost."""
        if self.cold_starts.start_s > 0:
            return tier
        return replace(tier, provisioned=max(tier.provisioned, tier.max_in_flight, self.concurrency))


def latency_model(alpha_s: float, beta_s: float, *, max_batch: int) -> LatencyModel:
    """Returns a latency model.

    Raises:
        ScenarioError: the values are not those of a latency model.
    """
    try:
        return LatencyModel(alpha_s, beta_s, max_batch)
    except ValueError as error:
        raise ScenarioError(str(error)) from error
