"""A daemon with an edge, functions, classes, tenants, a cap and traffic, for what the page at `/` shows of it."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
from support import stub_fc
from support.daemon_process import Running, daemon_process, environment, stub_edge_process
from support.stub_fc import Heard, Say

CONFIG = """
[daemon]
port = {port}
state = "state"
[explain]
ring = 20000
[spend]
{spend}
[edge]
url = "{edge}"
[function]
endpoint = "127.0.0.1:{functions}"
protocol = "http"
access_key_id_env = "TEST_KEY_ID"
access_key_secret_env = "TEST_KEY_SECRET"
{tenants}
[[model]]
name = "digits"
edge_profile = "orin-resnet50"
[[model.class]]
name = "interactive"
slo_s = {slo_s}
[[model.class]]
name = "archive"
{archive}
percentile = 0.9
[[model.tier]]
name = "1gb"
function = "digits"
profile = "fc-resnet50-1gb"
memory_gb = 1.0
"""


TENANTS = """
[[tenant]]
name = "lab"
share = 3
[[tenant]]
name = "shop"
"""


@dataclass
class Functions:
    """What the functions do; changed while they run."""

    service_s: float = 0.35
    cold_share: float = 0.05
    cold_s: float = 1.2
    status: int = 200
    """Of every call; another one fails it."""
    drawn: random.Random = field(default_factory=lambda: random.Random(7))

    def change(self, values: Mapping[str, Any]) -> None:
        """Sets fields."""
        for name, value in values.items():
            setattr(self, name, value)

    def say(self, heard: Heard) -> Say:
        """Answers one call."""
        if heard.method == "GET":
            return Say(200, b"{}", {"Content-Type": "application/json"})
        if "authorization" not in heard.headers:
            return Say(403)
        if self.status != 200:
            return stub_fc.error(self.status, "ResourceThrottled" if self.status == 429 else "InternalError")
        cold = self.drawn.random() < self.cold_share
        took_s = self.service_s * self.drawn.lognormvariate(0.0, 0.08)
        said = stub_fc.answer_frame(
            heard,
            cold_start=cold,
            service_s=took_s,
            duration_s=took_s,
            instance_id=f"c-{self.drawn.randrange(8)}",
            **({"init_s": 0.8 * self.cold_s} if cold else {}),
        )
        return Say(said.status, said.body, said.headers, hang_s=took_s + 0.02 + (self.cold_s if cold else 0.0))


class Child:
    """This module as a process: "functions", or "traffic URL RATE"; it ends with `with`."""

    def __init__(self, *arguments: str) -> None:
        """Stores what it is to do."""
        self._arguments = arguments
        self._process: subprocess.Popen[str] | None = None
        self.said: dict[str, Any] = {}
        """The first line that it printed."""
        self.last: dict[str, Any] = {}
        """The last one."""

    def __enter__(self) -> Child:
        """Starts it."""
        command = [sys.executable, "-m", "support.page_world", *self._arguments]
        self._process = subprocess.Popen(
            command,
            env=environment({}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.said = json.loads(self._process.stdout.readline())
        return self

    def tell(self, **values: object) -> None:
        """Changes what it does."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(values) + "\n")
        self._process.stdin.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it."""
        assert self._process is not None
        out, _ = self._process.communicate(timeout=90)
        if out.strip():
            self.last = json.loads(out.strip().splitlines()[-1])


async def told(heard: Callable[[dict[str, Any]], None]) -> None:
    """Hands lines of JSON on standard input over, until it is closed."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        heard(json.loads(line))


async def serve_functions() -> None:
    """Serves functions until standard input is closed, whose lines change them."""
    functions = Functions()

    def say(heard: Heard) -> Say:
        stub.heard.clear()  # for an hour's traffic it would grow
        return functions.say(heard)

    stub, server, port = await stub_fc.start(say)
    print(json.dumps({"port": port}), flush=True)
    await told(functions.change)
    server.close()


class Senders:
    """Requests at random times until standard input is closed; refusals and misses are fine."""

    def __init__(self, url: str, rate_rps: float, *, seed: int = 3) -> None:
        """Stores where to send, and how many a second."""
        self.url = url
        self.rate_rps = rate_rps
        self.sent = 0
        self._drawn = random.Random(seed)
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Sends."""
        print(json.dumps({"sending": True}), flush=True)
        sending = asyncio.create_task(self._send_all())
        await told(lambda values: None)
        self._over.set()
        await sending
        print(json.dumps({"sent": self.sent}), flush=True)

    async def _send_all(self) -> None:
        waiting: set[asyncio.Task[None]] = set()
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            while not self._over.is_set():
                due_s = max(due_s + self._drawn.expovariate(self.rate_rps), loop.time() - 0.5)
                await asyncio.sleep(max(0.0, due_s - loop.time()))
                task = loop.create_task(self._send(session))
                waiting.add(task)
                task.add_done_callback(waiting.discard)
            if waiting:
                await asyncio.wait(waiting, timeout=5)

    async def _send(self, session: aiohttp.ClientSession) -> None:
        self.sent += 1
        draw = self._drawn
        picture = base64.b64encode(b"picture %d" % self.sent).decode()
        body = {
            "id": f"client-{self.sent}",
            "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [picture]}],
            "parameters": {
                "class": draw.choices(["interactive", "archive"], [8, 2])[0],
                "tenant": draw.choices(["lab", "shop", "elsewhere"], [6, 3, 1])[0],
            },
        }
        try:
            async with session.post(f"{self.url}/v2/models/digits/infer", json=body) as response:
                await response.read()
        except aiohttp.ClientError:
            await asyncio.sleep(0.2)  # it restarts


def traffic(url: str, rate_rps: float) -> Child:
    """Returns clients that send so many requests a second while `with` lasts."""
    return Child("traffic", url, str(rate_rps))


@dataclass
class PageWorld:
    """The parts while they run."""

    daemon: Running
    edge: Running
    functions: Child
    config: Path


def write_config(
    folder: Path,
    *,
    edge: str,
    functions: int,
    port: int = 0,
    slo_s: float = 1.0,
    spend: str = "",
    tenants: str = TENANTS,
    archive: str = "slo_s = 4.0",
    name: str = "edgeburst.toml",
) -> Path:
    """Writes a daemon's configuration."""
    (folder / "state").mkdir(exist_ok=True)
    path = folder / name
    values = {"edge": edge, "functions": functions, "port": port, "slo_s": slo_s, "spend": spend, "tenants": tenants}
    path.write_text(CONFIG.format(archive=archive, **values), encoding="utf-8")
    return path


@contextmanager
def page_world(
    folder: Path,
    *,
    slo_s: float = 1.0,
    spend: str = "per_hour = 50.0",
    tenants: str = TENANTS,
    archive: str = "slo_s = 4.0",
    alpha_s: float = 0.045,
    beta_s: float = 0.009,
    environ: Mapping[str, str] | None = None,
    shadow_slo_s: float | None = None,
) -> Iterator[PageWorld]:
    """Starts everything but the traffic; with a shadow, where its SLO is given."""
    delays = ("--alpha-s", str(alpha_s), "--beta-s", str(beta_s))
    with Child("functions") as functions, stub_edge_process(*delays) as edge:
        config = write_config(
            folder,
            edge=edge.url,
            functions=functions.said["port"],
            slo_s=slo_s,
            spend=spend,
            tenants=tenants,
            archive=archive,
        )
        options: tuple[str, ...] = ()
        if shadow_slo_s is not None:
            # Its addresses are not used.
            beside = write_config(
                folder, edge="http://127.0.0.1:1", functions=1, slo_s=shadow_slo_s, name="what-if.toml"
            )
            options = ("--shadow", str(beside))
        with daemon_process(config, environ={**stub_fc.KEYS, **(environ or {})}, options=options) as running:
            yield PageWorld(running, edge, functions, config)


if __name__ == "__main__":
    asyncio.run(serve_functions() if sys.argv[1] == "functions" else Senders(sys.argv[2], float(sys.argv[3])).run())
