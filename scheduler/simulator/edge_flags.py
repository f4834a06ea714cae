"""The flags of `simulate` that describe edge servers."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.simulator.faults import Fault, parse_fault
from scheduler.simulator.scenario import EDGE_FAULTS, ORIN_LATENCY, EdgeServer, ScenarioError, latency_model

_MAX_EDGE_BATCH = 1024
_MAX_PARALLEL = 64
"""As the daemon allows."""
_MAX_DAEMONS = 64
"""As many as may borrow from one lender."""
AHEAD = {"0": 0, "1": 1, "auto": None}
"""Values of `--edge-ahead`."""


@dataclass(frozen=True, slots=True)
class EdgeLaw:
    """Value of `--edge`: seconds a batch, seconds an item; the name of the server is empty where there is one only."""

    alpha_s: float
    beta_s: float
    name: str = ""


def add_edge_flags(group: "argparse._ArgumentGroup") -> None:
    """Adds the flags."""
    group.add_argument(
        "--edge",
        type=edge_law,
        action="append",
        metavar="[NAME:]ALPHA,BETA",
        help="seconds a batch, seconds an item; once for each edge server, with names if there are several",
    )
    group.add_argument(
        "--edge-parallel",
        type=int,
        default=1,
        metavar="K",
        help="batches that each edge server serves at once (default: %(default)s)",
    )
    group.add_argument(
        "--edge-parallel-learned", action="store_true", help="the engine is not told how many: it has to learn it"
    )
    group.add_argument("--edge-noise", type=float, default=0.0, metavar="SIGMA", help="sigma of edge service times")
    group.add_argument(
        "--edge-decode-s",
        type=float,
        default=0.0,
        metavar="S",
        help="decoding of a batch on the edge, while the device serves others (default: %(default)s)",
    )
    group.add_argument(
        "--edge-lan-s", type=float, default=0.0, metavar="S", help="way of a batch to the edge (default: %(default)s)"
    )
    group.add_argument(
        "--edge-ahead",
        choices=AHEAD,
        default="auto",
        help="batches sent before the one on the edge is back; auto: as it pays (default: %(default)s)",
    )
    group.add_argument("--edge-silent", action="store_true", help="edge servers report nothing of what a batch took")
    group.add_argument(
        "--daemons",
        type=daemons,
        default=(1.0,),
        metavar="N|P,P,...",
        help="daemons that share the edge servers, with equal parts of the requests or these; only edgeburst",
    )
    group.add_argument(
        "--edge-fault", action="append", default=[], metavar="[NAME:]FAULT", help="slow: or down:, of all or of one"
    )


def edge_law(text: str) -> EdgeLaw:
    """Reads `ALPHA,BETA` or `NAME:ALPHA,BETA`; ArgumentTypeError if it is neither.

    >>> edge_law("orin:0.04,0.008")
    EdgeLaw(alpha_s=0.04, beta_s=0.008, name='orin')
    """
    name, _, numbers = text.rpartition(":")
    try:
        alpha_s, beta_s = (float(word) for word in numbers.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"write ALPHA,BETA or NAME:ALPHA,BETA, in seconds, not {text!r}") from None
    return EdgeLaw(alpha_s, beta_s, name)


def daemons(text: str) -> tuple[float, ...]:
    """Reads `N`, or `P,P,...`, as the daemons' parts of the requests; ArgumentTypeError if it is neither.

    >>> daemons("2"), daemons("3,1")
    ((1.0, 1.0), (3.0, 1.0))
    """
    try:
        parts = tuple(float(word) for word in text.split(",")) if "," in text else (1.0,) * int(text)
    except ValueError:
        parts = ()
    if not (1 <= len(parts) <= _MAX_DAEMONS and all(math.isfinite(part) and part > 0 for part in parts)):
        raise argparse.ArgumentTypeError(
            f"write a number from 1 to {_MAX_DAEMONS}, or as many parts above 0 with commas between, not {text!r}"
        )
    return parts


@dataclass(frozen=True, slots=True)
class DescribedEdges:
    """What the flags say.

    Attributes:
        laws: one for each edge server.
        servers: the edge servers by name; empty for one without a name.
        faults: of all that have none of their own.
        max_items: the largest batch; only the deadline limits an edge batch.
    """

    laws: tuple[EdgeLaw, ...]
    servers: tuple[EdgeServer, ...]
    faults: tuple[Fault, ...]
    max_items: int


def described_edges(args: argparse.Namespace) -> DescribedEdges:
    """Returns what the flags say.

    Raises:
        ScenarioError: a value is out of range, or names are missing or used twice.
    """
    laws = tuple(args.edge or (EdgeLaw(ORIN_LATENCY.alpha_s, ORIN_LATENCY.beta_s),))
    _check(args, laws)
    names = [law.name for law in laws]
    if len(laws) > 1 and ("" in names or len(set(names)) < len(names)):
        raise ScenarioError("several --edge need a name each: --edge NAME:ALPHA,BETA")
    if reserved := sorted(set(names) & set(EDGE_FAULTS)):
        raise ScenarioError(f"--edge: {reserved[0]!r} cannot be a name, because it begins a fault; choose another one")
    max_items = max(_most_items(law, args.slo_s - args.edge_lan_s - args.edge_decode_s) for law in laws)
    faults, own = _faults(args.edge_fault, names)
    servers = tuple(
        EdgeServer(
            name=law.name,
            latency=latency_model(law.alpha_s, law.beta_s, max_batch=max_items),
            parallel=args.edge_parallel,
            noise=args.edge_noise,
            faults=(*faults, *own[law.name]),
            decode_s=args.edge_decode_s,
            lan_s=args.edge_lan_s,
            ahead=AHEAD[args.edge_ahead],
            told=not args.edge_parallel_learned,
            silent=args.edge_silent,
        )
        for law in laws
        if law.name
    )
    return DescribedEdges(laws, servers, faults, max_items)


def _check(args: argparse.Namespace, laws: Sequence[EdgeLaw]) -> None:
    for value in (value for law in laws for value in (law.alpha_s, law.beta_s)):
        if not (math.isfinite(value) and value >= 0):
            raise ScenarioError(f"--edge must be a finite number of at least 0, not {value:g}")
    for flag, value in (("--edge-decode-s", args.edge_decode_s), ("--edge-lan-s", args.edge_lan_s)):
        if not (math.isfinite(value) and value >= 0):
            raise ScenarioError(f"{flag} must be a finite number of at least 0, not {value:g}")
    if not 1 <= args.edge_parallel <= _MAX_PARALLEL:
        raise ScenarioError(f"--edge-parallel must be from 1 to {_MAX_PARALLEL}, not {args.edge_parallel}")


def _most_items(law: EdgeLaw, slo_s: float) -> int:
    """Returns the most items that the SLO allows, (slo - alpha) / beta and one more, from 64 to 1024."""
    fitting = (slo_s - law.alpha_s) / law.beta_s + 1 if law.beta_s > 0 else _MAX_EDGE_BATCH
    return int(min(_MAX_EDGE_BATCH, max(64, fitting)))


def _faults(texts: Sequence[str], names: Sequence[str]) -> tuple[tuple[Fault, ...], dict[str, list[Fault]]]:
    """Returns the faults of all servers, and those of single ones by name."""
    of_all, own = [], {name: list[Fault]() for name in names}
    for text in texts:
        name, _, fault = text.partition(":")
        if name and name in own:
            own[name].append(parse_fault(fault, EDGE_FAULTS))
        else:
            of_all.append(parse_fault(text, EDGE_FAULTS))
    return tuple(of_all), own
