"""Measures the daemon itself: time until ready, idle memory, and the latency that it adds to a request.

The script starts a daemon and a stub edge server in separate processes, sends 24 KB requests as a Poisson process, and
prints three times that the daemon measures: from the last body byte to the engine's call; from the decision to send to
the last byte of the batch; from the backend's answer to the client's answer. The stub answers at once, so that most
batches have one request and the daemon's own work is visible. With --law the stub takes the time of an edge profile.

    python -m scripts.bench_daemon --rps 200 --duration-s 25

With --compare it keeps connections busy instead, and shows requests a second, processor time of an answer (the 10th
percentile of windows), latencies and memory of the daemon, beside a bare protocol and bare aiohttp, which only read
the body; with --against COMMIT also those of the daemon of that commit, or of a checkout in that folder. The servers
take turns in one run; they have one core, clients and edge have the other. --stages says where the daemon's time goes,
and --own compares the three times above at 200 requests a second.

    python -m scripts.bench_daemon --against 843c8b3 --case 24kb-binary-64-edge --stages --own
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from models.profile import load_profile
from scheduler import wire
from scripts.daemon_bench import comparison
from scripts.daemon_bench.cases import ALL, USUAL, Case
from scripts.support.script import run_script

ROOT = Path(__file__).resolve().parents[1]
TARGETS = {"ready_s": 2.0, "idle_mb": 200.0, "p50_ms": 1.0, "p99_ms": 5.0}
CONFIG = """
[daemon]
port = 0
[edge]
url = "http://127.0.0.1:{port}"
[[model]]
name = "digits"
edge_profile = "{profile}"
"""


def main() -> int:
    """Runs the benchmark; returns 0 whatever the figures are, since it is no test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rps", type=float, default=200.0, help="requests a second")
    parser.add_argument("--duration-s", type=float, default=25.0, help="length of the load; the last 4096 count")
    parser.add_argument("--body-bytes", type=int, default=24 * 1024, help="size of one picture")
    parser.add_argument("--seed", type=int, default=1, help="seed of the arrivals")
    parser.add_argument("--law", metavar="PROFILE", default="", help="edge profile whose service times the stub takes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--compare", action="store_true", help="compare with bare servers instead")
    parser.add_argument("--against", metavar="COMMIT", help="compare with the daemon of a commit or a folder too")
    parser.add_argument("--case", action="append", type=Case.of, metavar="NAME", help="a load to compare under")
    parser.add_argument("--all", action="store_true", help="compare under all loads, which takes a quarter of an hour")
    parser.add_argument("--seconds", type=float, default=4.0, help="that each server is measured under each load")
    parser.add_argument("--stages", action="store_true", help="where the daemon's time goes, by load")
    parser.add_argument("--own", action="store_true", help="compare the daemon's own latency at 200 requests a second")
    options = parser.parse_args()
    if options.compare or options.against or options.stages or options.own:
        return compare(options)
    figures = bench(options)
    print(json.dumps(figures) if options.json else "\n".join(lines(figures, options)))
    return 0


def compare(options: argparse.Namespace) -> int:
    """Prints what is compared; returns 0."""
    found: dict[str, object] = {}

    def show(name: str, figures: object, text: Iterator[str]) -> None:
        found[name] = figures
        if not options.json:
            print("\n".join(text), flush=True)

    for case in options.case or (ALL if options.all else USUAL):
        figures = comparison.compared(case, options.against, duration_s=options.seconds)
        show(case.name, comparison.as_json(figures), comparison.lines(case, figures))
        if options.stages:
            shares = comparison.stages_of(case, duration_s=options.seconds)
            text = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
            show(f"{case.name} stages", shares, iter([f"  {text}"]))
    if options.own:
        own = comparison.own_latency(Case(connections=1), options.against, segments=4)
        show("own latency", comparison.as_json(own), comparison.own_lines(own))
    if options.json:
        print(json.dumps(found))
    return 0


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Runs daemon, stub and load, and returns all figures."""
    profile = load_profile(options.law or "orin-resnet50")
    service = ["--alpha-s", str(profile.alpha_s), "--beta-s", str(profile.beta_s)] if options.law else []
    stub_command = [sys.executable, "-m", "scripts.support.stub_edge", *service]
    with tempfile.TemporaryDirectory() as folder, process(stub_command) as stub:
        config = Path(folder) / "bench.toml"
        config.write_text(CONFIG.format(port=ready_port(stub), profile=profile.name))
        started_at_s = time.monotonic()
        with process([sys.executable, "-m", "scheduler.cli", "serve", "--config", str(config)]) as daemon:
            port = ready_port(daemon)
            step_back(stub.pid, os.getpid())
            ready_s = time.monotonic() - started_at_s
            idle_mb = resident_mb(daemon.pid)
            status, statuses, cpu = asyncio.run(load(f"http://127.0.0.1:{port}", options, daemon.pid))
            loaded_mb = resident_mb(daemon.pid)
    own = status["own_latency"]
    return {
        "ready_s": ready_s,
        "idle_mb": idle_mb,
        "loaded_mb": loaded_mb,
        "own_latency_s": own,
        "p50_ms": own["p50_s"] * 1e3,
        "p99_ms": own["p99_s"] * 1e3,
        "daemon_cpu": cpu,
        "statuses": statuses,
        "machine_load": os.getloadavg()[0],
    }


def lines(figures: dict[str, Any], options: argparse.Namespace) -> Iterator[str]:
    """Yields the figures as lines of text."""
    units = {"ready_s": "s", "idle_mb": "MB", "p50_ms": "ms", "p99_ms": "ms"}
    names = {"ready_s": "ready after", "idle_mb": "idle memory", "p50_ms": "own p50", "p99_ms": "own p99"}
    for key, target in TARGETS.items():
        met = "" if figures[key] <= target else "   MISSED"
        yield f"{names[key]:<14}{figures[key]:10.3f} {units[key]:<3} (target {target:g}){met}"
    for name, part in figures["own_latency_s"]["parts"].items():
        yield f"  part {name:<7}{part['p50_s'] * 1e3:10.3f} ms  p50, {part['p99_s'] * 1e3:.3f} ms p99"
    yield f"load: {options.rps:g}/s of {options.body_bytes} bytes, {options.duration_s:g} s, HTTP {figures['statuses']}"
    yield f"daemon CPU {figures['daemon_cpu']:.0%} of a core; memory under load {figures['loaded_mb']:.0f} MB"
    yield f"machine load {figures['machine_load']:.1f} on {os.cpu_count()} cores"


async def load(url: str, options: argparse.Namespace, pid: int) -> tuple[dict[str, Any], dict[int, int], float]:
    """Sends requests open-loop; returns the daemon's status, the count of each HTTP status, and the CPU utilisation."""
    generator = np.random.default_rng(options.seed)
    gaps_s = generator.exponential(1.0 / options.rps, size=round(options.rps * options.duration_s))
    encoded = wire.encode_request(a_request(generator.bytes(options.body_bytes)))
    headers = {wire.JSON_LENGTH_HEADER: str(encoded.json_length)}
    statuses: dict[int, int] = {}
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=300)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one() -> None:
            target = f"{url}/v2/models/digits/infer"
            async with session.post(target, data=encoded.body, headers=headers) as response:
                await response.read()
                statuses[response.status] = statuses.get(response.status, 0) + 1

        cpu_s, started_at_s = cpu_seconds(pid), time.monotonic()
        tasks, due_s = [], started_at_s
        for gap_s in gaps_s:
            due_s += gap_s
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            tasks.append(asyncio.create_task(one()))
        await asyncio.gather(*tasks)
        cpu = (cpu_seconds(pid) - cpu_s) / (time.monotonic() - started_at_s)
        async with session.get(f"{url}/v1/status") as response:
            return await response.json(), statuses, cpu


def step_back(*pids: int) -> None:
    """Lowers the priority of stub and client: they stand for other machines, which would not use the daemon's cores."""
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.setpriority(os.PRIO_PROCESS, int(thread), 15)


def a_request(picture: bytes) -> wire.InferRequest:
    """Returns a request with one picture."""
    return wire.InferRequest("bench", (wire.Tensor.from_elements("image", [picture]),), binary_by_default=True)


@contextlib.contextmanager
def process(command: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """Starts a process, and ends it after the block."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environ)
    try:
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        started.wait(timeout=60)


def ready_port(started: "subprocess.Popen[str]") -> int:
    """Waits for a process's ready line; returns its port."""
    assert started.stdout is not None
    return int(json.loads(started.stdout.readline())["port"])


def resident_mb(pid: int) -> float:
    """Returns the resident memory of a process in 10^6 bytes."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024 / 1e6


def cpu_seconds(pid: int) -> float:
    """Returns the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(run_script("bench_daemon", main))
