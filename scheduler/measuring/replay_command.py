"""`edgeburst replay`: arrivals sent to a daemon as they come, and what becomes of each."""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from scheduler.measuring.batch_log import BatchLog, Row
from scheduler.measuring.exchange import Target
from scheduler.measuring.payloads import Payload, read_files, read_pictures, synthetic_pictures
from scheduler.measuring.preflight import served_model
from scheduler.measuring.replay import MAX_OUTSTANDING, ReplayOptions, ReplayResult, replay
from scheduler.measuring.replay_report import make_folder, request_row, summarise, write_files
from scheduler.measuring.replay_table import print_summary
from scheduler.measuring.schedule import Schedule, make_workload
from scheduler.measuring.tally import Tally, tally_progress
from scheduler.workloads import PATTERNS, Workload

_DESCRIPTION = """\
Sends requests to a daemon (or any other Open Inference Protocol v2 server) at the times of a trace or a pattern, and
measures what becomes of them. Open-loop: it never waits for an answer before it sends the next request, and latency
counts from the intended send time, so that a slow server cannot hide by slowing the client down. If the client itself
falls behind, it says so."""

_EPILOG = """\
examples:
  edgeburst replay --model digits --pattern bursty --rps 30 --duration-s 60
  edgeburst replay --model digits --arrivals twitter.gaps --rate-multiple 2 --duration-s 120 --out out/twitter
  edgeburst replay --model digits --rates app1.csv --unit-s 1 --laps 2 --gap-s 30 --images pictures/ --json

--out writes summary.json, requests.csv and, from the daemon's own account, batches.csv and invocations.csv. Times in
them are seconds from the start; arrival_s is the intended send time. The account holds every client's batches.

Exit status: 0 the replay ran to its end, 1 not one request was answered, 2 it could not start."""

_RESERVED_FILES = 100


def add_parser(subparsers: Any) -> None:
    """Adds the sub-command to the command line."""
    parser = subparsers.add_parser(
        "replay",
        help="send a trace or a pattern of requests to a daemon and measure the answers",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--url", default="http://127.0.0.1:8600", help="the server (default %(default)s)")
    parser.add_argument("--model", default="digits", help="which of its models (default %(default)s)")
    parser.add_argument("--slo-s", type=_positive, default=1.0, metavar="S", help="judge by it (default %(default)s)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the results there")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    _add_arrivals(parser)
    _add_payloads(parser)


def _add_arrivals(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("when requests go out")
    source = group.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--arrivals", type=Path, metavar="FILE.gaps", help="gaps between requests in seconds, one a line"
    )
    source.add_argument("--rates", type=Path, metavar="FILE", help="requests per time unit (.csv, .txt); 0 is silence")
    source.add_argument("--pattern", choices=tuple(PATTERNS), help="drawn at random, from --seed")
    group.add_argument("--unit-s", type=_positive, default=1.0, metavar="S", help="of --rates (default %(default)s)")
    group.add_argument("--rps", type=_positive, metavar="R", help="mean rate of --pattern, requests a second")
    group.add_argument("--rate-multiple", type=_positive, default=1.0, metavar="K", help="so many times the rate")
    group.add_argument(
        "--duration-s", "--length", type=_positive, metavar="S", help="length of a lap (default: the whole trace)"
    )
    group.add_argument("--laps", type=int, default=1, metavar="N", help="go through it so often (default %(default)s)")
    group.add_argument("--gap-s", type=float, default=0.0, metavar="S", help="silence between laps (default 0)")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of what is random (default %(default)s)")


def _add_payloads(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what they carry (default: pictures drawn from --seed, some 17 KB each)")
    source = group.add_mutually_exclusive_group()
    source.add_argument("--images", type=Path, metavar="DIR", help="a folder's pictures, in turn")
    source.add_argument("--payload", type=Path, nargs="+", metavar="FILE", help="these encoded pictures, in turn")


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be above 0")
    return value


_positive.__name__ = "number"


def run(args: argparse.Namespace) -> int:
    """Replays and reports; returns the exit status.

    Raises:
        EdgeburstError: the replay cannot start.
    """
    schedule = _schedule(args)
    workload, payloads = make_workload(schedule), _payloads(args)
    target = Target(args.url, args.model, served_model(args.url, args.model).input_name)
    if args.out is not None:
        make_folder(args.out)
    result, batches, missed = asyncio.run(_replay(args, workload, payloads, target))
    summary = {
        "url": args.url,
        "model": args.model,
        "arrivals": schedule.name,
        "seed": args.seed,
        **summarise(result, batches),
        "warnings": _warnings(result, batches, missed),
    }
    if args.out is not None:
        rows = (request_row(request, payloads[request.payload].name) for request in result.requests)
        write_files(args.out, summary, requests=rows, batches=batches)
    if args.json:
        print(json.dumps(summary))
    else:
        print_summary(summary)
    return 0 if summary["answered"] else 1


def _schedule(args: argparse.Namespace) -> Schedule:
    return Schedule(
        arrivals=args.arrivals,
        rates=args.rates,
        unit_s=args.unit_s,
        pattern=args.pattern,
        rate_rps=args.rps,
        rate_multiple=args.rate_multiple,
        duration_s=args.duration_s,
        laps=args.laps,
        gap_s=args.gap_s,
        seed=args.seed,
    )


def _payloads(args: argparse.Namespace) -> tuple[Payload, ...]:
    if args.images is not None:
        return read_pictures(args.images)
    if args.payload is not None:
        return read_files(args.payload)
    return synthetic_pictures(args.seed)


async def _replay(
    args: argparse.Namespace, workload: Workload, payloads: tuple[Payload, ...], target: Target
) -> tuple[ReplayResult, list[Row] | None, int]:
    """Replays, following the daemon's account meanwhile; returns it too, and how many of its pages were missed."""
    tally = Tally()
    options = ReplayOptions(slo_s=args.slo_s, max_outstanding=_connections())
    async with aiohttp.ClientSession() as session:
        log = BatchLog(session, args.url)
        kept = await log.open()
        follower = asyncio.create_task(log.follow(), name="batch-log") if kept else None
        try:
            with tally_progress(tally, len(workload.times_s), shown=not args.json):
                result = await replay(
                    workload.times_s,
                    payloads,
                    target,
                    options=options,
                    on_sent=tally.on_sent,
                    on_answer=tally.on_answer,
                )
        finally:
            if follower is not None:
                follower.cancel()
                with suppress(asyncio.CancelledError):
                    await follower
        if not kept:
            return result, None, 0
        await log.poll()
        return result, log.rows(started_at_s=result.started_at_s), log.missed


def _connections() -> int:
    """As many requests can be unanswered as this process may have sockets; the limit is raised as far as allowed."""
    soft, hard = (_unlimited(limit) for limit in resource.getrlimit(resource.RLIMIT_NOFILE))
    files = min(MAX_OUTSTANDING + _RESERVED_FILES, hard)
    if files > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return max(1, files - _RESERVED_FILES)


def _unlimited(limit: int) -> int:
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def _warnings(result: ReplayResult, batches: list[Row] | None, missed: int) -> list[str]:
    found = [result.lag_warning]
    if batches is None:
        found.append("the server keeps no account of batches, so there are none in the results")
    if missed:
        found.append(f"the daemon did not tell of its batches {missed} times, so some may be missing")
    return [warning for warning in found if warning]
