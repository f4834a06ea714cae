"""Real servers of others behind a real daemon, and their real clients before it: nothing of either is ours."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.daemon_process import LIMIT_S, Running, daemon_process, environment, until

HERE = Path(__file__).parent
PYTHON = os.environ.get("EDGEBURST_PEERS", "")
MOST = 8
FORMS = {"kserve": {"sums": "binary", "sizes": "json"}, "mlserver": {"sums": "json", "sizes": "json"}}
"""KServe takes binary numbers, but no binary bytes that are not text; MLServer takes nothing binary."""
MODELS = """
[[model]]
name = "sums"
edge_profile = "orin-resnet50"
inputs = [{ name = "x", datatype = "FP32", shape = [4] }]
outputs = [{ name = "sum", datatype = "FP32", shape = [1] }]
[[model.class]]
slo_s = 60.0

[[model]]
name = "sizes"
edge_profile = "orin-resnet50"
inputs = [{ name = "image", datatype = "BYTES", picture = true }]
outputs = [{ name = "bytes", datatype = "INT64", shape = [1] }]
[[model.class]]
slo_s = 60.0
"""


@dataclass(frozen=True)
class Peer:
    """A server of others."""

    name: str
    url: str
    log: Path


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


@contextmanager
def peer_process(name: str, folder: Path) -> Iterator[Peer]:
    """Starts a server and ends it."""
    port, *more = free_ports(3)
    command = [PYTHON, str(HERE / "servers" / f"{name}_server.py"), str(port), str(MOST), *map(str, more)]
    peer = Peer(name, f"http://127.0.0.1:{port}", folder / f"{name}.log")
    with peer.log.open("w") as log:
        # In a folder of its own: MLServer reads settings from the present one.
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=bare_environment())
        try:
            until(lambda: is_ready(peer, process), f"{name} ready")
            yield peer
        finally:
            process.kill()
            process.wait(timeout=LIMIT_S)


def bare_environment() -> dict[str, str]:
    """Without our code: what is imported is the peers' alone."""
    return {name: value for name, value in environment({}).items() if name != "PYTHONPATH"}


def is_ready(peer: Peer, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, peer.log.read_text()
    try:
        with urllib.request.urlopen(f"{peer.url}/v2/models/sums/ready", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        time.sleep(0.2)
        return False


@pytest.fixture(scope="module", params=sorted(FORMS))
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    with peer_process(request.param, tmp_path_factory.mktemp(request.param)) as started:
        yield started


def written(folder: Path, url: str, more: str = "") -> Path:
    path = folder / "edgeburst.toml"
    path.write_text(f'[daemon]\nport = 0\nstate = "state"\n[edge]\nurl = "{url}"\n{more}{MODELS}')
    return path


def body(model: str, number: int) -> tuple[dict[str, Any], list[int]]:
    """The request of a number, and what its answer must hold."""
    if model == "sums":
        return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [number, 1, 2, 3]}]}, [number + 6]
    # Not text in any encoding that a server could guess.
    picture = base64.b64encode(b"\x89PNG\xff\xfe" + bytes(number)).decode()
    return {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [picture]}]}, [number + 6]


def burst(daemon: Running, model: str, numbers: range) -> None:
    """Sends requests at once; each gets its own right answer."""

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        given, wanted = body(model, number)
        async with session.post(f"{daemon.url}/v2/models/{model}/infer", json=given) as response:
            answer = await response.json()
            assert response.status == 200, answer
            assert answer["outputs"][0]["data"] == wanted

    async def main() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(one(session, number) for number in numbers))

    asyncio.run(main())


def asked(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=LIMIT_S) as response:
        return json.loads(response.read())


def batches(daemon: Running) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = asked(f"{daemon.url}/v1/batches")["batches"]
    return found


@pytest.mark.parametrize("model", ["sums", "sizes"])
def test_tensors_and_batches_of_a_real_server_are_learned_lose_no_request_and_outlive_the_daemon(
    peer: Peer, model: str, tmp_path: Path
) -> None:
    config = written(tmp_path, peer.url)
    with daemon_process(config) as daemon:
        burst(daemon, model, range(1))
        for first in range(0, 240, 40):
            burst(daemon, model, range(first, first + 40))
        status = asked(f"{daemon.url}/v1/status")
        assert status["edge"]["server"].startswith(peer.name)
        # That of the other model is learned from the trial at the start.
        assert status["edge"]["learned_tensors"] == FORMS[peer.name]
        assert status["engine"]["edge_up"]
        [limit] = status["engine"]["edge_limits"]
        source = "named" if model == "sums" else "searched"
        assert limit == {"model": model, "edge": "main", "items": MOST, "source": source, "settled": True}
        tail = batches(daemon)[-5:]
        assert [batch["error"] for batch in tail] == [""] * 5
        assert max(batch["items"] for batch in tail) == MOST
        daemon.signal(15)
        assert daemon.exit_status() == 0
    with daemon_process(config) as daemon:
        burst(daemon, model, range(80))
        assert " batch_failed " not in daemon.log
        assert " edge_tensors_learned " not in daemon.log
        assert max(batch["items"] for batch in batches(daemon)) == MOST


def run_client(name: str, address: str) -> Any:
    command = [PYTHON, str(HERE / "clients" / f"{name}.py"), address]
    finished = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT_S, env=bare_environment(), check=False
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


EXPECTED = {"live": True, "ready": True, "model": True, "json": ["seven", 6, 22, 38], "binary": ["seven", 6, 22, 38]}


def test_kserves_rest_client_works_unchanged(peer: Peer, tmp_path: Path) -> None:
    with daemon_process(written(tmp_path, peer.url)) as daemon:
        assert run_client("kserve_rest", daemon.url) == EXPECTED


def test_kserves_grpc_client_works_unchanged(peer: Peer, tmp_path: Path) -> None:
    [port] = free_ports(1)
    with daemon_process(written(tmp_path, peer.url, f"[grpc]\nport = {port}\n")):
        assert run_client("kserve_grpc", f"127.0.0.1:{port}") == EXPECTED
