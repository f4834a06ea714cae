"""The flags of `edgeburst simulate` for traffic that really came, and which flags a person gave."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from scheduler.recordings.moments import UNITS_S
from scheduler.recordings.traces import FORMATS

_EPILOG = """
recorded traffic:
  edgeburst simulate --recorded arrivals/ --config edgeburst.toml --from 2026-11-29 --to 2026-11-30
  edgeburst simulate --recorded arrivals/ --config edgeburst.toml --slo-s 0.6 --compare --plot compared.png
  edgeburst simulate --recorded arrivals/ --config edgeburst.toml --changed cheaper.toml --compare
  edgeburst simulate --trace trace.csv --time-column TIMESTAMP --config edgeburst.toml

With --config everything is as the daemon's configuration says: models, classes, tiers, prices, caps, tenants. Services,
their scatter and the uplink are what the daemon has learned, where it has a state folder, and what the profiles say
otherwise. Flags beside it change that: --slo-s, --budget, --function-price, --function-law, --bandwidth-..., --rtt-s,
--edge, --edge-parallel, --tiers, --per-hour-cny, --per-day-cny, noise, faults, cold starts and --rate-scale; or
--changed names another configuration. --compare runs both, as configured and changed. Without --config the flags
describe the site.
"""

_FLAGS = (
    *("slo_s", "budget", "policy", "request_bytes", "function_law", "function_max_batch", "function_price"),
    *("function_noise", "function_noise_law", "rtt_s", "edge_parallel", "edge_noise", "edge_decode_s"),
    *("edge_lan_s", "edge_ahead", "rate_scale", "unit_s", "think_s", "daemons"),
)
"""Flags with a default that is not none."""


class _UnsetFloat(float):
    """Default of a flag that was not given."""


class _UnsetInt(int):
    """Default of a flag that was not given."""


class _UnsetText(str):
    """Default of a flag that was not given."""

    __slots__ = ()


class _UnsetNumbers(tuple[float, ...]):
    """Default of a flag that was not given."""

    __slots__ = ()


_UNSET: dict[type, type] = {float: _UnsetFloat, int: _UnsetInt, str: _UnsetText, tuple: _UnsetNumbers}


def mark_defaults(parser: argparse.ArgumentParser) -> None:
    """Makes defaults known as such, whatever a person gives."""
    for name in _FLAGS:
        default = parser.get_default(name)
        parser.set_defaults(**{name: _UNSET[type(default)](default)})


def given(args: argparse.Namespace, name: str) -> Any:
    """Returns the value of a flag that was given; None for one that was not."""
    value = getattr(args, name)
    unset = value is None or value is False or value == [] or isinstance(value, tuple(_UNSET.values()))
    return None if unset else value


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.epilog = (parser.epilog or "") + _EPILOG
    group = parser.add_argument_group("traffic that really came")
    group.add_argument(
        "--recorded", type=Path, metavar="FILE|DIR", help="what the daemon recorded: the folder of [record], or a file"
    )
    group.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="requests.csv of `edgeburst replay`, the file of [explain], a table with a column of times or with counts"
        " by minute",
    )
    group.add_argument("--trace-format", choices=FORMATS, help="of that file (default: found out)")
    group.add_argument("--time-column", metavar="NAME", help="column of times, by its name or its number from 1")
    group.add_argument("--time-unit", choices=tuple(UNITS_S), help="of numbers in it (default: found out)")
    group.add_argument("--trace-row", metavar="TEXT", help="of counts by minute, only rows with a cell that reads so")
    when = "a date (2026-11-29T08:00, this host's zone unless it names one) or seconds since 1970"
    group.add_argument("--from", dest="begin", metavar="TIME", help=f"first arrival: {when}")
    group.add_argument("--to", dest="end", metavar="TIME", help="end of the arrivals, likewise")
    group.add_argument("--config", type=Path, metavar="FILE", help="the daemon's configuration that they came under")
    group.add_argument("--changed", type=Path, metavar="FILE", help="another configuration, to simulate them under")
    group.add_argument("--per-hour-cny", type=float, metavar="X", help="another cap an hour, in the sheet's currency")
    group.add_argument("--per-day-cny", type=float, metavar="X", help="another cap a day")
    group.add_argument("--tiers", nargs="+", metavar="NAME", help="only these function tiers")
    group.add_argument(
        "--compare", action="store_true", help="run them as configured and as changed, and show what differs"
    )
    group.add_argument("--plot", type=Path, metavar="FILE", help="with --compare: draw it (PNG, SVG or PDF)")
