"""`edgeburst plan`: functions for applications, or the plan of a daemon's configuration at a given rate."""

import argparse
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from scheduler.daemon.config.config import Config, load_config
from scheduler.daemon.config.warm_instances import expected_traffic, instance_terms
from scheduler.domain.errors import EdgeburstError
from scheduler.domain.plans import BufferPlan, EngineSettings, GroupPlan, Plan, Snapshot
from scheduler.estimates import Estimates
from scheduler.planner.site.plan import best_plan
from scheduler.planner.site.warm_instances import Proposal
from scheduler.planning import command as functions_command
from scheduler.planning.warm_instances import Traffic, proposal_json, proposal_sentence, tier_proposals
from scheduler.terminal import progress

_MEBIBYTE = 2**20
_EXAMPLE = """examples:
  edgeburst plan --apps apps.toml --profile functions.json --prices fc3-cu-usd
  edgeburst plan --map hour.json --slo-s 5 --percentile 0.95 --profile functions.json --json
  edgeburst plan --arrivals trace.gaps --from-s 0 --to-s 600 --slo-s 1 --profile functions.json --plot frontier.png
  edgeburst plan --config edgeburst.toml --rps 120 --bandwidth-mbytes-per-s 1.0

With --config the plan is that of a daemon that has learned nothing yet: latency models come from the configured
profiles, without a spread of service times. A running daemon learns both, so its plans (GET /v1/status) differ from
this one.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `plan` with its arguments."""
    parser = subparsers.add_parser(
        "plan",
        help="plan functions for applications, or show the plan of a configuration at a given rate",
        description="Finds the cheapest functions, batches and timeouts that keep every application's percentile; or "
        "makes one plan for a daemon's configuration at a given rate.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sources = parser.add_mutually_exclusive_group(required=True)
    functions_command.add_arguments(parser, sources)
    sources.add_argument("--config", type=Path, help="plan for a daemon's configuration, edge and functions")
    parser.add_argument(
        "--rps",
        type=_rates,
        metavar="R[,R...]",
        help="with --config: requests per second of each model; of several rates that follow one another, the plan is"
        " that of the largest (default: those of [deploy.traffic])",
    )
    parser.add_argument(
        "--hold-s", type=float, default=3600.0, metavar="S", help="with --rps: mean seconds of each rate (default 3600)"
    )
    parser.add_argument(
        "--bandwidth-mbytes-per-s",
        type=float,
        metavar="X",
        help="with --config: uplink bandwidth, MB = 2**20 bytes",
    )
    parser.add_argument(
        "--request-bytes",
        type=int,
        default=24_000,
        metavar="N",
        help="with --config: bytes (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def run(args: argparse.Namespace) -> int:
    """Makes a plan and prints it; returns the exit status, 1 if the plan cannot keep its objective."""
    if args.config is None:
        for flag, value in (("--rps", args.rps), ("--bandwidth-mbytes-per-s", args.bandwidth_mbytes_per_s)):
            if value is not None:
                raise EdgeburstError(f"{flag} needs --config; add that or leave {flag} out")
        return functions_command.run(args)
    config = load_config(args.config, os.environ)
    for name in sorted(config.measured_later()):
        print(
            f"edgeburst: model {name} is not measured on the edge yet, so this plan does not use the edge for it;"
            " `edgeburst serve` measures it and, with `state` in [daemon], plans know it then",
            file=sys.stderr,
        )
    settings, traffic = config.engine_settings(), _traffic(args, config)
    rps = max(max(each.rates_rps) for each in traffic.values())
    with progress("planning"):
        plan, proposals = _planned(args, config, settings, traffic, rps)
    if args.json:
        found = [proposal_json(each, currency=plan.currency) for each in proposals]
        print(json.dumps({**asdict(plan), "provisioned": found}))
    else:
        for group in plan.groups:
            _print_group(group, plan.currency)
            for each in proposals:
                if each.model == group.model:
                    print(f"  warm instances  {proposal_sentence(each, currency=plan.currency)}")
    return 0 if all(group.feasible for group in plan.groups) else 1


def _planned(
    args: argparse.Namespace, config: Config, settings: EngineSettings, traffic: dict[str, Traffic], rps: float
) -> tuple[Plan, Sequence[Proposal]]:
    bandwidth = args.bandwidth_mbytes_per_s
    plan = plan_for(settings, rps=rps, request_bytes=args.request_bytes, bandwidth_mbytes_per_s=bandwidth)
    uplink_bytes_per_s = None if bandwidth is None else bandwidth * _MEBIBYTE
    return plan, tier_proposals(settings, traffic, instance_terms(config, uplink_bytes_per_s=uplink_bytes_per_s))


def _traffic(args: argparse.Namespace, config: Config) -> dict[str, Traffic]:
    """Returns the traffic of each model: that of --rps, or what the configuration expects."""
    if not args.request_bytes >= 0 or (args.rps and not all(rate >= 0 for rate in args.rps)):
        raise EdgeburstError("--rps and --request-bytes must be at least 0")
    if args.bandwidth_mbytes_per_s is not None and not args.bandwidth_mbytes_per_s >= 0:
        raise EdgeburstError("--bandwidth-mbytes-per-s must be at least 0")
    if not 0 < args.hold_s < math.inf:
        raise EdgeburstError("--hold-s must be above 0")
    if args.rps:
        return {model.name: Traffic(args.rps, args.hold_s, float(args.request_bytes)) for model in config.models}
    expected = expected_traffic(config)
    if not expected:
        raise EdgeburstError("--rps is missing; give the requests per second to plan for")
    return expected


def _rates(text: str) -> tuple[float, ...]:
    return tuple(float(word) for word in text.split(","))


_rates.__name__ = "list of numbers"


def plan_for(settings: EngineSettings, *, rps: float, request_bytes: int, bandwidth_mbytes_per_s: float | None) -> Plan:
    """Returns the plan that the engine makes at this rate without any other measurement.

    Args:
        settings: the engine's settings.
        rps: requests per second of every model.
        request_bytes: mean size of a request on the wire.
        bandwidth_mbytes_per_s: bandwidth of the uplink; None takes the configured one.
    """
    estimates = Estimates(settings)
    configured = estimates.uplink_bytes_per_s
    snapshot = Snapshot(
        taken_at_s=0.0,
        settings=settings,
        models={
            name: replace(model.estimates(), rate_rps=rps, dispersion=1.0, item_bytes=float(request_bytes))
            for name, model in estimates.models.items()
        },
        uplink_bytes_per_s=configured if bandwidth_mbytes_per_s is None else bandwidth_mbytes_per_s * _MEBIBYTE,
        uplink_rtt_s=estimates.uplink_rtt_s,
    )
    return best_plan(snapshot, plan_id=1, cause="asked", detail=f"{rps:g} requests per second")


def _print_group(group: GroupPlan, currency: str) -> None:
    print(f"model {group.model}")
    buffers = [(name, text) for buffer in group.buffers for name, text in _buffer_lines(buffer)]
    lines = [
        ("edge batch cap", f"{group.edge_batch_cap} items" if group.edge_batch_cap else "no edge"),
        ("edge margin", _by_class(group.edge_margins)),
        *(buffers or [("function tier", "none")]),
        ("percentile", f"{group.percentile:.3%}"),
        ("spilled", f"{group.expected_spill_fraction:.2%}"),
        ("within SLO", _within(group)),
        ("cost", f"{group.expected_cost_per_s:.4g} {currency}/s, {group.expected_cost_per_s * 3600:.4g} {currency}/h"),
    ]
    for name, text in lines:
        print(f"  {name:<15} {text}")
    for outlook in group.outlooks:
        if not outlook.feasible:
            print(f"  not feasible    {outlook.reason}")


def _buffer_lines(buffer: BufferPlan) -> tuple[tuple[str, str], ...]:
    size = "" if buffer.up_to_bytes is None else f" up to {buffer.up_to_bytes:g} bytes"
    return (
        ("buffer", ", ".join(buffer.classes) + size),
        ("function tier", buffer.tier),
        ("function batch", f"{buffer.target_batch} items"),
        ("longest wait", ", ".join(f"{name} {seconds:.3f} s" for name, seconds in buffer.timeouts_s.items())),
        ("function margin", _by_class(buffer.margins)),
    )


def _within(group: GroupPlan) -> str:
    if len(group.outlooks) < 2:
        return f"{group.expected_within_slo:.2%}"
    return ", ".join(f"{each.name} {each.expected_within_slo:.2%}" for each in group.outlooks)


def _by_class(margins: Mapping[str, float]) -> str:
    return ", ".join(f"{name} x {margin:.3f}" for name, margin in margins.items())
