"""How many instances the demo keeps warm: what the planner proposes for its rates, and for all requests by function."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from models.profile import load_profile
from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.plans import EngineSettings, ModelSettings, ServiceClass
from scheduler.planner.catalogue.prices import load_sheet
from scheduler.planning.warm_instances import InstanceTerms, Traffic, tier_proposals
from scripts.demo.settings import FUNCTION, MEMORY_GB, MODEL, PRICE_SHEET, TIER, Settings

MAX_INSTANCES = 200
"""Largest number that is proposed."""
REQUEST_BYTES = 13_000
"""Mean bytes of a request on the wire, of the held-out pictures."""
_MAX_ITEMS = 64
_TOGETHER_S = 0.1
"""Mean wait of a batch for others that leave at the same time, beyond what the formula for independent batches gives:
they share an uplink of 8 Mbit/s. Measured in the demo: calls take 0.17 s more than their service."""


@dataclass(frozen=True, slots=True)
class WarmInstances:
    """Numbers of warm instances that keep the SLO without a start.

    Attributes:
        beside_edge: for what the edge cannot keep.
        all_function: if every request went to a function, over an uplink that is no limit.
    """

    beside_edge: int
    all_function: int


def plan_instances(settings: Settings, *, edge_profile: str, function_profile: str) -> WarmInstances:
    """Returns the proposals for the demo's rates; both are at least 1."""
    edge, function = latency_model(edge_profile), latency_model(function_profile)
    uplink = settings.uplink_bytes_per_s
    return WarmInstances(
        beside_edge=_proposed(settings, edge, function, uplink_bytes_per_s=uplink),
        all_function=_proposed(settings, None, function, uplink_bytes_per_s=math.inf),
    )


def latency_model(profile_name: str) -> LatencyModel:
    """Returns the latency model of a profile, given by its name or its file."""
    profile = load_profile(profile_name)
    rows = tuple((row.batch, row.p50_s) for row in profile.rows)
    return LatencyModel(profile.alpha_s, profile.beta_s, profile.max_batch, rows)


def _proposed(
    settings: Settings, edge: LatencyModel | None, function: LatencyModel, *, uplink_bytes_per_s: float
) -> int:
    price: Price = load_sheet(PRICE_SHEET).tier_price(memory_gb=MEMORY_GB)
    tier = FunctionTier(TIER, FUNCTION, function, price, max_in_flight=MAX_INSTANCES)
    service_class = ServiceClass(slo_s=settings.slo_s, percentile=0.99, serve_late=True)
    model = ModelSettings(MODEL, max_items=_MAX_ITEMS, classes=(service_class,), edge_latency=edge, tiers=(tier,))
    terms = InstanceTerms(
        idle_prices={(MODEL, TIER): load_sheet(PRICE_SHEET).idle_per_s(memory_gb=MEMORY_GB)},
        # No start may happen during the measurement, so that these two do not matter.
        start_s=1.0,
        kept_s=1.0,
        uplink_bytes_per_s=uplink_bytes_per_s,
    )
    traffic = {MODEL: Traffic(settings.rates_rps, settings.phase_s, REQUEST_BYTES)}
    engine = EngineSettings(models=(model,), max_function_in_flight=MAX_INSTANCES)
    if math.isfinite(uplink_bytes_per_s):
        engine = replace(engine, uplink_rtt_s=engine.uplink_rtt_s + _TOGETHER_S)
    [proposal] = tier_proposals(engine, traffic, terms, on_demand=False)
    return max(1, proposal.chosen.count)


def planned(settings: Settings, instances: WarmInstances) -> Settings:
    """Returns the settings with the proposed number, unless they name one."""
    return settings if settings.provisioned else replace(settings, provisioned=instances.beside_edge)
