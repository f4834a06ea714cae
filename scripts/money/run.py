"""One run: endpoint and daemon as processes, bursts of requests, and then the books."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scheduler.measuring.exchange import Reply, Target, exchange, open_session
from scheduler.measuring.payloads import Payload
from scripts.demo.processes import Processes, Running, child_environment
from scripts.money.container import CRASH, HANG
from scripts.support.books import Books, books

KEY_ID, KEY_SECRET = "money", "money-secret"
SHEET = "cny-gbs-2023"
MODEL, PROFILE = "digits", "fc-resnet50-1gb"
MEMORY_GB = 1
_READY_LIMIT_S = 60.0
_SETTLE_LIMIT_S = 90.0
_GIVE_UP_S = 120.0
_MOST_BATCHES = 1000
_PICTURE = b"a picture of a digit, as far as a pause can tell" * 20


@dataclass(frozen=True, slots=True)
class Case:
    """What happens in a run.

    Attributes:
        seed: of burst sizes, gaps and misfortunes.
        invocations: the run ends when the meter has counted so many.
        start_s: seconds of an instance's initializer.
        idle_s: seconds without a call after which the platform stops an instance.
        provisioned: instances that are always kept.
        misfortunes: part of the bursts that contain a request which ends its instance or never returns.
        real: whether the containers are the project's own, with torch, instead of the light ones.
        slots: most calls in flight at a time.
    """

    seed: int
    invocations: int = 200
    start_s: float = 2.0
    idle_s: float = 0.7
    provisioned: int = 0
    misfortunes: float = 0.0
    real: bool = False
    slots: int = 32


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a run.

    Attributes:
        books: booked and metered.
        answered: requests with an answer.
        requests: all requests.
        wall_s: seconds of the bursts.
        status: the daemon's last status.
        batches: the daemon's rows of all batches.
    """

    books: Books
    answered: int
    requests: int
    wall_s: float
    status: dict[str, Any]
    batches: tuple[dict[str, Any], ...] = ()


def run(case: Case, folder: Path) -> Outcome:
    """Runs the processes and returns the books after the last answer; logs stay in the folder."""
    with Processes(folder / "logs", child_environment(dict(os.environ))) as processes:
        path = _written(folder / "local-fc.toml", _endpoint_toml(case))
        endpoint = processes.start("local-fc", ["serverless_fn.local_fc", "--config", str(path), "--port", "0"])
        fc = endpoint.wait_for("ready", limit_s=_READY_LIMIT_S)
        path = _written(folder / "edgeburst.toml", _daemon_toml(case, f"{fc['host']}:{fc['port']}"))
        keys = {"MONEY_KEY_ID": KEY_ID, "MONEY_KEY_SECRET": KEY_SECRET}
        daemon = processes.start("daemon", ["scheduler.cli", "serve", "--config", str(path)], **keys)
        site = _Site(f"http://127.0.0.1:{_port(daemon)}", f"http://{fc['host']}:{fc['port']}")
        replies, wall_s = asyncio.run(_bursts(case, site))
        status = site.settled()
        found = books(site.meter(), status, sheet=SHEET)
        answered = sum(reply.status == 200 for reply in replies)
        return Outcome(found, answered, len(replies), wall_s, status, site.batches())


def _port(daemon: Running) -> int:
    return int(daemon.wait_for("ready", limit_s=_READY_LIMIT_S)["port"])


@dataclass(frozen=True, slots=True)
class _Site:
    """The two processes, as HTTP shows them."""

    daemon: str
    endpoint: str

    def meter(self) -> dict[str, Any]:
        return _get(f"{self.endpoint}/admin/meter")

    def batches(self) -> tuple[dict[str, Any], ...]:
        """Returns the rows of all batches that have ended."""
        return tuple(_get(f"{self.daemon}/v1/batches?limit={_MOST_BATCHES}")["batches"])

    def settled(self) -> dict[str, Any]:
        """Returns the daemon's status once nothing is in flight and no bill is awaited."""
        end_s = time.monotonic() + _SETTLE_LIMIT_S
        while True:
            status = _get(f"{self.daemon}/v1/status")
            engine = status["engine"]
            if not engine["function_batches_in_flight"] and not engine["queued_requests"]:
                return status
            if time.monotonic() > end_s:
                raise TimeoutError(f"batches are still in flight after {_SETTLE_LIMIT_S:g} s")
            time.sleep(0.05)


def _get(url: str) -> dict[str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


async def _bursts(case: Case, site: _Site) -> tuple[list[Reply], float]:
    """Sends bursts until the meter has counted enough calls."""
    target, replies, started_s = Target(site.daemon, MODEL), [], time.monotonic()
    async with open_session(give_up_s=_GIVE_UP_S) as session:
        for number, (payloads, gap_s) in enumerate(_drawn(case)):
            sends = [
                exchange(session, target, Payload("", payload), request_id=f"{number}-{index}", keep_output=False)
                for index, payload in enumerate(payloads)
            ]
            replies += await asyncio.gather(*sends)
            if site.meter()["total"]["invocations"] >= case.invocations:
                break
            await asyncio.sleep(gap_s)
    return replies, time.monotonic() - started_s


def _drawn(case: Case) -> Iterator[tuple[list[bytes], float]]:
    """Yields the payloads of each burst and the gap after it: half the gaps are longer than an instance lives."""
    rng = random.Random(case.seed)
    while True:
        payloads = [_PICTURE] * rng.randint(4, 16)
        if rng.random() < case.misfortunes:
            payloads[rng.randrange(len(payloads))] = rng.choice((CRASH, HANG))
        yield payloads, 2.0 * case.idle_s * rng.random()


def _written(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def _endpoint_toml(case: Case) -> str:
    program = "serverless_fn" if case.real else "scripts.money.container"
    return f"""\
[access_keys]
{KEY_ID} = "{KEY_SECRET}"

[account]
idle_s = {case.idle_s}

[images.money]
command = ["python", "-m", "{program}"]

[[function]]
functionName = "{MODEL}"
runtime = "custom-container"
handler = "index.handler"
cpu = 1
memorySize = {MEMORY_GB * 1024}
diskSize = 512
timeout = 3
instanceConcurrency = 1
customContainerConfig = {{ image = "money" }}
instanceLifecycleConfig = {{ initializer = {{ handler = "index.initialize", timeout = 120 }} }}
environmentVariables = {{ MODEL = "{MODEL}", EDGEBURST_EMULATE = "{PROFILE}", START_S = "{case.start_s}" }}
provisionConfig = {{ defaultTarget = {case.provisioned} }}
"""


def _daemon_toml(case: Case, endpoint: str) -> str:
    deploy = f'[deploy]\nimage = "money"\nprovisioned = {{ cpu = {case.provisioned} }}\n' if case.provisioned else ""
    return f"""\
[daemon]
port = 0
late = "serve"

[function]
endpoint = "{endpoint}"
protocol = "http"
access_key_id_env = "MONEY_KEY_ID"
access_key_secret_env = "MONEY_KEY_SECRET"
price_sheet = "{SHEET}"

{deploy}
[[model]]
name = "{MODEL}"

[[model.class]]
slo_s = 2.0
percentile = 0.99

[[model.tier]]
name = "cpu"
function = "{MODEL}"
profile = "{PROFILE}"
memory_gb = {MEMORY_GB}
max_in_flight = {case.slots}
"""
