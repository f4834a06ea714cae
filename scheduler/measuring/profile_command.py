"""`edgeburst profile`: measures latency by batch size of an edge server or a function, as a profile for the daemon."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.card import CardError, TensorSpec
from models.card_reader import read_card
from models.profile import AtOnceRow, ProfileRow
from scheduler.client_access import add_arguments, of_arguments, stray_character
from scheduler.fc_client import AccessKey, Account
from scheduler.measuring.at_once import check_levels, levels, measure_at_once
from scheduler.measuring.edge_call import EdgeCaller
from scheduler.measuring.errors import MeasuringError
from scheduler.measuring.function_call import BatchCaller, FunctionAddress, proxy_note
from scheduler.measuring.inputs import add_payload, chosen_payloads
from scheduler.measuring.latency import Call, PartlyMeasured, measure
from scheduler.measuring.preflight import served_model
from scheduler.measuring.profile_cost import profile_cost
from scheduler.measuring.profile_plot import plot_profile
from scheduler.measuring.profile_table import print_profile
from scheduler.measuring.profiling import (
    Provenance,
    default_batches,
    edge_provenance,
    make_profile,
    write_profile,
)
from scheduler.planner.catalogue.prices import load_sheet
from scheduler.plotting import require_plots
from scheduler.terminal import Progress, note, progress
from scheduler.wire import Tensor

_DESCRIPTION = """\
Measures the latency of batches of each size, fits the latency model that the daemon plans with, and saves both as a
profile: the value of `edge_profile` of a model, or of `profile` of a tier, in the daemon's configuration."""

_EPILOG = """\
examples:
  edgeburst profile edge --url http://192.168.1.20:8700 --model resnet50 --out orin.json --plot orin.png
  edgeburst profile edge --model mynet --payload random --out mynet.json
  edgeburst profile edge --batches 1,2,4,8 --repetitions 100 --json
  edgeburst profile edge --url http://cluster:8000 --concurrency 1..4 --out cluster.json
  edgeburst profile function --function digits --memory-mb 1024 --batches 1,2,3,4,5 --out fc-1gb.json

`profile function` says before its first invocation what all of them will cost, and asks; not with --yes, and not where
stdin is no terminal.

The power mode and clocks of a Jetson are read if the server runs on this machine. scripts/bench_edge.py makes the same
measurement and needs fewer packages."""

_FUNCTION_BATCHES = (1, 2, 3, 4, 5)


def add_parser(subparsers: Any) -> None:
    """Adds the sub-command to the command line."""
    parser = subparsers.add_parser(
        "profile",
        help="measure latency by batch size of an edge server or a function",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    places = parser.add_subparsers(dest="place", metavar="edge|function", required=True)
    edge = places.add_parser("edge", help="an edge server: round trips, as the daemon sees them")
    edge.add_argument("--url", default="http://127.0.0.1:8700", help="the edge server (default %(default)s)")
    add_arguments(edge)
    edge.add_argument(
        "--concurrency",
        type=levels,
        default=[1],
        metavar="1..K",
        help="also measure each size with up to K batches at once, or with these numbers of them: 1..4, or 1,2,8",
    )
    function = places.add_parser(
        "function", help="a function: service times on warm instances; each invocation is billed"
    )
    _add_function(function)
    for place in (edge, function):
        _add_measurement(place)


def _add_function(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--function", required=True, metavar="NAME", help="the function")
    parser.add_argument("--qualifier", default="LATEST", help="version or alias (default %(default)s)")
    parser.add_argument("--region", default="cn-hangzhou", help="region of the account (default %(default)s)")
    parser.add_argument(
        "--endpoint", default="", metavar="HOST[:PORT]", help="endpoint (default: the region's public one)"
    )
    parser.add_argument("--protocol", choices=("https", "http"), default="https", help="(default %(default)s)")
    for option, variable, what in (
        ("--access-key-id-env", "ALIBABA_CLOUD_ACCESS_KEY_ID", "access key id"),
        ("--access-key-secret-env", "ALIBABA_CLOUD_ACCESS_KEY_SECRET", "access key secret"),
        ("--security-token-env", "", "security token of a temporary key"),
    ):
        words = f"environment variable that holds the {what}" + (" (default %(default)s)" if variable else "")
        parser.add_argument(option, default=variable, metavar="VARIABLE", help=words)
    for option, words in (
        ("--memory-mb", "memory of an instance, MB; `edgeburst plan --profile` needs it"),
        ("--vcpu", "vCPUs of an instance, if not one for each GB"),
        ("--gpu-gb", "GPU memory of an instance, GB"),
    ):
        parser.add_argument(option, type=_positive, metavar="N", help=words)
    parser.add_argument(
        "--card", type=Path, metavar="FOLDER", help="the model's folder; what is sent follows the inputs of its card"
    )
    parser.add_argument(
        "--input", default="image", metavar="NAME", help="without --card: input for pictures (default %(default)s)"
    )
    parser.add_argument(
        "--prices", default="cny-gbs-2023", metavar="NAME", help="sheet or file for the expected cost (%(default)s)"
    )
    parser.add_argument(
        "--yes", action="store_true", help="do not ask before the invocations; no terminal, no question"
    )


def _add_measurement(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="digits", help="the model (default %(default)s)")
    parser.add_argument(
        "--batches", type=_sizes, metavar="N,N,...", help="batch sizes (default: 1, 2, 4, ... or 1 to 5)"
    )
    parser.add_argument(
        "--repetitions", type=int, default=30, metavar="N", help="timed calls of each size (default %(default)s)"
    )
    parser.add_argument(
        "--warm-up", type=int, default=3, metavar="N", help="calls of each size before (default %(default)s)"
    )
    add_payload(parser, parser)
    parser.add_argument("--device", default="", metavar="WORDS", help="description of the measured device")
    parser.add_argument("--name", default="", help="name of the profile (default: that of --out)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the profile to this file")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the profile to this file")
    parser.add_argument("--json", action="store_true", help="print the profile as JSON instead of a table")


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise ValueError(text)
    return value


_positive.__name__ = "number above 0"


def _sizes(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


_sizes.__name__ = "list of whole numbers"


def run(args: argparse.Namespace) -> int:
    """Measures, prints and saves a profile; returns the exit status.

    Raises:
        EdgeburstError: the measurement is not possible.
    """
    for path in (args.out, args.plot):
        _check_folder(path)
    if args.plot is not None:
        require_plots("--plot")
    measured = _edge(args) if args.place == "edge" else _function(args)
    if len(measured.rows) < 2:
        return _tell_interrupted(args, measured)
    profile = make_profile(measured.rows, measured.provenance(), measured.at_once)
    # A file would be taken for a whole measurement later.
    if args.out is not None and not measured.partial:
        write_profile(profile, args.out)
    if args.plot is not None and not measured.partial:
        plot_profile(profile, args.plot)
    if args.json:
        print(json.dumps({**({"partial": measured.partial} if measured.partial else {}), **asdict(profile)}, indent=2))
    else:
        print_profile(profile, partial=measured.partial)
    return 130 if measured.partial else 0


@dataclass(frozen=True, slots=True)
class _Measured:
    """What was measured; `partial` says what it lacks, and is empty if it is whole."""

    rows: Sequence[ProfileRow]
    provenance: Callable[[], Provenance]
    at_once: Sequence[AtOnceRow] = ()
    partial: str = ""


def _tell_interrupted(args: argparse.Namespace, measured: _Measured) -> int:
    """Prints what there is without a latency model: it takes two sizes."""
    if args.json:
        print(json.dumps({"partial": measured.partial, "rows": [asdict(row) for row in measured.rows]}, indent=2))
    for row in () if args.json else measured.rows:
        print(f"partial: a batch of {row.batch} took {row.p50_s * 1e3:.2f} ms, {measured.partial}")
    if not measured.rows and not args.json:
        print(f"partial: nothing was timed yet, {measured.partial}")
    return 130


def _check_folder(path: Path | None) -> None:
    """Checks a path before the measurement, so that a wrong name costs no time."""
    if path is not None and not path.absolute().parent.is_dir():
        raise MeasuringError(f"the folder of {path} does not exist; create it, or name another file")


def _edge(args: argparse.Namespace) -> _Measured:
    check_levels(args.concurrency)
    access = of_arguments(args, os.environ)
    served = served_model(args.url, args.model, access)
    payloads = _payloads(args, served.inputs)

    def make_call() -> Call:
        return EdgeCaller(url=args.url, model=args.model, payloads=payloads, server=served.server, access=access)

    def provenance() -> Provenance:
        return edge_provenance(args.url, args.model, name=_name(args), device=args.device, parameters=served.parameters)

    batches = args.batches or default_batches(served.parameters)
    calls, several = args.warm_up + args.repetitions, sum(number for number in args.concurrency if number > 1)
    whole: Sequence[ProfileRow] = ()
    with progress("measuring", len(batches) * calls * (1 + several), "batches") as work:
        try:
            whole = _measure(make_call(), batches, args, work)
            at_once = measure_at_once(
                make_call,
                batches,
                args.concurrency,
                repetitions=args.repetitions,
                warm_up=args.warm_up,
                on_call=work.advance,
            )
        except PartlyMeasured as part:
            return _Measured(whole or part.rows, provenance, part.at_once, _interrupted(args))
    return _Measured(whole, provenance, at_once)


def _function(args: argparse.Namespace) -> _Measured:
    key = AccessKey(
        access_key_id=_secret(args.access_key_id_env, "--access-key-id-env"),
        access_key_secret=_secret(args.access_key_secret_env, "--access-key-secret-env"),
        security_token=_secret(args.security_token_env, "--security-token-env") if args.security_token_env else "",
    )
    account = Account(region=args.region, key=key, endpoint=args.endpoint, protocol=args.protocol)
    if told := proxy_note(account.host):
        note(told)
    address = FunctionAddress(args.function, args.qualifier, account)
    inputs = _card_inputs(args.card) if args.card is not None else (TensorSpec(args.input, "BYTES", picture=True),)
    call = BatchCaller(address, model=args.model, payloads=_payloads(args, inputs))
    batches = args.batches or _FUNCTION_BATCHES
    if not _agreed(args, batches):
        raise MeasuringError("nothing was measured, because the cost was not accepted")

    def provenance() -> Provenance:
        return Provenance(
            name=_name(args) or f"function-{args.model}",
            backend="function",
            model=args.model,
            device=args.device or f"Function Compute {args.region}, function {args.function}:{args.qualifier}",
            source=f"edgeburst profile: {call.invocations} invocations through {account.host}",
            note="Service times on warm instances, as the container measured them, without transfer and start.",
            environment={
                "qualifier": args.qualifier,
                "cold_starts_left_out": str(call.cold_starts),
                **{key: f"{value:g}" for key in _GIVEN if (value := getattr(args, key)) is not None},
            },
        )

    with progress("measuring", len(batches) * (args.warm_up + args.repetitions), "batches") as work:
        try:
            return _Measured(_measure(call, batches, args, work), provenance)
        except PartlyMeasured as part:
            return _Measured(part.rows, provenance, partial=_interrupted(args))


def _interrupted(args: argparse.Namespace) -> str:
    files = [str(path) for path in (args.out, args.plot) if path is not None]
    return "interrupted before all calls were made" + (f"; {' and '.join(files)} not written" if files else "")


def _agreed(args: argparse.Namespace, batches: Sequence[int]) -> bool:
    """Says what the invocations will cost; asks in a terminal. Without one it goes on, as scripts expect."""
    expected = profile_cost(
        batches,
        calls_of_each=args.warm_up + args.repetitions,
        sheet=load_sheet(args.prices),
        memory_mb=args.memory_mb,
        vcpu=args.vcpu,
        gpu_gb=args.gpu_gb,
    )
    print(f"edgeburst: {expected.sentence()}", file=sys.stderr)
    if args.yes or not sys.stdin.isatty():
        return True
    print("Measure? [y/N] ", end="", file=sys.stderr, flush=True)
    return input().strip().lower() in ("y", "yes")


_GIVEN = ("memory_mb", "vcpu", "gpu_gb")
"""The options that describe an instance, kept in the profile's `environment`."""


def _secret(variable: str, option: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        raise MeasuringError(f"environment variable {variable} is not set; set it, or name another with {option}")
    if stray := stray_character(value):
        raise MeasuringError(f"environment variable {variable} holds {stray}, which no key has; set it without that")
    return value


def _card_inputs(folder: Path) -> tuple[TensorSpec, ...]:
    try:
        return read_card(folder).inputs
    except CardError as error:
        raise MeasuringError(str(error)) from None


def _payloads(args: argparse.Namespace, inputs: Sequence[TensorSpec]) -> list[tuple[Tensor, ...]]:
    chosen = chosen_payloads(args.payload, inputs, model=args.model, seed=0, length=args.axis_length)
    return [payload.inputs(inputs[0].name) for payload in chosen]


def _name(args: argparse.Namespace) -> str:
    return str(args.name or (args.out.stem if args.out else ""))


def _measure(call: Call, batches: Sequence[int], args: argparse.Namespace, work: Progress) -> Sequence[ProfileRow]:
    return measure(call, batches, repetitions=args.repetitions, warm_up=args.warm_up, on_call=work.advance)
