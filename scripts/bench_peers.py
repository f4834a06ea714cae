"""Measures the daemon beside LitServe, BentoML, Ray Serve, mosec and MLServer doing the same job.

Each has one front, batches dynamically (up to 64, for a millisecond at most) and has a model behind that takes 1 ms
and 10 us an item, without a processor. Requests of 24 KB over 64 connections, each with one under way. All processes
of a server have one core; the client, and the stub edge behind the daemon, have the other. Each server of others is
installed into an environment of its own in the user's cache, from pinned releases, and takes turns with the daemon
in one run: the ratio is that of the medians of their turns, in brackets the least and the largest of one turn. The last
column has the processor time of an answer, of all their processes and of the daemon. Other load on the core changes
that less: beside it a server gets more requests done by having more processes.

    python -m scripts.bench_peers --peer LitServe --peer mosec --json FILE --plot FILE
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from scheduler.plotting import new_figure
from scheduler.program_options import positive
from scripts.daemon_bench.cases import Case, pictures, post, requests
from scripts.daemon_bench.client import Seen, closed_loop
from scripts.daemon_bench.contenders import ROOT, Service, daemon, pinned
from scripts.peer_bench.peers import PEERS, Peer, started_peer
from scripts.support.script import run_script

SERVICE = Service(alpha_s=0.001, beta_s=0.00001, max_batch=64)
WARM_UP_S = 0.7
BODY_KB = 24
ASKED = {"LitServe": 9.0, "mosec": 0.5}
"""Requests a second of the daemon, in parts of theirs, that were asked for."""


@dataclass(frozen=True, slots=True)
class Turns:
    """What a server did in its turns.

    Attributes:
        rps: answers a second in each turn.
        p50_ms, p99_ms: latencies over all turns.
        refused: answers with another status than 200.
        cpu_us: processor time of all processes of the server for an answer, over all turns.
    """

    rps: tuple[float, ...]
    p50_ms: float
    p99_ms: float
    refused: int
    cpu_us: float

    @property
    def median_rps(self) -> float:
        """Answers a second in the median turn."""
        return statistics.median(self.rps)


@dataclass(frozen=True, slots=True)
class Duel:
    """The daemon and a server of others, in turns."""

    release: str
    form: str
    ours: Turns
    theirs: Turns

    @property
    def ratio(self) -> float:
        """Answers a second of the daemon in parts of theirs."""
        return self.ours.median_rps / self.theirs.median_rps if self.theirs.median_rps else math.inf

    @property
    def cpu_ratio(self) -> float:
        """Processor time of an answer of theirs in parts of the daemon's: what does not depend on other load."""
        return self.theirs.cpu_us / self.ours.cpu_us

    def spread(self) -> tuple[float, float]:
        """Returns the least and the largest ratio of one turn."""
        ratios = [
            ours / theirs if theirs else math.inf for ours, theirs in zip(self.ours.rps, self.theirs.rps, strict=True)
        ]
        return min(ratios), max(ratios)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table; returns 0 whatever the figures are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [peer.name for peer in PEERS]
    parser.add_argument("--peer", action="append", choices=names, metavar="NAME", help=f"one of {', '.join(names)}")
    parser.add_argument("--turns", type=int, default=5, metavar="N", help="of each in a duel (%(default)d)")
    parser.add_argument("--seconds", type=positive, default=2.0, help="of a turn (%(default)g)")
    parser.add_argument("--connections", type=int, default=64, help="(%(default)d)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them")
    options = parser.parse_args(arguments)
    if options.turns < 1 or options.connections < 1:
        parser.error("--turns and --connections must be above 0")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing which was started stays
    found: dict[str, Duel] = {}
    print(
        "| server | release | body | its requests/s, p50 / p99 ms | the daemon's | ratio | asked | CPU |\n"
        + "|---" * 8
        + "|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for peer in [each for each in PEERS if not options.peer or each.name in options.peer]:
            duel = fought(peer, Path(folder), options)
            found[peer.name] = duel
            print(row(peer.name, duel), flush=True)
    if options.json is not None:
        options.json.write_text(
            json.dumps({name: {**asdict(duel), "ratio": duel.ratio} for name, duel in found.items()})
        )
    if options.plot is not None:
        plot(found, options.plot)
    return 0


def fought(peer: Peer, folder: Path, options: argparse.Namespace) -> Duel:
    """Returns what the daemon and a server did in turns."""
    case = Case(BODY_KB, peer.form, options.connections)
    for_daemon = requests(case)
    headers = {"Content-Type": "application/octet-stream"}
    bodies = [post(peer.path, picture, headers) for picture in pictures(case)]
    for_peer = bodies if peer.form == "binary" else for_daemon
    seen: dict[str, list[Seen]] = {"ours": [], "theirs": []}
    at = folder / peer.environment.name
    with (
        daemon("daemon", ROOT, folder / "daemon", service=SERVICE) as ours,
        started_peer(peer, SERVICE, at, for_peer[0]) as (port, their_cpu_s),
        pinned(1),
    ):
        for turn in range(options.turns):
            # Which of both is first changes, too: what else the machine does is seldom the same in both halves.
            order = [("ours", ours.port, for_daemon, ours.cpu_s), ("theirs", port, for_peer, their_cpu_s)]
            for name, where, sent, cpu_s in order if turn % 2 else reversed(order):
                load = closed_loop(
                    where,
                    sent,
                    connections=options.connections,
                    warm_up_s=WARM_UP_S if turn else peer.settle_s,
                    duration_s=options.seconds,
                    cpu_s=cpu_s,
                    may_close=True,
                )
                seen[name].append(uvloop.new_event_loop().run_until_complete(load))
    return Duel(peer.release, peer.form, turns_of(seen["ours"]), turns_of(seen["theirs"]))


def turns_of(seen: Sequence[Seen]) -> Turns:
    """Returns the figures of turns."""
    whole = Seen()
    for each in seen:
        whole.add(each)
    refused = sum(count for status, count in whole.statuses.items() if status != 200)
    p50_ms, p99_ms = (whole.latency_ms(q) if whole.latencies_s else float("inf") for q in (0.5, 0.99))
    answers = sum(count for count, _, _ in whole.windows)
    cpu_us = sum(cpu_s for _, _, cpu_s in whole.windows) / answers * 1e6 if answers else math.inf
    return Turns(tuple(each.rps for each in seen), p50_ms, p99_ms, refused, cpu_us)


def row(name: str, duel: Duel) -> str:
    """Returns a row of the table."""
    least, largest = duel.spread()
    asked = f"≥ {ASKED[name]:g}" if name in ASKED else ""
    missed = ", **missed**" if duel.ratio < ASKED.get(name, 0.0) else ""
    return (
        f"| {name} | {duel.release} | {duel.form} | {_said(duel.theirs)} | {_said(duel.ours)} "
        f"| {duel.ratio:.2f} ({least:.2f} to {largest:.2f}){missed} | {asked} "
        f"| {duel.theirs.cpu_us:,.0f} to {duel.ours.cpu_us:,.0f} us: {duel.cpu_ratio:.2f} |"
    )


def _said(turns: Turns) -> str:
    refused = f", {turns.refused} refused" if turns.refused else ""
    return f"{turns.median_rps:,.0f}, {turns.p50_ms:.1f} / {turns.p99_ms:.1f}{refused}"


def plot(found: Mapping[str, Duel], path: Path) -> None:
    """Draws requests a second of each duel beside each other."""
    figure = new_figure("--plot", width_in=8, height_in=3.6)
    axes = figure.subplots()
    names = list(found)
    for offset, label, rates in (
        (-0.2, "other", [found[name].theirs.median_rps for name in names]),
        (0.2, "edgeburst", [found[name].ours.median_rps for name in names]),
    ):
        bars = axes.barh([place + offset for place in range(len(names))], rates, height=0.4, label=label)
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
    axes.set_yticks(range(len(names)), [name.replace(", ", ",\n") for name in names])
    axes.invert_yaxis()
    axes.set(xlabel="requests a second of 24 KB, one core")
    axes.margins(x=0.12)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(run_script("bench_peers", main, shown=False))
