"""Measures the daemon before two replicas of Ray Serve, and what Ray adds to a batch.

Two replicas, whose batches take 0.2 + 0.05 b seconds, behind one address; no functions; a Poisson process through the
daemon. Printed: the share of requests that were answered rightly within the SLO. With --overhead instead: what a batch
takes beside its service through our own server, through Ray Serve with HAProxy and throughput mode, and through Ray
Serve's own proxy.

    python -m scripts.bench_ray --python .venv-ray/bin/python              # make .venv-ray/.installed makes that
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import cv2
import numpy as np

from models.catalogue import shipped
from models.loading import load
from models.profile import load_profile
from scheduler import wire
from scripts.support.ray_service import ray_service
from scripts.support.script import run_script

ROOT = Path(__file__).resolve().parents[1]
ALPHA_S, BETA_S = 0.2, 0.05
LIMIT_S = 60.0
CONFIG = """
[daemon]
port = 0
[edge]
url = "{url}"
{edge}
[[model]]
name = "digits"
edge_profile = "{profile}"
[[model.class]]
slo_s = {slo_s}
"""


@dataclass(frozen=True)
class Outcome:
    """What came of a request.

    Attributes:
        latency_s: from its arrival to its answer, or to the error.
        right: whether the answer was the model's; None without an answer.
        error: the error; empty with an answer.
    """

    latency_s: float
    right: bool | None
    error: str = ""


def main() -> int:
    """Runs the benchmark; returns 1 if an answer is wrong, else 0 whatever the share is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    python = ROOT / ".venv-ray" / "bin" / "python"
    parser.add_argument("--python", type=Path, default=python, help="of an environment with the extras edge and ray")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--rps", type=float, default=20.0, help="requests a second (%(default)g)")
    parser.add_argument("--duration-s", type=float, default=60.0, help="length of the load (%(default)g)")
    parser.add_argument("--slo-s", type=float, default=1.0, help="(%(default)g)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the arrivals")
    parser.add_argument("--parallel", type=int, help="the daemon's [edge] parallel; without it: what the replicas say")
    parser.add_argument("--own-proxy", action="store_true", help="Ray Serve's own proxy instead of HAProxy")
    parser.add_argument("--overhead", action="store_true", help="measure what Ray adds to a batch instead")
    options = parser.parse_args()
    if options.overhead:
        overhead(options.python)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        outcomes = through_daemon(options, Path(folder))
    print(summary(outcomes, slo_s=options.slo_s))
    return 1 if any(outcome.right is False for outcome in outcomes) else 0


def through_daemon(options: argparse.Namespace, folder: Path) -> list[Outcome]:
    """Starts replicas and daemon, and sends the requests; returns what came of each."""
    profile = law(folder)
    edge = "" if options.parallel is None else f"parallel = {options.parallel}"
    with (
        ray_service(
            options.python,
            f"{replica_options(profile)} --open",
            replicas=options.replicas,
            haproxy=not options.own_proxy,
        ) as service,
        daemon(CONFIG.format(url=service.url, edge=edge, profile=profile, slo_s=options.slo_s), folder) as url,
    ):
        arrivals_s = poisson(options.rps, options.duration_s, options.seed)
        return asyncio.run(sent(url, arrivals_s))


def summary(outcomes: Sequence[Outcome], *, slo_s: float) -> str:
    """Returns the share of requests that were answered rightly within the SLO, and how long answers took."""
    answered = [outcome for outcome in outcomes if outcome.right is not None]
    within = sum(1 for outcome in answered if outcome.right and outcome.latency_s <= slo_s)
    latencies_s = [outcome.latency_s for outcome in answered] or [0.0]
    p50_s, p99_s = np.percentile(latencies_s, (50, 99))
    wrong = sum(1 for outcome in answered if not outcome.right)
    errors = Counter(outcome.error for outcome in outcomes if outcome.right is None)
    return "\n".join(
        [
            f"{len(outcomes)} requests: {within / len(outcomes):.3f} within {slo_s:g} s;"
            f" p50 {p50_s:.3f} s, p99 {p99_s:.3f} s; {wrong} wrong, {len(outcomes) - len(answered)} without answer",
            *(f"  {count} x {error}" for error, count in errors.most_common(5)),
        ]
    )


def law(folder: Path) -> Path:
    """Writes the profile of the emulated device; returns its file."""
    profile = {
        "name": "two-replicas",
        "backend": "edge",
        "model": "digits",
        "device": "emulated",
        "source": "scripts/bench_ray.py",
        "date": "2026-11-30",
        "note": "Made up.",
        "rows": [],
        "alpha_s": ALPHA_S,
        "beta_s": BETA_S,
        "max_batch": 64,
        "environment": {},
    }
    path = folder / "two-replicas.json"
    path.write_text(json.dumps(profile))
    load_profile(str(path))
    return path


def replica_options(profile: Path) -> str:
    """Returns the options of each replica, without those of access."""
    return f"--model digits --emulate {profile} --log-level warning"


def poisson(rps: float, duration_s: float, seed: int) -> list[float]:
    """Returns arrival times, seconds from the start."""
    random = np.random.default_rng(seed)
    gaps_s = random.exponential(1 / rps, size=int(2 * rps * duration_s + 100))
    times_s = np.cumsum(gaps_s)
    return [float(time_s) for time_s in times_s[times_s < duration_s]]


@dataclass(frozen=True)
class Digit:
    """A picture, and what the model says of it."""

    body: bytes
    headers: dict[str, str]
    probabilities: Any


def digits(count: int = 8) -> list[Digit]:
    """Returns requests of one picture each, and their answers as the model gives them in this process."""
    card = shipped("digits")
    served = load(card, device="cpu", runtime="onnxruntime", max_batch=1)
    random = np.random.default_rng(7)
    made = []
    for _ in range(count):
        ink = cv2.resize(random.integers(0, 256, (6, 6), dtype=np.uint8), (84, 84), interpolation=cv2.INTER_CUBIC)
        picture = cv2.imencode(".png", ink)[1].tobytes()
        tensor = wire.Tensor.from_elements("image", [picture])
        encoded = wire.encode_request(wire.InferRequest(id="", inputs=(tensor,)))
        answer = served.answer({"image": served.prepare("image", picture)[np.newaxis]}, errors=[""])
        made.append(Digit(encoded.body, dict(encoded.headers), np.asarray(answer["probabilities"])[0]))
    return made


async def sent(url: str, arrivals_s: Sequence[float]) -> list[Outcome]:
    """Sends a request at each arrival time; returns what came of each, in that order."""
    requests = digits()
    began_s = time.perf_counter()

    async def one(session: aiohttp.ClientSession, number: int, arrival_s: float) -> Outcome:
        await asyncio.sleep(began_s + arrival_s - time.perf_counter())
        digit = requests[number % len(requests)]
        at_s = time.perf_counter()
        try:
            post = session.post(f"{url}/v2/models/digits/infer", data=digit.body, headers=digit.headers)
            async with post as response:
                answer = await response.read()
                took_s = time.perf_counter() - at_s
                if response.status != 200:
                    return Outcome(took_s, None, f"{response.status}: {answer[:200].decode(errors='replace')}")
                return Outcome(took_s, _is_right(answer, wire.json_length_of(response.headers), digit))
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            return Outcome(time.perf_counter() - at_s, None, repr(error))

    limit = aiohttp.ClientTimeout(total=LIMIT_S)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=limit) as session:
        tasks = [one(session, number, arrival_s) for number, arrival_s in enumerate(arrivals_s)]
        return list(await asyncio.gather(*tasks))


def _is_right(answer: bytes, json_length: int | None, digit: Digit) -> bool:
    outputs = {tensor.name: tensor for tensor in wire.parse_response(answer, json_length).outputs}
    return bool(np.allclose(outputs["probabilities"].to_numpy()[0], digit.probabilities, atol=1e-3))


@contextlib.contextmanager
def daemon(config: str, folder: Path) -> Iterator[str]:
    """Starts the daemon; hands over its URL."""
    path = folder / "edgeburst.toml"
    path.write_text(config)
    command = [sys.executable, "-m", "scheduler.cli", "serve", "--config", str(path)]
    with _process(command, folder / "daemon.log") as ready:
        yield f"http://127.0.0.1:{ready['port']}"


@contextlib.contextmanager
def own_server(options: str) -> Iterator[str]:
    """Starts our own edge server; hands over its URL."""
    command = [sys.executable, "-m", "edge_server", "--port", "0", *options.split()]
    with tempfile.TemporaryDirectory() as folder, _process(command, Path(folder) / "edge.log") as ready:
        yield f"http://127.0.0.1:{ready['port']}"


@contextlib.contextmanager
def _process(command: Sequence[str], log: Path) -> Iterator[dict[str, Any]]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=out, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{' '.join(command)} does not start: {log.read_text()[-2000:]}")
            ready: dict[str, Any] = json.loads(line)
            yield ready
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def overhead(python: Path, *, batches: int = 200, items: int = 8) -> None:
    """Prints what a batch takes beside its service, by our own server and by Ray Serve in both ways."""
    options = "--model digits --open --log-level warning --runtime onnxruntime"
    print(f"A batch of {items} pictures, on one connection; milliseconds beside service and wait in the server:")
    with own_server(options) as url:
        _tell("our own server", url, batches, items)
    for haproxy, name in ((True, "Ray Serve, HAProxy, throughput mode"), (False, "Ray Serve's own proxy")):
        with ray_service(python, options, replicas=1, haproxy=haproxy) as service:
            _tell(name, service.url, batches, items)


def _tell(name: str, url: str, batches: int, items: int) -> None:
    random = np.random.default_rng(7)
    picture = cv2.imencode(".png", random.integers(0, 256, (90, 90, 3), dtype=np.uint8))[1].tobytes()
    tensor = wire.Tensor.from_elements("image", [picture] * items)
    encoded = wire.encode_request(wire.InferRequest(id="", inputs=(tensor,)))
    beside_s = asyncio.run(_beside(url, encoded, batches))
    beside_s = beside_s[batches // 10 :]
    p90_s = statistics.quantiles(beside_s, n=10)[-1]
    print(f"  {name}: p50 {statistics.median(beside_s) * 1e3:.2f}, p90 {p90_s * 1e3:.2f}", flush=True)


async def _beside(url: str, encoded: wire.Encoded, batches: int) -> list[float]:
    found = []
    async with aiohttp.ClientSession() as session:
        for _ in range(batches):
            at_s = time.perf_counter()
            post = session.post(f"{url}/v2/models/digits/infer", data=encoded.body, headers=dict(encoded.headers))
            async with post as response:
                answer = await response.read()
                took_s = time.perf_counter() - at_s
                response.raise_for_status()
            said = wire.parse_response(answer, wire.json_length_of(response.headers)).parameters
            found.append(took_s - float(str(said["service_s"])) - float(str(said["queue_s"])))
    return found


if __name__ == "__main__":
    sys.exit(run_script("bench_ray", main))
