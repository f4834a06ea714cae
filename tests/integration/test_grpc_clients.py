"""Triton's own gRPC clients, as processes of their own, ask a real daemon for everything they know."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from support.daemon_process import Running, daemon_process, environment, refused_start, stub_edge_process, until

pytestmark = pytest.mark.xdist_group("serve")

ROOT = Path(__file__).parents[2]
CONFIG = """
[daemon]
port = 0
body_limit_bytes = 2000000
[grpc]
port = {grpc_port}
[edge]
url = "{edge}"
[[model]]
name = "digits"
max_items = 16
edge_profile = "orin-resnet50"
priority_levels = 3
default_priority = 2
[[model.class]]
name = "default"
slo_s = 20.0
[[model.class]]
name = "other"
slo_s = 20.0
"""
CHECKS = re.findall(
    r"^@check\ndef (\w+)\(", (ROOT / "tests/support/triton_grpc_checks.py").read_text(encoding="utf-8"), re.MULTILINE
)


def written(folder: Path, edge: Running, *, grpc_port: int = 0) -> Path:
    path = folder / "edgeburst.toml"
    path.write_text(CONFIG.format(edge=edge.url, grpc_port=grpc_port))
    return path


@pytest.fixture(scope="module")
def edge() -> Iterator[Running]:
    with stub_edge_process() as running:
        yield running


@pytest.fixture(scope="module")
def daemon(edge: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with daemon_process(written(tmp_path_factory.mktemp("grpc"), edge)) as running:
        yield running


def client_process(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, *words]
    return subprocess.Popen(command, cwd=ROOT, env=environment({}), stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def found(daemon: Running) -> dict[str, dict[str, str]]:
    """What both clients found, each in a process of its own that asks for all."""
    address = f"127.0.0.1:{daemon.ready['grpc_port']}"
    clients = {kind: client_process("-m", "support.triton_grpc_checks", kind, address) for kind in ("sync", "aio")}
    results = {}
    for kind, process in clients.items():
        output, _ = process.communicate(timeout=150)
        results[kind] = json.loads(output)
    return results


@pytest.mark.parametrize("kind", ["sync", "aio"])
@pytest.mark.parametrize("check", CHECKS)
def test_tritons_client(found: dict[str, dict[str, str]], kind: str, check: str) -> None:
    assert found[kind][check] == "", f"\n{found[kind][check]}"


def test_both_clients_made_every_check(found: dict[str, dict[str, str]]) -> None:
    assert {kind: list(checks) for kind, checks in found.items()} == {"sync": CHECKS, "aio": CHECKS}


def test_the_listener_is_told_to_operators(daemon: Running) -> None:
    port = daemon.ready["grpc_port"]
    assert f"grpc_port={port}" in daemon.log
    assert f"gRPC at 127.0.0.1:{port}" in daemon.notification("READY=1")
    status = requests.get(f"{daemon.url}/v1/status", timeout=10).json()
    assert status["grpc"] == f"127.0.0.1:{port}"
    assert 'edgeburst_grpc_errors_total{code="NOT_FOUND"}' in requests.get(f"{daemon.url}/metrics", timeout=10).text


def test_a_port_that_is_taken_is_one_sentence(daemon: Running, edge: Running, tmp_path: Path) -> None:
    port = daemon.ready["grpc_port"]
    done = refused_start(written(tmp_path, edge, grpc_port=port))
    assert done.returncode == 2
    assert f"cannot listen for gRPC on 127.0.0.1:{port}; stop the program that listens there" in done.stderr
    assert "Traceback" not in done.stderr


HOLDS = """
import sys, numpy as np, tritonclient.grpc as triton
client = triton.InferenceServerClient(sys.argv[1])
image = triton.InferInput("image", [1], "BYTES")
image.set_data_from_numpy(np.array([b"x" * 100], dtype=np.object_))
print("sending", flush=True)
print(client.infer("digits", [image]).as_numpy("probabilities").shape)
"""


def test_a_stop_answers_what_was_accepted_and_a_reload_says_what_needs_a_restart(edge: Running, tmp_path: Path) -> None:
    path = written(tmp_path, edge)
    requests.post(f"{edge.url}/control", json={"alpha_s": 1.0}, timeout=10)
    try:
        with daemon_process(path) as running:
            address = f"127.0.0.1:{running.ready['grpc_port']}"
            written(tmp_path, edge, grpc_port=1)
            running.signal(signal.SIGHUP)
            until(lambda: "reloaded" in running.log, "the reload")
            assert "needs_restart=grpc" in running.log
            client = client_process("-c", HOLDS, address)
            assert client.stdout is not None
            assert client.stdout.readline() == "sending\n"
            status = f"{running.url}/v1/status"
            until(
                lambda: requests.get(status, timeout=10).json()["requests"]["arrived"] == 1, "the request of the client"
            )
            running.signal(signal.SIGTERM)
            assert client.communicate(timeout=60)[0] == "(1, 10)\n"
            assert running.exit_status() == 0
            assert "drained refused=0" in running.log
    finally:
        requests.post(f"{edge.url}/control", json={"alpha_s": 0.0}, timeout=10)
