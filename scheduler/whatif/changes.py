"""What flags change of a configured site."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from scheduler.domain.errors import EdgeburstError
from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.memory import Memory
from scheduler.domain.plans import EngineSettings, ModelSettings, ServiceClass
from scheduler.simulator.command import bandwidth_of, cold_starts_of
from scheduler.simulator.edge_flags import AHEAD, EdgeLaw
from scheduler.simulator.faults import Fault, parse_fault
from scheduler.simulator.scenario import EDGE_FAULTS, EdgeServer, SimulatedModel, latency_model
from scheduler.whatif.flags import given
from scheduler.whatif.site import Site

_FUNCTION_FAULTS = ("slow", "slow-start", "throttle", "down")


def changed_site(site: Site, args: argparse.Namespace) -> Site:
    """Returns a site with what the flags change; the same object where they change nothing.

    Raises:
        EdgeburstError: a value is out of range, or a tier or edge server does not exist.
    """
    changed = site
    for change in (_places, _uplink, _edges, _tiers, _classes, _caps):
        changed = change(changed, args)
    return changed


def words(args: argparse.Namespace) -> str:
    """Returns what the flags change, in words."""
    named = (
        *("slo_s", "budget", "policy", "function_price", "function_law", "function_max_batch", "function_noise"),
        *("bandwidth_mbytes_per_s", "bandwidth_log", "rtt_s", "edge", "edge_parallel", "edge_noise", "edge_decode_s"),
        *("edge_lan_s", "edge_ahead", "edge_fault", "function_fault", "cold_start_s", "rate_scale", "tiers"),
        *("per_hour_cny", "per_day_cny", "changed", "function_noise_law"),
    )
    values = {name: given(args, name) for name in named}
    return ", ".join(f"{name.replace('_', '-')} {_text(value)}" for name, value in values.items() if value is not None)


def _text(value: object) -> str:
    if isinstance(value, EdgeLaw):
        return f"{value.name + ':' if value.name else ''}{value.alpha_s:g},{value.beta_s:g}"
    if isinstance(value, (tuple, list)):
        return " ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _each_model(
    site: Site,
    simulated: Callable[[SimulatedModel], SimulatedModel],
    told: Callable[[ModelSettings], ModelSettings],
) -> Site:
    scenario = replace(site.scenario, models=tuple(map(simulated, site.scenario.models)))
    settings = site.engine_settings()
    return replace(site, scenario=scenario, settings=replace(settings, models=tuple(map(told, settings.models))))


def _places(site: Site, args: argparse.Namespace) -> Site:
    scenario = site.scenario
    policy, sigma, start = given(args, "policy"), given(args, "function_noise"), given(args, "cold_start_s")
    tail, faults = given(args, "function_noise_law"), given(args, "function_fault")
    scenario = scenario if policy is None else replace(scenario, policy=str(policy))
    scenario = scenario if sigma is None else replace(scenario, function_noise=sigma)
    scenario = scenario if tail is None else replace(scenario, function_noise=0.0, function_tail=tail)
    scenario = scenario if start is None else replace(scenario, cold_starts=cold_starts_of(start))
    if faults is not None:
        parsed = tuple(parse_fault(text, _FUNCTION_FAULTS) for text in faults)
        scenario = replace(scenario, function_faults=parsed)
    observed = site.scatter if sigma is None and tail is None else replace(site.scatter, functions=())
    return site if scenario is site.scenario else replace(site, scenario=scenario, scatter=observed)


def _uplink(site: Site, args: argparse.Namespace) -> Site:
    slow, log, rtt_s = given(args, "bandwidth_mbytes_per_s"), given(args, "bandwidth_log"), given(args, "rtt_s")
    scenario = site.scenario
    if slow is None and log is None and rtt_s is None:
        return site
    if slow is not None or log is not None:
        scenario = replace(scenario, bandwidth=bandwidth_of(args))
    if rtt_s is not None:
        scenario = replace(scenario, rtt_s=rtt_s)
    # What was learned of another uplink is not true of this one.
    parts = {name: part for name, part in site.memory.parts.items() if name != "uplink"}
    return replace(site, scenario=scenario, memory=Memory(parts, site.memory.age_s))


def _edges(site: Site, args: argparse.Namespace) -> Site:
    scenario = site.scenario
    servers = tuple(_edge(server, args) for server in scenario.edge_servers())
    laws: list[EdgeLaw] = given(args, "edge") or []
    if servers == scenario.edge_servers() and not laws:
        return site
    names = [server.name for server in servers]
    unknown = [law.name for law in laws if law.name and law.name not in names]
    if unknown:
        raise EdgeburstError(f"--edge names {unknown[0]!r}, but the edge servers are {', '.join(names)}")
    settings = site.engine_settings()
    told = {server.name: server for server in servers}
    edges = tuple(
        replace(
            edge,
            parallel=told[edge.name].parallel if told[edge.name].told else None,
            ahead=told[edge.name].ahead,
        )
        for edge in settings.edges
    )
    first = servers[0]
    scenario = replace(
        scenario,
        edges=servers if scenario.edges else (),
        edge_parallel=first.parallel,
        edge_told=first.told,
        edge_noise=first.noise,
        edge_decode_s=first.decode_s,
        edge_lan_s=first.lan_s,
        edge_ahead=first.ahead,
        edge_faults=first.faults,
    )
    observed = site.scatter if given(args, "edge_noise") is None else replace(site.scatter, edges={})
    moved = replace(site, scenario=scenario, settings=replace(settings, edges=edges), scatter=observed)
    return _with_edge_laws(moved, laws) if laws else moved


def _edge(server: EdgeServer, args: argparse.Namespace) -> EdgeServer:
    flags = {"parallel": "edge_parallel", "noise": "edge_noise", "decode_s": "edge_decode_s", "lan_s": "edge_lan_s"}
    changes = {field: value for field, flag in flags.items() if (value := given(args, flag)) is not None}
    if (parallel := changes.get("parallel")) is not None and not 1 <= parallel <= 64:
        raise EdgeburstError(f"--edge-parallel must be 1 to 64, not {parallel}")
    ahead, learned = given(args, "edge_ahead"), given(args, "edge_parallel_learned")
    changes |= {} if ahead is None else {"ahead": AHEAD[str(ahead)]}
    changes |= {"told": False} if learned else {"told": True} if "parallel" in changes else {}
    faults = tuple(_faults(server.name, given(args, "edge_fault") or []))
    return replace(server, **changes, faults=faults or server.faults)


def _faults(name: str, texts: list[str]) -> Iterator[Fault]:
    for text in texts:
        first, _, rest = text.partition(":")
        if first in EDGE_FAULTS:
            yield parse_fault(text, EDGE_FAULTS)
        elif first == name:
            yield parse_fault(rest, EDGE_FAULTS)


def _with_edge_laws(site: Site, laws: list[EdgeLaw]) -> Site:
    """Returns the site with other laws of the edge, which the engine is told too."""
    by_name = {law.name: law for law in laws}

    def law_on(name: str, before: LatencyModel | None) -> LatencyModel | None:
        law = by_name.get(name) or by_name.get("")
        if law is None or before is None:
            return before
        return latency_model(law.alpha_s, law.beta_s, max_batch=before.max_batch)

    settings = site.engine_settings()
    first = settings.edges[0].name
    servers = tuple(
        replace(each, latencies=tuple((m, law_on(each.name, law) or law) for m, law in each.latencies))
        for each in site.scenario.edges
    )
    site = replace(site, scenario=replace(site.scenario, edges=servers))
    return _each_model(
        site,
        lambda model: replace(model, edge_latency=law_on(first, model.edge_latency)),
        lambda model: replace(
            model,
            edge_latency=law_on(first, model.edge_latency),
            edge_latencies={
                edge.name: law_on(edge.name, model.edge_latency_on(edge.name)) for edge in settings.edges[1:]
            },
        ),
    )


def _tiers(site: Site, args: argparse.Namespace) -> Site:
    names, price, law = given(args, "tiers"), given(args, "function_price"), given(args, "function_law")
    most = given(args, "function_max_batch")
    if names is None and price is None and law is None and most is None:
        return site
    known = {tier.name for model in site.engine_settings().models for tier in model.tiers}
    unknown = sorted(set(names or ()) - known)
    if unknown:
        raise EdgeburstError(f"--tiers names {unknown[0]!r}, but the tiers are {', '.join(sorted(known)) or 'none'}")

    def changed(tier: FunctionTier) -> FunctionTier:
        latency, paid = tier.latency, tier.price
        if law is not None:
            latency = latency_model(*law, max_batch=latency.max_batch)
        if most is not None:
            latency = replace(latency, max_batch=most)
        if price is not None:
            paid = Price(price[0], price[1], paid.grain_s, paid.currency, "--function-price")
        return replace(tier, latency=latency, price=paid)

    def chosen(tiers: tuple[FunctionTier, ...]) -> tuple[FunctionTier, ...]:
        return tuple(changed(tier) for tier in tiers if names is None or tier.name in names)

    return _each_model(
        site,
        lambda model: replace(model, tiers=chosen(model.tiers)),
        # Buffers of a loaded plan name tiers, and were made for their prices.
        lambda model: replace(model, tiers=chosen(model.tiers), buffers=()),
    )


def _classes(site: Site, args: argparse.Namespace) -> Site:
    slo_s, budget = given(args, "slo_s"), given(args, "budget")
    if slo_s is None and budget is None:
        return site

    def changed(each: ServiceClass) -> ServiceClass:
        spends = each.spends if budget is None else budget == "spend"
        return replace(each, slo_s=each.slo_s if slo_s is None else float(slo_s), spends=spends)

    return _each_model(
        site,
        lambda model: replace(
            model, classes=tuple(replace(each, service_class=changed(each.service_class)) for each in model.classes)
        ),
        lambda model: replace(model, classes=tuple(map(changed, model.classes))),
    )


def _caps(site: Site, args: argparse.Namespace) -> Site:
    hour, day = given(args, "per_hour_cny"), given(args, "per_day_cny")
    for flag, cap in (("--per-hour-cny", hour), ("--per-day-cny", day)):
        if cap is not None and not (math.isfinite(cap) and cap >= 0):
            raise EdgeburstError(f"{flag} must be a finite number of at least 0, not {cap:g}")
    if hour is None and day is None:
        return site
    settings: EngineSettings = site.engine_settings()
    settings = replace(
        settings,
        spend_per_hour=settings.spend_per_hour if hour is None else hour,
        spend_per_day=settings.spend_per_day if day is None else day,
    )
    return replace(site, settings=settings)
