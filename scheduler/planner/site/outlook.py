"""What a plan promises: the money, and for each service class the fraction in time and whether its percentile holds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.domain.plans import ClassOutlook, ModelEstimates, ModelSettings, ServiceClass
from scheduler.planner.site.buffer_planning import PlannedBuffer, fastest_s
from scheduler.planner.site.edge_capacity import NO_EDGE, EdgeShare
from scheduler.planner.site.infeasibility import Shortfall, reason
from scheduler.planner.site.service_margin import Spread, margin_at

_ROUNDING = 1e-9
"""Part of a class above its budget of late answers that is rounding."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is expected of one model's plan.

    Attributes:
        cost_per_s: money a second.
        within_slo: fraction of all items in time.
        classes: the same for each class, with the reason where its percentile cannot be kept.
    """

    cost_per_s: float
    within_slo: float
    classes: tuple[ClassOutlook, ...]

    @property
    def reason(self) -> str:
        """The reason of the class that misses its percentile by most; empty if every class keeps it."""
        worst = min((each for each in self.classes if not each.feasible), key=_within, default=None)
        return worst.reason if worst else ""


def _within(outlook: ClassOutlook) -> float:
    return outlook.expected_within_slo


@dataclass(frozen=True, slots=True)
class Serving:
    """How one model is served.

    Attributes:
        settings: the model, with its classes.
        estimates: rates and services at present.
        edge: what the edge keeps.
        edge_spread: scatter of edge services.
        edge_services_s: expected seconds of an edge batch of 1, 2, ... items; empty without an edge.
        edge_factors: of the same edge server, by percentile: observed / predicted service.
        edge_slo_s: the SLO that binds on the edge.
        buffers: the planned function buffers.
        edge_up: whether the edge answers at present.
        function_up: whether the functions answer at present.
        uplink_bytes_per_s: bandwidth to the functions; None: ample.
    """

    settings: ModelSettings
    estimates: ModelEstimates
    edge: EdgeShare
    edge_spread: Spread
    edge_services_s: tuple[float, ...]
    edge_factors: Mapping[float, float]
    edge_slo_s: float
    buffers: tuple[PlannedBuffer, ...]
    edge_up: bool
    function_up: bool
    uplink_bytes_per_s: float | None

    @property
    def reachable(self) -> tuple[PlannedBuffer, ...]:
        """The buffers whose batches meet the deadline that they were chosen for."""
        return tuple(buffer for buffer in self.buffers if buffer.choice.in_time and self.function_up)

    @property
    def total_share(self) -> float:
        """Sum of the buffers' shares of the items; 0 if nothing was observed."""
        return math.fsum(buffer.route.share for buffer in self.buffers)

    def share_of(self, buffer: PlannedBuffer) -> float:
        """Returns a buffer's share of what is spilled."""
        return buffer.route.share / self.total_share if self.total_share > 0 else 1.0 / len(self.buffers)

    @property
    def served(self) -> float:
        """Fraction of the spilled items that the functions can take: the buffers share uplink and slots."""
        spill_rps = self.estimates.rate_rps * self.edge.spill_fraction
        if self.total_share <= 0:
            return 1.0
        needed = math.fsum(spill_rps * self.share_of(b) / b.choice.capacity_rps for b in self.reachable)
        return min(1.0, 1.0 / needed) if needed > 0 else 1.0

    def edge_within(self, service_class: ServiceClass) -> float:
        """Returns the fraction of a class's edge requests in time.

        They have waited between 0 and the time in which the batch gathered.
        """
        edge, rate_rps = self.edge, self.estimates.rate_rps
        if edge.batch_cap == 0:
            return 0.0
        service_s = self.edge_services_s[max(1, round(edge.batch)) - 1]
        gathering_s = edge.batch / rate_rps if rate_rps > 0 else 0.0
        longest_wait_s = min(gathering_s, max(0.0, self.edge_slo_s - self.edge_spread.margin * service_s))
        return self.edge_spread.within_after_wait(service_class.slo_s, service_s, longest_wait_s=longest_wait_s)

    def edge_serves(self, service_class: ServiceClass) -> bool:
        """Returns whether the edge can answer a single item of a class in time."""
        if self.edge is NO_EDGE or not self.edge_services_s:
            return False
        margin = min(margin_at(service_class.percentile, self.edge_factors), self.edge_spread.margin)
        return self.edge_services_s[0] * margin <= service_class.slo_s


def outlook(serving: Serving) -> Outlook:
    """Returns what is expected of a plan, class by class.

    Classes that only the edge can answer in time get its capacity first; the others share the rest of it.
    """
    rate_rps, served = serving.estimates.rate_rps, serving.served
    spill_rps = rate_rps * serving.edge.spill_fraction
    cost_per_s = math.fsum(
        spill_rps * serving.share_of(buffer) * served * buffer.choice.cost_per_item for buffer in serving.reachable
    )
    shares, kept = _shares(serving), _kept(serving)
    found = tuple(_class_outlook(serving, c, kept=kept[c.name], served=served) for c in serving.settings.classes)
    within = math.fsum(shares[each.name] * each.expected_within_slo for each in found)
    return Outlook(cost_per_s, min(1.0, within), found)


def _shares(serving: Serving) -> dict[str, float]:
    """Returns each class's share of the items; equal shares while none was observed."""
    classes = [c.name for c in serving.settings.classes]
    seen = [serving.estimates.class_shares.get(name, 0.0) for name in classes]
    total = math.fsum(seen)
    return {name: share / total if total > 0 else 1 / len(classes) for name, share in zip(classes, seen, strict=True)}


def _function_within(serving: Serving, service_class: ServiceClass) -> tuple[float, float]:
    """Returns what functions do for a class's spilled items: the fraction they can answer in time, and that in time.

    The first counts what is planned to be answered; the second is less by the scatter that the percentile allows.
    """
    theirs = [buffer for buffer in serving.buffers if service_class.name in {c.name for c in buffer.route.classes}]
    reachable, total = serving.reachable, math.fsum(buffer.route.share for buffer in theirs)
    answered, within = 0.0, 0.0
    for buffer in theirs:
        share = buffer.route.share / total if total > 0 else 1 / len(theirs)
        if buffer not in reachable:
            continue
        if service_class.slo_s >= buffer.problem.slo_s:
            fraction = buffer.within()
            promised = 1.0 if buffer.problem.margin >= buffer.problem.spread.margin else fraction
        else:
            # The batches were chosen for looser classes: what is possible is an item alone.
            left_s = service_class.slo_s - buffer.problem.path.takes_s(1)
            promised = fraction = buffer.problem.spread.within(left_s, buffer.choice.services_s[0])
        answered += share * promised
        within += share * fraction
    return answered, within


def _kept(serving: Serving) -> Mapping[str, float]:
    """Returns the fraction of each class that the edge keeps."""
    shares, kept = _shares(serving), 1.0 - serving.edge.spill_fraction
    by_edge = [c for c in serving.settings.classes if serving.edge_serves(c)]
    alone = {c.name for c in by_edge if _function_within(serving, c)[0] <= 0}
    first = math.fsum(shares[c.name] for c in by_edge if c.name in alone)
    second = math.fsum(shares[c.name] for c in by_edge if c.name not in alone)
    first_part = _part(kept, first)
    second_part = _part(kept - first * first_part, second)
    parts = {c.name: first_part if c.name in alone else second_part for c in by_edge}
    return {c.name: parts.get(c.name, 0.0) for c in serving.settings.classes}


def _part(available: float, wanted: float) -> float:
    if wanted <= 0:
        return 1.0 if available > 0 else 0.0
    return min(1.0, max(0.0, available / wanted))


def _class_outlook(serving: Serving, service_class: ServiceClass, *, kept: float, served: float) -> ClassOutlook:
    answered, within = _function_within(serving, service_class)
    unserved = max(0.0, 1.0 - kept - (1.0 - kept) * served * answered)
    expected = kept * serving.edge_within(service_class) + (1.0 - kept) * served * within
    short = unserved > 1 - service_class.percentile + _ROUNDING
    return ClassOutlook(
        name=service_class.name,
        expected_within_slo=min(1.0, expected) if serving.estimates.rate_rps > 0 else 1.0 - unserved,
        feasible=not short,
        reason=reason(_shortfall(serving, service_class, unserved=unserved)) if short else "",
    )


def _shortfall(serving: Serving, service_class: ServiceClass, *, unserved: float) -> Shortfall:
    settings, estimates, services_s = serving.settings, serving.estimates, serving.edge_services_s
    theirs = [buffer for buffer in serving.buffers if service_class.name in {c.name for c in buffer.route.classes}]
    # Of several buffers the worst one says what is missing.
    worst = min(theirs, key=lambda b: (b.choice.in_time, b.choice.hold_s), default=None)
    share = _shares(serving)[service_class.name]
    return Shortfall(
        model=settings.name,
        class_name=service_class.name if len(settings.classes) > 1 else "",
        slo_s=service_class.slo_s,
        percentile=service_class.percentile,
        unserved=unserved,
        rate_rps=estimates.rate_rps * share,
        edge_rps=serving.edge.capacity_rps if serving.edge_serves(service_class) else 0.0,
        edge_alone_s=services_s[0] * serving.edge_spread.margin if services_s else math.inf,
        edge_up=serving.edge_up,
        has_edge=bool(services_s),
        function_rps=worst.choice.capacity_rps if worst else 0.0,
        function_alone_s=_alone_s(worst, estimates),
        function_up=serving.function_up,
        has_function=worst is not None,
        edge_only=service_class.edge_only,
        uplink_bytes_per_s=serving.uplink_bytes_per_s,
        item_bytes=estimates.item_bytes,
    )


def _alone_s(buffer: PlannedBuffer | None, estimates: ModelEstimates) -> float:
    if buffer is None:
        return math.inf
    problem = buffer.problem
    return fastest_s(buffer.route, estimates) * problem.spread.margin + problem.path.takes_s(1)
