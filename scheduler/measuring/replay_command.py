"""`edgeburst replay`: sends the requests of a trace or a pattern to a daemon, and measures the answers."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from scheduler.client_access import ClientAccess, add_arguments, of_arguments
from scheduler.measuring.batch_log import BatchLog, Row
from scheduler.measuring.exchange import Target, open_session
from scheduler.measuring.inputs import add_payload, chosen_payloads
from scheduler.measuring.payloads import Payload, read_pictures
from scheduler.measuring.preflight import ServedModel, served_model
from scheduler.measuring.replay import MAX_OUTSTANDING, ReplayOptions, ReplayResult, replay
from scheduler.measuring.replay_report import make_folder, request_row, summarise, write_files
from scheduler.measuring.replay_table import print_summary
from scheduler.measuring.schedule import Schedule, draw_tenants, make_workload
from scheduler.measuring.tally import Tally, tally_progress
from scheduler.program_options import positive
from scheduler.workloads import PATTERNS, Workload

_DESCRIPTION = """\
Sends requests to a daemon (or another Open Inference Protocol v2 server) at the times of a trace or a pattern, and
measures the answers. The replay is open-loop: it never waits for an answer before it sends the next request, and
latency counts from the intended send time, so that a slow server does not reduce the load. If the client itself falls
behind, the result says so. What is sent follows the model's description at the server."""

_EPILOG = """\
examples:
  edgeburst replay --model digits --pattern bursty --rps 30 --duration-s 60
  edgeburst replay --model digits --arrivals twitter.gaps --rate-multiple 2 --duration-s 120 --out out/twitter
  edgeburst replay --model mynet --payload inputs.npz --pattern poisson --rps 30 --duration-s 60
  edgeburst replay --model digits --rates app1.csv --unit-s 1 --laps 2 --gap-s 30 --images pictures/ --json

--out writes summary.json, requests.csv and, from the daemon's records, batches.csv and invocations.csv. Times in them
are seconds from the start; arrival_s is the intended send time. The records include the batches of other clients.

Exit status: 0 the replay ran to its end, 1 no request was answered, 2 it could not start."""

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
    parser.add_argument("--model", default="digits", help="the model (default %(default)s)")
    parser.add_argument(
        "--slo-s", type=positive, default=1.0, metavar="S", help="latency objective (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the results to this folder")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    parser.add_argument(
        "--log-tail", action="store_true", help="record the last 2 KB of each container's log in invocations.csv"
    )
    parser.add_argument(
        "--tenant",
        type=_weight,
        nargs="+",
        default=[],
        metavar="NAME[=WEIGHT]",
        help="tenants for which requests are sent, drawn by weight from --seed (default: requests name none)",
    )
    _add_arrivals(parser)
    _add_payloads(parser)
    add_arguments(parser)


def _add_arrivals(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("send times")
    source = group.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--arrivals", type=Path, metavar="FILE.gaps", help="gaps between requests in seconds, one per line"
    )
    source.add_argument("--rates", type=Path, metavar="FILE", help="requests per time unit (.csv, .txt)")
    source.add_argument("--pattern", choices=tuple(PATTERNS), help="random arrivals, drawn from --seed")
    group.add_argument(
        "--unit-s", type=positive, default=1.0, metavar="S", help="time unit of --rates (default %(default)s)"
    )
    group.add_argument("--rps", type=positive, metavar="R", help="mean rate of --pattern, requests per second")
    group.add_argument(
        "--rate-multiple", type=positive, default=1.0, metavar="K", help="factor on the rate (default %(default)s)"
    )
    group.add_argument(
        "--duration-s", "--length", type=positive, metavar="S", help="length of a lap (default: the whole trace)"
    )
    group.add_argument("--laps", type=int, default=1, metavar="N", help="number of laps (default %(default)s)")
    group.add_argument("--gap-s", type=float, default=0.0, metavar="S", help="pause between laps (default %(default)s)")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="random seed (default %(default)s)")


def _add_payloads(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("payloads (default: pictures of about 17 KB or random arrays, from --seed)")
    source = group.add_mutually_exclusive_group()
    source.add_argument("--images", type=Path, metavar="DIR", help="the pictures in a folder, in turn")
    add_payload(source, group)


def _weight(text: str) -> tuple[str, float]:
    """Returns a tenant's name and weight."""
    name, equals, weight = text.rpartition("=")
    try:
        return (name, positive(weight)) if equals else (text, 1.0)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text} must be NAME or NAME=WEIGHT, as lab=3") from None


def run(args: argparse.Namespace) -> int:
    """Runs a replay and prints its results; returns the exit status.

    Raises:
        EdgeburstError: the replay cannot start.
    """
    schedule, access = _schedule(args), of_arguments(args, os.environ)
    workload, served = make_workload(schedule), served_model(args.url, args.model, access)
    payloads = _payloads(args, served)
    # Only a picture needs the name; arrays have the names of their inputs.
    target = Target(args.url, args.model, served.inputs[0].name, log_tail=args.log_tail)
    if args.out is not None:
        make_folder(args.out)
    result, batches, missed = asyncio.run(_replay(args, workload, payloads, target, access))
    if not result.requests:
        raise KeyboardInterrupt
    asked = len(workload.times_s)
    interrupted = len(result.requests) < asked
    ended = f"it was interrupted: {len(result.requests)} of {asked} requests had ended"
    summary = {
        **({"partial": ended} if interrupted else {}),
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
    return 130 if interrupted else 0 if summary["answered"] else 1


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


def _payloads(args: argparse.Namespace, served: ServedModel) -> tuple[Payload, ...]:
    if args.images is not None:
        assert served.input_name, "which is refused where there is none"
        return read_pictures(args.images)
    return chosen_payloads(args.payload, served.inputs, model=served.name, seed=args.seed, length=args.axis_length)


async def _replay(
    args: argparse.Namespace,
    workload: Workload,
    payloads: tuple[Payload, ...],
    target: Target,
    access: ClientAccess,
) -> tuple[ReplayResult, list[Row] | None, int]:
    """Replays and polls the daemon's records meanwhile.

    Returns:
        The result; the daemon's rows, None if the server keeps none; the number of failed polls.
    """
    tally = Tally()
    options = ReplayOptions(slo_s=args.slo_s, max_outstanding=_connections(), access=access)
    async with open_session(access=access) as session:
        log = BatchLog(session, args.url)
        kept = await log.open()
        follower = asyncio.create_task(log.follow(), name="batch-log") if kept else None
        try:
            with tally_progress(tally, len(workload.times_s)):
                result = await replay(
                    workload.times_s,
                    payloads,
                    target,
                    options=options,
                    tenants=draw_tenants(dict(args.tenant), len(workload.times_s), seed=args.seed),
                    on_sent=tally.on_sent,
                    on_answer=tally.on_answer,
                    stop=_stop_by_interrupt(),
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


def _stop_by_interrupt() -> asyncio.Event:
    """Returns what Ctrl-C sets, so that what there is can be shown; a second Ctrl-C ends the program at once."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def interrupted() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        stop.set()

    # Not on a thread other than the main one, nor on Windows.
    with suppress(NotImplementedError, RuntimeError, ValueError):
        loop.add_signal_handler(signal.SIGINT, interrupted)
    return stop


def _connections() -> int:
    """Returns the maximum of unanswered requests: this process's limit of sockets, raised as far as allowed."""
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
        found.append("the server keeps no records of batches, so the results have none")
    if missed:
        found.append(f"the daemon did not answer {missed} polls for its batches, so some may be missing")
    return [warning for warning in found if warning]
