"""Measures what it gains to send an edge's next batch before the one on its device is back.

One edge, whose device takes as long as the published law of an Orin; each batch also travels and is decoded, while the
device could serve another one; a Poisson process. Printed: the share of the time for which the device works, the
requests that the edge answers, as a multiple of those without a batch ahead, and the share within the SLO: in the
simulator, and with a daemon, an emulated edge server and a delayed link as processes. The last row of each table has
neither way nor decoding: in the simulator that is the most that could be reached.

    python -m scripts.bench_ahead
    python -m scripts.bench_ahead --slo-s 0.6 --rps 110 --only simulator
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from models.profile import load_profile
from scheduler.simulator.report import summarise, within_slo
from scheduler.simulator.scenario import ORIN_LATENCY, Scenario, latency_model
from scheduler.simulator.world import generators, make_requests, make_simulation
from scripts.bench_ray import Outcome, daemon, own_server, poisson, sent
from scripts.evaluation.options import with_slo
from scripts.evaluation.traffic import Poisson
from scripts.support.script import run_script

MODES = {"0": 0, "auto": None, "1": 1}
WARM_S = 5.0
"""Seconds of the load that do not count with processes: connections open, and the lead is learned."""
LOOK_S = 0.005
"""Seconds between two looks at what the edge server counts."""
MOST_ITEMS = 128
CONFIG = """
[daemon]
port = 0
[edge]
url = "{url}"
ahead = {ahead}
parallel = 1
[[model]]
name = "digits"
edge_profile = "{profile}"
[[model.class]]
slo_s = {slo_s}
"""


@dataclass(frozen=True)
class Figures:
    """What is measured of one run.

    Attributes:
        busy: share of the time for which the device works.
        answers: requests that the edge answered, a second; late ones are refused by the daemon.
        within: share of all requests within the SLO.
        lost: requests without an answer that were not refused.
    """

    busy: float
    answers: float
    within: float
    lost: int = 0


def main() -> int:
    """Prints the figures; returns 1 if a request was lost or answered wrongly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rps", type=float, default=187.0, help="requests a second (%(default)g)")
    parser.add_argument("--slo-s", type=float, default=1.0, help="(%(default)g)")
    parser.add_argument("--decode-s", type=float, default=0.03, help="decoding of a batch (%(default)g)")
    parser.add_argument("--lan-s", type=float, default=0.01, help="way of a batch to the edge (%(default)g)")
    parser.add_argument("--noise", type=float, default=0.0, help="sigma of services in the simulator (%(default)g)")
    parser.add_argument("--duration-s", type=float, default=30.0, help="load on the processes (%(default)g)")
    parser.add_argument("--requests", type=int, default=12_000, help="in the simulator (%(default)d)")
    parser.add_argument("--only", choices=("simulator", "processes"), help="one of the two")
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals")
    options = parser.parse_args()
    lost = 0
    if options.only != "processes":
        for functions in (False, True):
            print(f"simulator, {'edge and functions' if functions else 'edge only'}", flush=True)
            _tell({word: simulated(options, ahead, functions=functions) for word, ahead in MODES.items()})
            bare = argparse.Namespace(**{**vars(options), "decode_s": 0.0, "lan_s": 0.0})
            _tell_one("no way", simulated(bare, 0, functions=functions))
    if options.only != "simulator":
        print(f"processes, edge only, {options.duration_s:g} s each", flush=True)
        found = {word: measured(options, word) for word in MODES}
        _tell(found)
        bare = argparse.Namespace(**{**vars(options), "decode_s": 0.0, "lan_s": 0.0})
        _tell_one("no way", measured(bare, "0"))
        lost = sum(figures.lost for figures in found.values())
    return 1 if lost else 0


def _tell(found: dict[str, Figures]) -> None:
    first = found["0"].answers
    for word, figures in found.items():
        times = f"{figures.answers / first:.3f} x" if first else ""
        _tell_one(f"ahead = {word}", figures, times)


def _tell_one(name: str, figures: Figures, times: str = "") -> None:
    lost = f", {figures.lost} lost or wrong" if figures.lost else ""
    print(
        f"  {name:<12} device busy {figures.busy:.3f}, edge answers {figures.answers:7.2f} a second {times:>8},"
        f" within {figures.within:.4f}{lost}",
        flush=True,
    )


def simulated(options: argparse.Namespace, ahead: int | None, *, functions: bool) -> Figures:
    """Returns the figures of the simulator."""
    plain = with_slo(Scenario(seed=options.seed), options.slo_s)
    law = latency_model(ORIN_LATENCY.alpha_s, ORIN_LATENCY.beta_s, max_batch=MOST_ITEMS)
    scenario = replace(
        plain,
        edge_latency=law,
        max_items=MOST_ITEMS,
        edge_noise=options.noise,
        edge_decode_s=options.decode_s,
        edge_lan_s=options.lan_s,
        edge_ahead=ahead,
        tiers=plain.tiers if functions else (),
    )
    workload = Poisson(options.rps, options.requests).workload(generators(options.seed)[0])
    journal = make_simulation(scenario, make_requests(scenario, workload)).run()
    report: dict[str, Any] = summarise(journal, scenario, wall_s=0.0)
    return Figures(report["edge_busy"], report["edge"] / float(workload.times_s[-1]), within_slo(journal))


def measured(options: argparse.Namespace, ahead: str) -> Figures:
    """Returns the figures of processes: daemon, edge server, and a link that delays what goes to it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        profile = law(folder, options.decode_s)
        word = f'"{ahead}"' if ahead == "auto" else ahead
        server = (
            f"--model digits --runtime onnxruntime --emulate {profile} --log-level warning --max-batch {MOST_ITEMS}"
        )
        with own_server(server) as edge, delayed(edge, options.lan_s) as url:
            text = CONFIG.format(url=url, ahead=word, profile=profile, slo_s=options.slo_s)
            with daemon(text, folder) as there:
                return asyncio.run(_load(there, edge, options))


def law(folder: Path, decode_s: float) -> Path:
    """Writes the profile of the emulated device; returns its file."""
    known = json.loads((Path(__file__).resolve().parents[1] / "models/profiles/orin-resnet50.json").read_text())
    path = folder / "orin.json"
    path.write_text(
        json.dumps({**known, "name": "orin", "model": "digits", "max_batch": MOST_ITEMS, "decode_s": decode_s})
    )
    load_profile(str(path))
    return path


async def _load(daemon_url: str, edge_url: str, options: argparse.Namespace) -> Figures:
    arrivals_s = poisson(options.rps, options.duration_s, options.seed)

    async def worked(session: aiohttp.ClientSession) -> tuple[float, float]:
        """Waits for the end of a batch; returns when that was, and how long the device had worked until then."""
        first: float | None = None
        while True:
            async with session.get(f"{edge_url}/metrics") as response:
                text, now_s = await response.text(), time.perf_counter()
            service_s, batches = (_metric(text, f"edgeburst_edge_service_seconds_{part}") for part in ("sum", "count"))
            first = batches if first is None else first
            if batches > first:
                return now_s, service_s - batches * options.decode_s
            await asyncio.sleep(LOOK_S)

    async def window() -> float:
        async with aiohttp.ClientSession() as session:
            await asyncio.sleep(WARM_S)
            from_s, before_s = await worked(session)
            await asyncio.sleep(max(0.0, options.duration_s - 2.0 * WARM_S))
            to_s, after_s = await worked(session)
        return (after_s - before_s) / (to_s - from_s)

    outcomes, busy = await asyncio.gather(sent(daemon_url, arrivals_s), window())
    return _figures(options, arrivals_s, outcomes, busy)


def _figures(options: argparse.Namespace, arrivals_s: list[float], outcomes: list[Outcome], busy: float) -> Figures:
    ours = [o for at_s, o in zip(arrivals_s, outcomes, strict=True) if at_s >= WARM_S]
    good = sum([bool(outcome.right) and outcome.latency_s <= options.slo_s for outcome in ours])
    refused = re.compile(r"^(429|503|504): ")
    lost = [o for o in outcomes if o.right is False or (o.right is None and not refused.match(o.error))]
    for outcome in lost[:3]:
        print(f"  lost: {outcome.error or 'a wrong answer'}", file=sys.stderr)
    answered = sum([bool(outcome.right) for outcome in ours])
    return Figures(busy, answered / (options.duration_s - WARM_S), good / max(1, len(ours)), len(lost))


def _metric(text: str, name: str) -> float:
    found = re.search(rf"^{name}{{[^}}]*}} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@contextlib.contextmanager
def delayed(url: str, way_s: float) -> Iterator[str]:
    """Passes on to a server what is sent to the URL that it hands over, so many seconds later; answers at once."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    ports: list[int] = []
    target = int(url.rpartition(":")[2])

    async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, after_s: float) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(2**20):
                loop.call_later(after_s, writer.write, data)
        loop.call_later(after_s, writer.close)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(passed(reader, back, way_s), passed(there, writer, 0.0))

    async def listen() -> None:
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()

    def serve() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(listen())
        loop.run_forever()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield f"http://127.0.0.1:{ports[0]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


if __name__ == "__main__":
    sys.exit(run_script("bench_ahead", main))
