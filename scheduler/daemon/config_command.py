"""`edgeburst check-config`: whether a configuration is valid, and what it configures."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from scheduler.daemon.access_check import access_lines, access_summary, access_warnings
from scheduler.daemon.config.config import Config, load_config
from scheduler.daemon.config.credentials import read_access_key, secret_references
from scheduler.daemon.config.warm_instances import configured_counts, instance_warnings, proposals
from scheduler.daemon.state.keeper import WITHOUT
from scheduler.dispatch.function_side import most_for_call, most_for_start
from scheduler.domain.errors import ConfigError
from scheduler.domain.latency import FunctionTier, LatencyModel
from scheduler.domain.plans import EdgeSettings, EngineSettings, ModelSettings
from scheduler.estimates import Estimates, ModelKnowledge
from scheduler.planner.site.warm_instances import Proposal
from scheduler.planning.warm_instances import DAY_S, HOUR_S

_DESCRIPTION = """\
Reads a configuration as `edgeburst serve` does, with its profiles, price sheets and EDGEBURST_* overrides, and shows
its meaning. It opens no connection. It never shows secrets: only which environment variable holds each, and whether
that variable is set.

Exit status: 0 valid (also with warnings), 2 not valid."""

_EPILOG = """\
examples:
  edgeburst check-config --config edgeburst.toml
  EDGEBURST_EDGE__URL=http://jetson.local:8700 edgeburst check-config --config edgeburst.toml --json"""


_CAPS = (("per_hour", "in any hour"), ("per_day", "in any 24 hours"))


def add_parser(subparsers: Any) -> None:
    """Adds the sub-command to the command line."""
    parser = subparsers.add_parser(
        "check-config",
        help="check a configuration and show its meaning",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", required=True, help="the TOML file")
    parser.add_argument("--json", action="store_true", help="print one JSON object, also for an invalid configuration")


def run(args: argparse.Namespace) -> int:
    """Checks a configuration and prints it; returns the exit status.

    Raises:
        ConfigError: it is not valid, and JSON was not asked for.
    """
    try:
        found = summary(load_config(args.config, os.environ), os.environ)
    except ConfigError as error:
        if not args.json:
            raise
        print(json.dumps({"valid": False, "error": str(error)}))
        return 2
    print(json.dumps(found, indent=2) if args.json else "\n".join(_lines(found)))
    return 0


def summary(config: Config, environ: Mapping[str, str]) -> dict[str, Any]:
    """Returns the meaning of a configuration, as JSON shows it."""
    settings, proposed = config.engine_settings(), proposals(config)
    function = config.function
    return {
        "valid": True,
        "path": str(config.path),
        "listen": f"{config.daemon.host}:{config.daemon.port}",
        "access": access_summary(config, environ),
        "edge": config.edges[0].url if config.edges else None,
        "edges": [
            {
                "name": edge.name,
                "url": edge.url,
                "parallel": edge.parallel,
                "ahead": edge.ahead,
                "models": list(edge.models),
            }
            for edge in config.edges
        ],
        "function": {
            "endpoint": function.endpoint or f"fcv3.{function.region}.aliyuncs.com",
            "protocol": function.protocol,
            "price_sheet": function.price_sheet,
            "access_key_file": str(config.access_key_file() or ""),
        }
        if function
        else None,
        "secrets": [
            {"purpose": secret.purpose, "variable": secret.variable, "set": secret.present}
            for secret in secret_references(config, environ)
        ],
        "spend": {
            "per_hour": settings.spend_per_hour,
            "per_day": settings.spend_per_day,
            "over_cap": settings.over_cap,
            "from": config.spend.lender or None,
            "currency": config.currency(),
        },
        "state": str(config.state_folder() or ""),
        "explain": {"ring": config.explain.ring, "file": str(config.explain_file() or "")},
        "models": [_model(config, index, model, settings.edges) for index, model in enumerate(settings.models)],
        "provisioned": _provisioned(config, proposed),
        "warnings": list(_warnings(config, settings, proposed, environ)),
    }


def _provisioned(config: Config, made: Sequence[Proposal]) -> list[dict[str, Any]]:
    counts, currency = configured_counts(config), config.currency()
    proposed = {proposal.tier: proposal.chosen.count for proposal in made}
    return [
        {
            "tier": tier,
            "instances": counts.get(tier, 0),
            "proposed": proposed.get(tier),
            "idle_per_hour": counts.get(tier, 0) * idle_per_s * HOUR_S,
            "idle_per_day": counts.get(tier, 0) * idle_per_s * DAY_S,
            "currency": currency,
        }
        for (_, tier), idle_per_s in config.idle_prices().items()
    ]


def _model(config: Config, index: int, model: ModelSettings, edges: Sequence[EdgeSettings]) -> dict[str, Any]:
    card = config.card(index) if config.models[index].card else None
    return {
        "name": model.name,
        "card": None if card is None else str(card.folder),
        "identity": config.identities()[model.name],
        "measured_at_start": any(wanted.card.name == model.name for wanted in config.to_measure()),
        "max_items": model.max_items,
        "classes": [
            {
                "name": service_class.name,
                "slo_s": service_class.slo_s,
                "percentile": service_class.percentile,
                "late": "serve" if service_class.serve_late else "refuse",
                "budget": "spend" if service_class.spends else "keep",
            }
            for service_class in model.classes
        ],
        "edge": _latency(model.edge_latency) if model.edge_latency else None,
        "edges": {edge.name: _latency(law) for edge in edges if (law := model.edge_latency_on(edge.name)) is not None},
        "function_plan": [asdict(buffer) for buffer in model.buffers],
        "tiers": [_tier(tier) for tier in model.tiers],
    }


def _latency(latency: LatencyModel) -> dict[str, Any]:
    return {
        "one_item_s": latency.predict_s(1),
        "largest_s": latency.predict_s(latency.max_batch),
        "max_batch": latency.max_batch,
    }


def _tier(tier: FunctionTier) -> dict[str, Any]:
    return {
        "name": tier.name,
        "function": tier.function_name,
        "qualifier": tier.qualifier,
        **_latency(tier.latency),
        "cost_of_one_item": tier.price.cost(tier.latency.predict_s(1)),
        "currency": tier.price.currency,
    }


def _warnings(
    config: Config, settings: EngineSettings, proposed: Sequence[Proposal], environ: Mapping[str, str]
) -> Iterator[str]:
    """Yields what is valid but probably not intended."""
    if config.function is not None:
        try:
            read_access_key(config, environ)
        except ConfigError as error:
            yield str(error)
    yield from access_warnings(config, environ)
    for index, model in enumerate(settings.models):
        yield from _foreign_profiles(config, index)
        if all(wanted.card.name != model.name for wanted in config.to_measure()):
            yield from _infeasible_classes(model, settings.edges)
    yield from _caps_below_one_batch(settings)
    yield from instance_warnings(config, proposed)


def _foreign_profiles(config: Config, index: int) -> Iterator[str]:
    model = config.models[index]
    profiles = [config.tier_profile(index, number) for number in range(len(model.tiers))]
    on_edges = {profile.name: profile for edge in config.edges if (profile := config.edge_profile(index, edge))}
    for profile in (*on_edges.values(), *profiles):
        if profile.model != model.name:
            yield (
                f"profile {profile.name} was measured with model {profile.model}, not with {model.name}; measure it"
                " with that, by `edgeburst profile`"
            )


def _infeasible_classes(model: ModelSettings, edges: Sequence[EdgeSettings]) -> Iterator[str]:
    laws = (model.edge_latency_on(edge.name) for edge in edges)
    edge = [law.predict_s(1) for law in laws if law is not None]
    functions = [tier.latency.predict_s(1) for tier in model.tiers]
    for service_class in model.classes:
        reachable = edge if service_class.edge_only else [*edge, *functions]
        if not reachable:
            yield (
                f"class {service_class.name} of model {model.name} is edge-only, but the model has no edge; add one, or"
                " remove the label"
            )
        elif service_class.slo_s < min(reachable):
            fastest = "the edge" if service_class.edge_only else "the fastest backend"
            yield (
                f"class {service_class.name} of model {model.name} has an SLO of {service_class.slo_s:g} s, but"
                f" {fastest} takes {min(reachable):.3g} s for one item; raise `slo_s`, or serve it by something faster"
            )


def _caps_below_one_batch(settings: EngineSettings) -> Iterator[str]:
    """Yields a sentence for each cap and model whose least batch the cap does not allow before a start is measured."""
    knowledge = Estimates(settings).models
    idle_per_s = sum(tier.provisioned * tier.idle_per_s for model in settings.models for tier in model.tiers)
    for model in settings.models:
        least = min([_held_back(knowledge[model.name], tier) for tier in model.tiers], default=0.0)
        for cap, idle, where, whose in _caps(settings, idle_per_s):
            if least and cap < idle + least:
                yield (
                    f"{where} is {cap:.6g}, but {idle + least:.6g} is the least with which model {model.name} calls a"
                    " function: a batch counts with all that it may cost, the start of its instance included, until it"
                    f" is answered{', and idle instances come off first' if idle else ''}; no function will be called"
                    f"{whose}; raise it"
                )


def _caps(settings: EngineSettings, idle_per_s: float) -> Iterator[tuple[float, float, str, str]]:
    """Yields each cap, what idle instances take of it, where it is, and for whose requests it holds."""
    caps = (("per_hour", settings.spend_per_hour, HOUR_S), ("per_day", settings.spend_per_day, DAY_S))
    for key, cap, window_s in caps:
        if cap is not None:
            yield cap, idle_per_s * window_s, f"`{key}` in [spend]", ""
    for tenant in settings.tenants:
        for key, own in (("per_hour", tenant.per_hour), ("per_day", tenant.per_day)):
            if own is not None:
                yield own, 0.0, f"`{key}` of [[tenant]] {tenant.name}", " for this tenant"


def _held_back(known: ModelKnowledge, tier: FunctionTier) -> float:
    """Returns the money that a batch of one item is held back with, as long as nothing is measured."""
    service = known.functions[tier.name]
    call = most_for_call(tier.price, service.predict_s(1), service.scatter())
    return call if tier.provisioned else call + most_for_start(tier.price, known.warm[tier.name])


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"{found['path']} is valid."
    yield f"listens on   {found['listen']}"
    yield from access_lines(found["access"])
    for edge in found["edges"] if len(found["edges"]) > 1 else ():
        yield f"edge         {edge['name']}: {_edge_words(edge)}"
    if len(found["edges"]) < 2:
        yield f"edge         {_edge_words(found['edges'][0]) if found['edges'] else 'none'}"
    function = found["function"]
    yield f"functions    {function['protocol'] + '://' + function['endpoint'] if function else 'none'}"
    if function and function["access_key_file"]:
        yield f"access key   from the file {function['access_key_file']}"
    for secret in found["secrets"]:
        yield f"{secret['purpose']:<20} from {secret['variable']}: {'set' if secret['set'] else 'NOT SET'}"
    file = found["explain"]["file"]
    yield f"explains     the latest {found['explain']['ring']} requests{f', and writes {file}' if file else ''}"
    spend = found["spend"]
    caps = [f"{spend[key]:g} {spend['currency']} {words}" for key, words in _CAPS if spend[key] is not None]
    if caps:
        yield f"spends       at most {', '.join(caps)}; above that: {spend['over_cap']}"
    if spend["from"]:
        yield f"borrows      money from {spend['from']}; without it: {spend['over_cap']}"
    if found["state"]:
        yield f"keeps        leased money, limits and estimates in {found['state']}"
    else:
        yield f"keeps        nothing: {WITHOUT}"
    for model in found["models"]:
        yield from _model_lines(model)
    for tier in found["provisioned"]:
        if tier["instances"]:
            yield (
                f"provisioned  {tier['instances']} of tier {tier['tier']}: {tier['idle_per_hour']:.4g}"
                f" {tier['currency']} an hour and {tier['idle_per_day']:.4g} a day while idle"
            )
    for warning in found["warnings"]:
        yield f"warning: {warning}"


def _model_lines(model: Mapping[str, Any]) -> Iterator[str]:
    yield f"model {model['name']}, at most {model['max_items']} items per request"
    if model["card"]:
        yield f"  card: {model['card']}, {model['identity'] or 'identity not known: a file is neither here nor hashed'}"
    if model["measured_at_start"]:
        yield "  edge: measured when the daemon starts"
    for service_class in model["classes"]:
        yield (
            f"  class {service_class['name']}: {service_class['percentile']:.3%} within {service_class['slo_s']:g} s;"
            f" late requests: {service_class['late']}"
        )
    for name, latency in model["edges"].items() if len(model["edges"]) > 1 else ():
        yield f"  edge {name}: {_latency_words(latency)}"
    if model["edge"] and len(model["edges"]) < 2:
        yield f"  edge: {_latency_words(model['edge'])}"
    for buffer in model["function_plan"]:
        waits = ", ".join(f"{name} up to {wait_s:.3g} s" for name, wait_s in buffer["timeouts_s"].items())
        size = "" if buffer["up_to_bytes"] is None else f", requests up to {buffer['up_to_bytes']:g} bytes"
        yield f"  planned: batches of {buffer['target_batch']} on tier {buffer['tier']}; {waits}{size}"
    for tier in model["tiers"]:
        yield (
            f"  tier {tier['name']}: function {tier['function']}:{tier['qualifier']}, {_latency_words(tier)},"
            f" one item costs {tier['cost_of_one_item']:.3g} {tier['currency']}"
        )


def _edge_words(edge: Mapping[str, Any]) -> str:
    several = f", {edge['parallel']} batches at once" if (edge["parallel"] or 1) > 1 else ""
    ahead = {0: ", nothing sent ahead", 1: ", a batch sent ahead"}.get(edge["ahead"], "")
    return f"{edge['url']}{several}{ahead}{', for ' + ', '.join(edge['models']) if edge['models'] else ''}"


def _latency_words(latency: Mapping[str, Any]) -> str:
    return f"{latency['one_item_s']:.3f} s for one item, {latency['largest_s']:.3f} s for {latency['max_batch']}"
