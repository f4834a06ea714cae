"""Simulated backends whose laws are what a running engine has learned, read at the moment of each batch.

An edge server or a tier of the same name and profile is taken to be the same one; whatever the running engine does not
know takes the law of its own profile. Nothing here changes what is read.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat

from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.messages import BatchFailed, BatchFinished, Command, Message, SendBatch
from scheduler.domain.plans import EngineSettings, ModelSettings
from scheduler.domain.quotas import Quota
from scheduler.domain.requests import Backend
from scheduler.domain.statistics import EngineStatistics
from scheduler.estimates import FUNCTION_SHAPE_SIGMA, Estimates, ModelKnowledge
from scheduler.estimators.edge_service import EdgeService
from scheduler.estimators.service_time import ServiceTime
from scheduler.estimators.warm_instances import WarmInstances
from scheduler.simulator.backends import (
    ColdStarts,
    InstancePool,
    ServiceLaw,
    SimulatedEdge,
    SimulatedEdges,
    SimulatedFunctions,
)
from scheduler.simulator.faults import Faults
from scheduler.simulator.network import seconds_for

Draw = Callable[[], float]
"""Draws uniformly between 0 and 1, both excluded."""

LOOK_S = 1.0
"""How old what the running engine says of outages and quotas may be. Judgement: its circuits need longer to notice."""
BESIDE_WEIGHT = 0.125
"""Of a batch in the mean of what it takes besides the device. Judgement: as in `dispatch.edge_ahead`."""
LEAST_SERVICE_S = 1e-4
"""Of a batch on a device. Judgement: below any device's."""


class LearnedWorld:
    """What a running engine knows of the world, for what simulates it; nothing in it is changed."""

    def __init__(self, estimates: Estimates, statistics: Callable[[float], EngineStatistics]) -> None:
        """Stores what is read.

        Args:
            estimates: of the running engine.
            statistics: returns its state at a time.
        """
        self.estimates = estimates
        self._statistics = statistics
        self._sent: dict[int, str] = {}
        """The edge server of each batch that is in flight on one."""
        self._beside_s: dict[str, float] = {}
        """By edge server: mean seconds of a batch there besides the device, as far as its answers tell."""
        self._looked_at_s = -math.inf
        self._seen: EngineStatistics | None = None

    def seen(self, now_s: float) -> EngineStatistics:
        """Returns the running engine's state, at most `LOOK_S` old."""
        if self._seen is None or now_s >= self._looked_at_s + LOOK_S:
            self._seen, self._looked_at_s = self._statistics(now_s), now_s
        return self._seen

    def hear(self, messages: Sequence[Message], commands: Sequence[Command]) -> None:
        """Takes in one call of the running engine."""
        for message in messages:
            if isinstance(message, (BatchFinished, BatchFailed)):
                edge, beside_s = self._sent.pop(message.batch_id, ""), message.report.beside_s
                if edge and beside_s is not None:
                    before_s = self._beside_s.setdefault(edge, beside_s)
                    self._beside_s[edge] = before_s + BESIDE_WEIGHT * (beside_s - before_s)
        for command in commands:
            if isinstance(command, SendBatch) and command.batch.backend is Backend.EDGE:
                self._sent[command.batch.batch_id] = command.batch.place.name

    def beside_s(self, edge: str) -> float:
        """Returns the seconds of a batch on an edge server in which its device may serve another; 0: not known."""
        return self._beside_s.get(edge, 0.0)

    def edge_up(self, name: str, now_s: float) -> bool:
        """Whether an edge server is believed to answer; one that the running engine does not know is."""
        return all(edge.up for edge in self.seen(now_s).edges if edge.name == name)

    def functions_up(self, now_s: float) -> bool:
        """Whether functions are believed to answer; they are where the running engine has none."""
        return self.seen(now_s).function_up or not any(known.functions for known in self.estimates.models.values())

    def parallel(self, edge: str) -> int:
        """Returns how many batches an edge server serves at once, as far as is known; else 1."""
        return next((each.parallel for each in self.seen(0.0).edges if each.name == edge), 1)

    def quotas(self, now_s: float) -> Sequence[Quota]:
        """Returns what the provider grants at once, as far as its refusals have shown."""
        return self.seen(now_s).quotas

    def on_edge(self, model: str, edge: str, profile: LatencyModel) -> EdgeService | None:
        """Returns what is known of a model on an edge server of that profile; None: nothing."""
        known = self.estimates.models.get(model)
        if known is None or known.settings.edge_latency_on(edge) != profile:
            return None
        return known.edges.get(edge)

    def tier(self, model: str, tier: FunctionTier) -> tuple[ServiceTime, WarmInstances, int] | None:
        """Returns what is known of a model's tier of that profile: services, instances, and those provisioned."""
        known = self.estimates.models.get(model)
        theirs = None if known is None else _tier(known, tier.name)
        if known is None or theirs is None or theirs.latency != tier.latency:
            return None
        return known.functions[tier.name], known.warm[tier.name], theirs.provisioned


def _tier(known: ModelKnowledge, name: str) -> FunctionTier | None:
    return next((tier for tier in known.settings.tiers if tier.name == name), None)


@dataclass(frozen=True, slots=True)
class DrawnService:
    """A law from which each service is drawn: the learned median with the learned scatter."""

    service: Callable[[], ServiceTime | EdgeService]
    draw: Draw
    beside_s: Callable[[], float] = float
    """Returns the seconds of what is learned in which the device may serve another batch."""

    @property
    def decode_s(self) -> float:
        """Seconds before the device: all of them, the way there and back included."""
        return self.beside_s()

    def predict_s(self, items: int) -> float:
        """Returns the drawn seconds of a batch on the device."""
        service = self.service()
        drawn_s = service.predict_s(items) * math.exp(service.scatter().quantile(self.draw()))
        return max(drawn_s - self.beside_s(), LEAST_SERVICE_S)


@dataclass(frozen=True, slots=True)
class DrawnTier:
    """A function tier whose services are drawn, at its own price."""

    latency: ServiceLaw
    price: Price


class Outages(Faults):
    """A backend that is away while the running engine believes so."""

    def __init__(self, up: Callable[[float], bool]) -> None:
        """Stores what tells whether it is there at a time."""
        super().__init__(())
        self._up = up

    def is_down(self, at_s: float) -> bool:
        """Returns whether the backend is down at `at_s`."""
        return not self._up(at_s)


class LearnedLink:
    """The way to the functions: one transfer after the other, as fast as was measured last, with its scatter."""

    def __init__(self, world: LearnedWorld, settings: EngineSettings, draw: Draw) -> None:
        """Stores what is read; `settings` say what holds as long as nothing was measured."""
        self._estimates = world.estimates
        self._settings = settings
        self._draw = draw
        self._free_at_s = 0.0

    @property
    def rtt_s(self) -> float:
        """Round trip, seconds."""
        measured = self._estimates.bandwidth.rtt_s
        return self._settings.uplink_rtt_s if measured is None else measured

    @property
    def bytes_per_s(self) -> float:
        """Bandwidth; infinite where it is ample."""
        measured = self._estimates.bandwidth.bytes_per_s
        known = self._settings.uplink_bytes_per_s if measured is None else measured
        return math.inf if known is None else known

    def send(self, sent_bytes: int, *, now_s: float, give_up_at_s: float) -> tuple[float, float]:
        """Occupies the way with a transfer and returns its start and its drawn end; infinite: given up before."""
        start_s = max(now_s, self._free_at_s)
        end_s = start_s + seconds_for(sent_bytes, self.bytes_per_s)
        if end_s > give_up_at_s:
            self._free_at_s = max(self._free_at_s, give_up_at_s)
            return start_s, math.inf
        self._free_at_s = end_s
        return start_s, end_s + max(0.0, self._estimates.path_excess.quantile(self._draw()))


class LearnedPool(InstancePool):
    """Instances of a tier that the provider takes away, and starts, as it was seen to."""

    def __init__(
        self, known: Callable[[], tuple[WarmInstances, int]], full: Callable[[int, float], bool], draw: Draw
    ) -> None:
        """Stores what is read; there is no instance yet.

        Args:
            known: returns what is known of the instances, and how many are always warm.
            full: whether the provider refuses a call while so many of the tier are busy, at a time.
            draw: draws.
        """
        super().__init__(ColdStarts())
        self._known = known
        self._full = full
        self._draw = draw
        self._percentile = 0.5
        """Where the last start lay among all."""

    def take_over(self, idle_since_s: Sequence[float]) -> None:
        """Begins with instances that have been idle since these times."""
        self._free_at_s = sorted(idle_since_s)

    def is_full(self, at_s: float) -> bool:
        """Whether a call at `at_s` is refused for lack of instances."""
        return self._full(self.running(at_s), at_s)

    def start_s(self, at_s: float) -> float:
        """Takes the free instance used last, if the provider left it, or a new one; returns its start in seconds."""
        warm, always_warm = self._known()
        free = bisect_right(self._free_at_s, at_s)
        covered = len(self._free_at_s) - free < always_warm
        if free:
            idle_s = at_s - self._free_at_s[free - 1]
            if covered or self._draw() < warm.idle_time.survives(idle_s):
                del self._free_at_s[free - 1]
                return 0.0
            del self._free_at_s[:free]  # those that were idle longer are gone, too
        # Until starts were seen, an instance that is not known is a new one.
        if covered or (warm.starts_seen and self._draw() >= warm.unknown_cold):
            return 0.0
        self._percentile = self._draw()
        return warm.start_s(self._percentile)

    def init_s(self, start_s: float) -> float:
        """Returns the billed seconds of a start."""
        warm, _ = self._known()
        return min(start_s, warm.init_s(self._percentile))


class ShadowBackends:
    """The simulated edge servers and functions of an engine beside the running one."""

    def __init__(self, settings: EngineSettings, world: LearnedWorld, draw: Draw) -> None:
        """Makes the backends of these settings.

        Args:
            settings: of the engine beside.
            world: what the running engine knows.
            draw: draws.
        """
        self._settings = settings
        self._world = world
        self._draw = draw
        servers = [self._edge(edge.name, edge.parallel or world.parallel(edge.name)) for edge in settings.edges]
        self.edges = SimulatedEdges([server for server in servers if server is not None])
        link, outages = LearnedLink(world, settings, draw), Outages(world.functions_up)
        self._pools: dict[tuple[str, str], LearnedPool] = {}
        self.functions: Mapping[str, SimulatedFunctions] = {
            model.name: self._functions(model, link, outages) for model in settings.models if model.tiers
        }
        """By model: tiers of two models may have one name. They share the way."""

    def begin(self) -> None:
        """Takes over the instances that the running engine knows to be idle."""
        for (model, name), pool in self._pools.items():
            tier = next(each.tier(name) for each in self._settings.models if each.name == model)
            if (known := self._world.tier(model, tier)) is not None:
                pool.take_over(known[1].idle_since_s())

    def _edge(self, name: str, parallel: int) -> SimulatedEdge | None:
        laws = {model.name: model.edge_latency_on(name) for model in self._settings.models}
        latencies = {model: self._edge_law(model, name, law) for model, law in laws.items() if law is not None}
        if not latencies:
            return None
        return SimulatedEdge(
            latencies=latencies,
            faults=Outages(lambda at_s: self._world.edge_up(name, at_s)),
            noise=repeat(1.0),
            parallel=parallel,
            name=name,
        )

    def _edge_law(self, model: str, edge: str, profile: LatencyModel) -> DrawnService:
        # What is learned of an edge holds the way there and the decoding: from the send to the answer.
        overhead_s = self._settings.edge_overhead_s
        own = ServiceTime(profile, overhead_s=overhead_s)

        def service() -> ServiceTime | EdgeService:
            return self._world.on_edge(model, edge, profile) or own

        def beside_s() -> float:
            known = self._world.on_edge(model, edge, profile) is not None
            return self._world.beside_s(edge) if known else overhead_s + profile.decode_s

        return DrawnService(service, self._draw, beside_s)

    def _functions(self, model: ModelSettings, link: LearnedLink, outages: Outages) -> SimulatedFunctions:
        pools = {tier.name: self._pool(model.name, tier) for tier in model.tiers}
        self._pools.update({(model.name, name): pool for name, pool in pools.items()})
        return SimulatedFunctions(
            tiers={tier.name: DrawnTier(self._tier_law(model.name, tier), tier.price) for tier in model.tiers},
            uplink=link,
            faults=outages,
            noise=repeat(1.0),
            pools=pools,
            billed_beside_s=partial(self._billed_beside_s, model),
        )

    def _billed_beside_s(self, model: ModelSettings, tier: str) -> float:
        known = self._world.tier(model.name, model.tier(tier))
        return 0.0 if known is None else known[1].billed_beside_s

    def _tier_law(self, model: str, tier: FunctionTier) -> DrawnService:
        own = ServiceTime(tier.latency, shape_sigma=FUNCTION_SHAPE_SIGMA)

        def service() -> ServiceTime:
            known = self._world.tier(model, tier)
            return own if known is None else known[0]

        return DrawnService(service, self._draw)

    def _pool(self, model: str, tier: FunctionTier) -> LearnedPool:
        own = WarmInstances()

        def known() -> tuple[WarmInstances, int]:
            found = self._world.tier(model, tier)
            if found is None:
                return own, tier.provisioned
            _, warm, theirs = found
            return warm, tier.provisioned + max(0, warm.always_warm - theirs)

        def full(running: int, at_s: float) -> bool:
            for quota in self._world.quotas(at_s):
                if not quota.tier and self._running(at_s) >= quota.granted:
                    return True
                if (quota.model, quota.tier) == (model, tier.name) and running >= quota.granted:
                    return True
            return False

        return LearnedPool(known, full, self._draw)

    def _running(self, at_s: float) -> int:
        return sum(pool.running(at_s) for pool in self._pools.values())
