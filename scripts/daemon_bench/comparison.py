"""Runs the loads before each server in turn, and puts what was measured side by side."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.daemon_bench.cases import Case, requests
from scripts.daemon_bench.client import Seen, closed_loop, open_loop
from scripts.daemon_bench.contenders import ROOT, Server, bare, checkout_of, daemon, pinned

ROUNDS = 4
WARM_UP_S = 0.5
OWN_RPS = 200.0
OWN_SEGMENT_S = 5.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What one server did under one load."""

    rps: float
    cpu_us: float
    """Of an answer, the 10th percentile of windows."""
    p50_ms: float
    p99_ms: float
    memory_mb: float
    refused: int
    """Answers with another status than 200."""


@dataclass(frozen=True, slots=True)
class OwnFigures:
    """Latency that the daemon itself adds at a low rate."""

    p50_ms: float
    p99_ms: float


def compared(case: Case, against: str | None, *, duration_s: float, bare_too: bool = True) -> Mapping[str, Figures]:
    """Returns the figures of each server under a load; the servers take turns.

    Args:
        case: the load.
        against: a folder or a commit whose daemon is measured too; None: none.
        duration_s: seconds that each server is measured, in all.
        bare_too: whether the bare servers are measured.
    """
    sent, seen, memory_mb = requests(case), dict[str, Seen](), dict[str, float]()
    with _contenders(case, against, bare_too=bare_too) as servers:
        for _ in range(ROUNDS):
            for server in servers:
                found = asyncio.run(
                    closed_loop(
                        server.port,
                        sent,
                        connections=case.connections,
                        warm_up_s=WARM_UP_S,
                        duration_s=duration_s / ROUNDS,
                        cpu_s=server.cpu_s,
                    )
                )
                seen.setdefault(server.name, Seen()).add(found)
                memory_mb[server.name] = server.resident_mb()
    return {name: _figures(of, memory_mb[name]) for name, of in seen.items()}


def own_latency(case: Case, against: str | None, *, segments: int) -> Mapping[str, OwnFigures]:
    """Returns the own latency of each daemon at a low rate, as it says itself; the daemons take turns."""
    sent, generator = requests(case), random.Random(1)
    with _contenders(case, against, bare_too=False) as servers:
        for _ in range(segments):
            for server in servers:
                due_s, at_s = [], 0.0
                while (at_s := at_s + generator.expovariate(OWN_RPS)) < OWN_SEGMENT_S:
                    due_s.append(at_s)
                asyncio.run(open_loop(server.port, sent, due_s))
        return {server.name: _own(server) for server in servers}


def stages_of(case: Case, *, duration_s: float) -> Mapping[str, float]:
    """Returns the share of each stage in the processor time of this checkout's daemon."""
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "stages.json"
        with daemon("here", ROOT, Path(folder), both=case.backends == "both", stages=into) as server:
            os.kill(server.pid, signal.SIGUSR1)
            asyncio.run(
                closed_loop(
                    server.port,
                    requests(case),
                    connections=case.connections,
                    warm_up_s=WARM_UP_S,
                    duration_s=duration_s,
                    cpu_s=server.cpu_s,
                )
            )
        counts: dict[str, int] = json.loads(into.read_text())
    whole = sum(counts.values()) or 1
    return {name: count / whole for name, count in sorted(counts.items(), key=lambda each: -each[1])}


@contextlib.contextmanager
def _contenders(case: Case, against: str | None, *, bare_too: bool = True) -> Iterator[Sequence[Server]]:
    both = case.backends == "both"
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        root = Path(folder)
        servers = [stack.enter_context(bare(kind)) for kind in ("protocol", "aiohttp") if bare_too]
        if against is not None:
            there = checkout_of(against, root)
            servers.append(stack.enter_context(daemon("there", there, root / "files-there", both=both)))
        servers.append(stack.enter_context(daemon("here", ROOT, root / "files-here", both=both)))
        stack.enter_context(pinned(1))
        time.sleep(1.0)
        yield servers


def _figures(seen: Seen, memory_mb: float) -> Figures:
    return Figures(
        rps=seen.rps,
        cpu_us=seen.cpu_us,
        p50_ms=seen.latency_ms(0.5),
        p99_ms=seen.latency_ms(0.99),
        memory_mb=memory_mb,
        refused=sum(count for status, count in seen.statuses.items() if status != 200),
    )


def _own(server: Server) -> OwnFigures:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/v1/status", timeout=10) as response:
        said = json.load(response)["own_latency"]
    return OwnFigures(said["p50_s"] * 1e3, said["p99_s"] * 1e3)


def lines(case: Case, found: Mapping[str, Figures]) -> Iterator[str]:
    """Yields the figures of a load as lines of text; the last columns compare with the server named."""
    yield f"{case.name}"
    for name, of in found.items():
        ratios = ""
        if name in ("here", "there"):
            ratios = f"  CPU {of.cpu_us / found['bare aiohttp'].cpu_us:5.2f} x bare aiohttp"
        if name == "here" and "there" in found:
            ratios += f", {of.cpu_us / found['there'].cpu_us:.3f} x there"
        refused = f"  {of.refused} refused" if of.refused else ""
        yield (
            f"  {name:14}{of.rps:9.0f}/s {of.cpu_us:8.1f} us  p50 {of.p50_ms:7.2f}  p99 {of.p99_ms:7.2f} ms"
            f" {of.memory_mb:6.0f} MB{ratios}{refused}"
        )


def own_lines(found: Mapping[str, OwnFigures]) -> Iterator[str]:
    """Yields own latencies as lines of text."""
    yield f"own latency at {OWN_RPS:g}/s"
    for name, of in found.items():
        there = found.get("there")
        ratio = (
            ""
            if name != "here" or there is None
            else (f"  p50 {of.p50_ms / there.p50_ms:.2f}, p99 {of.p99_ms / there.p99_ms:.2f} x there")
        )
        yield f"  {name:14} p50 {of.p50_ms:.3f} ms, p99 {of.p99_ms:.3f} ms{ratio}"


def as_json(found: Mapping[str, Figures] | Mapping[str, OwnFigures]) -> dict[str, object]:
    """Returns figures as values of JSON."""
    return {name: asdict(of) for name, of in found.items()}
