"""Lets MLPerf's LoadGen test a running daemon, in its scenarios Server and Offline, and prints LoadGen's verdict.

A daemon and an edge behind it are started as processes of their own, the daemon on one core, all else on the other.
LoadGen sends, measures and judges; its logs go to --out. The edge is a stub which takes --alpha-ms + --beta-ms x b for
a batch of b, one after the other, and answers bodies of 24 KB; --edge digits starts edgeburst-edge with the shipped
network instead, and sends pictures. With --url the daemon is one that runs already.

Server is a Poisson process: valid if --percentile of the requests are within --latency-ms for --seconds, by LoadGen's
own test. Offline gives all samples at once, as many as the edge can do in that time. LoadGen does not know errors:
with an answer other than 200 a run is not valid here, whatever LoadGen says. These are not results of MLPerf, which
has rules for models, data and who may publish.

    python -m scripts.mlperf --seconds 60
    python -m scripts.mlperf --url http://127.0.0.1:8600 --model digits --scenario Server --rps 20
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

from scheduler.domain.errors import EdgeburstError
from scheduler.program_options import positive
from scripts.daemon_bench.cases import Case, post, requests
from scripts.daemon_bench.contenders import ROOT, Service, daemon, pinned, real_edge
from scripts.support.loadgen import SCENARIOS, Asked, Verdict, library, run
from scripts.support.script import run_script

OFFLINE_SLO_S = 30.0
"""Of the daemon in the scenario Offline, which bounds no latency."""
_HEAD = "| scenario | asked | samples | samples a second | p50, ms | p99, ms | LoadGen | errors |\n" + "|---" * 8 + "|"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table; returns 0 if every run is valid and all samples were answered, 1 otherwise."""
    options = _parser().parse_args(arguments)
    library()
    service = Service(options.alpha_ms / 1e3, options.beta_ms / 1e3, options.max_batch)
    found: dict[str, Verdict] = {}
    print(_HEAD, flush=True)
    for scenario in options.scenario or SCENARIOS:
        asked = Asked(
            scenario,
            rps=options.rps if scenario == "Server" else options.offline_rps or service.max_rps,
            latency_s=options.latency_ms / 1e3 if scenario == "Server" else OFFLINE_SLO_S,
            percentile=options.percentile,
            duration_s=options.seconds,
        )
        with tempfile.TemporaryDirectory() as folder, _served(options, service, asked, Path(folder)) as (port, sent):
            found[scenario] = run(asked, port, sent, options.out, connections=options.connections)
        print(row(asked, found[scenario]), flush=True)
    for scenario, said in found.items():
        if said.reason:
            print(f"{scenario}: {said.reason}")
        for failure, count in sorted(said.failed.items(), key=lambda each: -each[1])[:5]:
            print(f"{scenario}: {count} x {failure}")
    print(f"LoadGen's logs are in {options.out}")
    if options.json is not None:
        options.json.write_text(json.dumps({name: asdict(said) for name, said in found.items()}, indent=2))
    return 0 if all(said.valid and not said.failed for said in found.values()) else 1


def row(asked: Asked, said: Verdict) -> str:
    """Returns the row of a run in the table."""
    bound = (
        f"{asked.rps:,.0f}/s, {asked.percentile:.2%} within {asked.latency_s * 1e3:g} ms"
        if asked.scenario == "Server"
        else "all at once"
    )
    verdict = "VALID" if said.valid else "INVALID"
    return (
        f"| {asked.scenario} | {bound}, {asked.duration_s:g} s | {said.samples:,} | {said.rps:,.0f} "
        f"| {said.p50_ms:.1f} | {said.p99_ms:.1f} | {verdict} | {sum(said.failed.values())} |"
    )


@contextlib.contextmanager
def _served(
    options: argparse.Namespace, service: Service, asked: Asked, folder: Path
) -> Iterator[tuple[int, Sequence[bytes]]]:
    """Gives the port of a daemon and the requests for it."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(pinned(1))
        if options.url is not None:
            yield _port_of(options.url), _pictures(options.model)
        elif options.edge == "digits":
            server = stack.enter_context(real_edge(folder, slo_s=asked.latency_s))
            yield server.port, _pictures("digits")
        else:
            ours = daemon("daemon", ROOT, folder, service=service, slo_s=asked.latency_s)
            yield stack.enter_context(ours).port, requests(Case(options.body_kb))


def _pictures(model: str) -> Sequence[bytes]:
    from scripts.bench_ray import digits

    return [post(f"/v2/models/{model}/infer", digit.body, digit.headers) for digit in digits(64)]


def _port_of(url: str) -> int:
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname not in ("127.0.0.1", "localhost") or parts.port is None:
        raise EdgeburstError(f"--url {url!r} is no daemon of this host; one is http://127.0.0.1:8600")
    try:
        socket.create_connection(("127.0.0.1", parts.port), timeout=5.0).close()
    except OSError as error:
        raise EdgeburstError(f"nothing answers at --url {url!r} ({error}); start `edgeburst serve` there") from error
    return parts.port


def whole(text: str) -> int:
    """Returns a whole number above 0, as the type of an option."""
    value = positive(text)
    if value != int(value):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number")
    return int(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    number = positive
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="one of both; both")
    parser.add_argument("--seconds", type=number, default=60.0, help="the least of each run (%(default)g)")
    parser.add_argument("--rps", type=number, default=500.0, help="Server: requests a second (%(default)g)")
    parser.add_argument("--latency-ms", type=number, default=100.0, help="Server: their bound; the SLO (%(default)g)")
    parser.add_argument("--percentile", type=number, default=0.99, help="that must be within it (%(default)g)")
    parser.add_argument("--offline-rps", type=number, help="Offline: expected; without it what the stub can do")
    parser.add_argument("--connections", type=whole, default=256, help="the most at once (%(default)d)")
    parser.add_argument("--body-kb", type=whole, default=24, help="of a request to the stub (%(default)d)")
    parser.add_argument("--alpha-ms", type=number, default=2.0, help="of the stub (%(default)g)")
    parser.add_argument("--beta-ms", type=number, default=0.25, help="of the stub (%(default)g)")
    parser.add_argument("--max-batch", type=whole, default=64, help="of the stub (%(default)d)")
    parser.add_argument("--edge", choices=("stub", "digits"), default="stub", help="behind the daemon (%(default)s)")
    parser.add_argument("--url", help="of a daemon on this host that runs already, which serves --model")
    parser.add_argument("--model", default="digits", help="of --url; it takes pictures (%(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "mlperf", help="folder of LoadGen's logs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file too")
    return parser


if __name__ == "__main__":
    sys.exit(run_script("mlperf", main, shown=False))
