"""What is simulated, as values: traffic, classes, models, edge, functions, uplink. Files say it in scenario_file."""

from dataclasses import dataclass, field

from scheduler.domain.errors import EdgeburstError
from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.plans import EngineSettings, ModelSettings, ServiceClass
from scheduler.simulator.backends import ColdStarts
from scheduler.simulator.faults import Fault
from scheduler.simulator.network import AMPLE, Bandwidth

MODEL = "simulated"
POLICIES = (
    *("edgeburst", "edge-only", "function-only", "static", "critical-rate", "batch", "aimd", "edf"),
    "log-oracle",
)
"""Who may decide: the engine, one of the policies in scheduler/simulator/policies, or the engine told the truth."""

ORIN_LATENCY = LatencyModel(0.04234, 0.008165, 128)
"""The published fit of ResNet50 on a Jetson Orin; deadlines of a second end its batches before 128."""
FUNCTION_LATENCY = LatencyModel(0.216, 0.141, 5)
FUNCTION_PRICE = Price(per_s=1.27e-5, per_call=9e-7, sheet="cny-gbs-2023")
DEFAULT_PRIORITY = 2
"""As the daemon gives requests that name none."""
CONCURRENCY = 300
"""Instances that an account has in a region; the engine is allowed as many calls at once."""


class ScenarioError(EdgeburstError):
    """A scenario cannot be simulated; the message names file and key."""


@dataclass(frozen=True, slots=True)
class SimulatedClass:
    """A service class and its part of the traffic."""

    service_class: ServiceClass
    priority: int = DEFAULT_PRIORITY
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class SimulatedModel:
    """One of the models that share edge, functions and uplink.

    Attributes:
        name: of the model.
        share: its part of the traffic, relative to the others'.
        classes: who asks for it.
        edge_latency: true latency on the edge; None where the edge does not serve it.
        tiers: function configurations with their true laws; empty where no function serves it.
        request_bytes: of each request on the wire.
        max_items: most items in a batch.
    """

    name: str
    share: float
    classes: tuple[SimulatedClass, ...]
    edge_latency: LatencyModel | None
    tiers: tuple[FunctionTier, ...]
    request_bytes: int
    max_items: int


@dataclass(frozen=True, slots=True)
class SpendCaps:
    """Most money for functions in any hour and in any day, CNY, and what the engine does when a cap is reached."""

    per_hour_cny: float | None = None
    per_day_cny: float | None = None
    over_cap: str = "edge-only"


@dataclass(frozen=True, slots=True)
class Burst:
    """Poisson arrivals on top of the workload, for a while.

    Attributes:
        start_s: when it begins.
        duration_s: how long it lasts.
        rate_rps: additional requests a second.
    """

    start_s: float
    duration_s: float
    rate_rps: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything but the arrival times.

    Attributes:
        policy: who decides.
        classes: who asks.
        request_bytes: of each request on the wire.
        edge_latency: true latency of the edge.
        tiers: function configurations with their true laws; empty where there is no function.
        models: where there are several; empty: one, which the fields around here describe.
        edge_noise, function_noise: sigma of the lognormal factor on a service time.
        edge_faults, function_faults: windows in which they fail.
        cold_starts: how function instances start.
        concurrency: instances of a tier above which a call gets 429.
        bandwidth: of the uplink.
        rtt_s: round trip to the functions.
        max_items: most items in a batch.
        max_function_in_flight: the engine's setting.
        changepoints: the engine's setting.
        told_changes: whether the engine is told when something truly changes, in place of detectors; for ablations.
        plan_expiry_s: the engine's setting.
        caps: the engine's setting.
        rate_steps: (seconds, requests a second) one after the other; empty where another workload is given.
        bursts: on top of the workload.
        seed: of every random number.
    """

    policy: str = "edgeburst"
    classes: tuple[SimulatedClass, ...] = (SimulatedClass(ServiceClass()),)
    request_bytes: int = 24_000
    edge_latency: LatencyModel = ORIN_LATENCY
    tiers: tuple[FunctionTier, ...] = (
        FunctionTier("function", "function", FUNCTION_LATENCY, FUNCTION_PRICE, max_in_flight=CONCURRENCY),
    )
    models: tuple[SimulatedModel, ...] = ()
    edge_noise: float = 0.0
    function_noise: float = 0.0
    edge_faults: tuple[Fault, ...] = ()
    function_faults: tuple[Fault, ...] = ()
    cold_starts: ColdStarts = field(default_factory=ColdStarts)
    concurrency: int = CONCURRENCY
    bandwidth: Bandwidth = AMPLE
    rtt_s: float = 0.0
    max_items: int = 128
    max_function_in_flight: int = CONCURRENCY
    changepoints: bool = True
    told_changes: bool = False
    plan_expiry_s: float = 600.0
    caps: SpendCaps = field(default_factory=SpendCaps)
    rate_steps: tuple[tuple[float, float], ...] = ()
    bursts: tuple[Burst, ...] = ()
    seed: int = 0

    def served(self) -> tuple[SimulatedModel, ...]:
        """Returns every model, also where there is one only and nobody named it."""
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
            ),
        )

    def engine_settings(self) -> EngineSettings:
        """Returns what the engine is told: the true laws, as from profiles; bandwidth and rates it must learn."""
        return EngineSettings(
            models=tuple(self._model_settings(model) for model in self.served()),
            queue_max_bytes=2**40,
            uplink_rtt_s=self.rtt_s,
            # The simulated LAN takes no time, so that the bound, which knows no LAN either, is comparable.
            edge_overhead_s=0.0,
            max_function_in_flight=self.max_function_in_flight,
            changepoints=self.changepoints,
            plan_expiry_s=self.plan_expiry_s,
            spend_per_hour=self.caps.per_hour_cny,
            spend_per_day=self.caps.per_day_cny,
            over_cap=self.caps.over_cap,
        )

    def _model_settings(self, model: SimulatedModel) -> ModelSettings:
        return ModelSettings(
            name=model.name,
            max_items=model.max_items,
            classes=tuple(c.service_class for c in model.classes),
            edge_latency=model.edge_latency,
            tiers=model.tiers,
            default_priority=DEFAULT_PRIORITY,
        )


def latency_law(alpha_s: float, beta_s: float, *, max_batch: int) -> LatencyModel:
    """Returns a law; one that cannot be is told in one sentence."""
    try:
        return LatencyModel(alpha_s, beta_s, max_batch)
    except ValueError as error:
        raise ScenarioError(str(error)) from error
