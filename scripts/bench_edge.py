"""Measures latency by batch size of an edge server, with few packages: requests, numpy and orjson.

It is the same measurement as `edgeburst profile edge`, but runs on the board itself, where clocks and power mode can be
read. It needs no installation; from the root of the repository:

    python3 -m scripts.bench_edge --url http://127.0.0.1:8700 --model resnet50 --out orin.json

Two further measurements start the edge servers themselves, and so need what an edge server needs:

    python3 -m scripts.bench_edge --against-loop            # throughput against a bare loop without a server
    python3 -m scripts.bench_edge --isolation --mps 30,70   # latency beside a loaded server, without and with MPS
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from models.errors import ModelError
from models.profile import Profile
from scheduler.client_access import add_arguments, of_arguments
from scheduler.measuring.edge_call import EdgeCaller
from scheduler.measuring.errors import MeasuringError
from scheduler.measuring.latency import measure
from scheduler.measuring.payloads import read_files, synthetic_pictures
from scheduler.measuring.preflight import served_model
from scheduler.measuring.profiling import (
    COLUMNS,
    default_batches,
    edge_provenance,
    make_profile,
    model_sentence,
    table_rows,
    write_profile,
)

_LOOP_ITEMS = 16


def main() -> int:
    """Measures, prints and saves; returns the exit status."""
    arguments = _arguments()
    try:
        if arguments.against_loop:
            return _against_loop(arguments)
        if arguments.isolation:
            return _isolation(arguments)
        profile = _profile(arguments)
        if arguments.out is not None:
            write_profile(profile, arguments.out)
    except (MeasuringError, ModelError) as error:
        print(f"bench_edge: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(json.dumps(asdict(profile), indent=2) if arguments.json else "\n".join(_lines(profile)))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8700", help="the edge server (default %(default)s)")
    add_arguments(parser)
    parser.add_argument("--model", default="digits", help="name of the model (default %(default)s)")
    parser.add_argument("--batches", default="", metavar="N,N,...", help="batch sizes (default: 1, 2, 4, ...)")
    parser.add_argument(
        "--repetitions", type=int, default=30, metavar="N", help="measured calls of each size (default %(default)s)"
    )
    parser.add_argument(
        "--warm-up", type=int, default=3, metavar="N", help="unmeasured calls of each size before (default 3)"
    )
    parser.add_argument("--payload", type=Path, nargs="+", metavar="FILE", help="encoded pictures (default: drawn)")
    parser.add_argument("--device", default="", metavar="WORDS", help="name of the device (default: the board's name)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="save the profile there")
    parser.add_argument("--json", action="store_true", help="print the profile as JSON instead of a table")
    own = parser.add_argument_group("with servers of its own")
    own.add_argument(
        "--against-loop", action="store_true", help="throughput against a bare loop; 1 if below what is asked"
    )
    own.add_argument("--isolation", action="store_true", help="latency of a server beside a loaded one")
    own.add_argument(
        "--models",
        default="digits,mobilenet_v3_small,resnet50",
        metavar="NAME,...",
        help="models for --against-loop: shipped ones, with random weights where they have none, or folders",
    )
    own.add_argument("--neighbour", metavar="NAME", help="model of the loaded server (default: that of --model)")
    own.add_argument("--items", type=int, default=0, metavar="N", help="items in a batch (default 16; --isolation: 1)")
    own.add_argument("--seconds", type=float, default=3.0, metavar="S", help="of each measurement (default 3)")
    own.add_argument("--alternations", type=int, default=5, metavar="N", help="loop and server in turn (default 5)")
    own.add_argument("--mps", default="off", metavar="P,Q", help="shares of both by MPS, or off (default)")
    own.add_argument("options", nargs="*", metavar="-- OPTION", help="further options of the edge servers")
    return parser.parse_args()


def _against_loop(arguments: argparse.Namespace) -> int:
    from scripts.edge_bench import against_loop
    from scripts.edge_bench.servers import table

    rows = [
        against_loop.measured(
            model,
            arguments.options,
            items=arguments.items or _LOOP_ITEMS,
            seconds=arguments.seconds,
            alternations=arguments.alternations,
        )
        for model in arguments.models.split(",")
    ]
    print("\n".join(table(against_loop.COLUMNS, [row.cells() for row in rows])))
    return 0 if all(row.share >= row.asked for row in rows) else 1


def _isolation(arguments: argparse.Namespace) -> int:
    from models.catalogue import card_of
    from scripts.edge_bench import isolation
    from scripts.edge_bench.servers import table

    neighbour = arguments.neighbour or arguments.model
    items = arguments.items or 1
    cases = isolation.cases(
        arguments.model,
        neighbour,
        arguments.options,
        items=items,
        neighbour_items=_LOOP_ITEMS,
        seconds=arguments.seconds,
        shares=isolation.shares_of(arguments.mps),
    )
    rows = [case.cells() for case in cases]
    print(isolation.describe(card_of(arguments.model), card_of(neighbour), items, _LOOP_ITEMS))
    print("\n".join(table(isolation.COLUMNS, rows)))
    return 0


def _profile(arguments: argparse.Namespace) -> Profile:
    access = of_arguments(arguments, os.environ)
    served = served_model(arguments.url, arguments.model, access)
    payloads = read_files(arguments.payload) if arguments.payload is not None else synthetic_pictures(0)
    call = EdgeCaller(
        url=arguments.url,
        model=arguments.model,
        payloads=[payload.inputs(served.input_name) for payload in payloads],
        server=served.server,
        access=access,
    )
    sizes = _sizes(arguments.batches) or default_batches(served.parameters)
    rows = measure(call, sizes, repetitions=arguments.repetitions, warm_up=arguments.warm_up)
    name = arguments.out.stem if arguments.out else ""
    provenance = edge_provenance(
        arguments.url, arguments.model, name=name, device=arguments.device, parameters=served.parameters
    )
    return make_profile(rows, provenance)


def _sizes(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",") if word]
    except ValueError as error:
        raise MeasuringError(f"--batches must be whole numbers with commas between, not {text!r}") from error


def _lines(profile: Profile) -> Iterator[str]:
    yield f"{profile.model} on {profile.device}"
    for cells in (COLUMNS, *table_rows(profile)):
        yield "".join(f"{cell:>12}" for cell in cells)
    yield model_sentence(profile)
    yield profile.note
    yield from (f"{name}: {value}" for name, value in profile.environment.items())


if __name__ == "__main__":
    sys.exit(main())
