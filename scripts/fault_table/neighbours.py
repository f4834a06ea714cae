"""The daemon's neighbours: a real edge server, a local endpoint with real containers, and liars before them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from scripts.demo.processes import Processes, Running

ROOT = Path(__file__).parents[2]
KEY, SECRET = "demo", "demo-secret"
EDGE_PROFILE, FUNCTION_PROFILE = "orin-resnet50", "fc-resnet50-1gb"
INSTANCES = 4
LIMIT_S = 90.0
PORTS = (20_000, 30_000)
"""Below those that systems give to clients."""
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))

_ENDPOINT = """
[access_keys]
{key} = "{secret}"
[account]
region = "cn-hangzhou"
max_instances = {most}
[images.liar]
command = ["{python}", "-m", "scripts.fault_table.liar"]
env = {{ PYTHONPATH = "{root}", LIAR_MODE = "{mode}" }}
[[function]]
functionName = "digits"
runtime = "custom-container"
handler = "index.handler"
cpu = 1
memorySize = 1024
diskSize = 512
timeout = 60
instanceConcurrency = 1
customContainerConfig = {{ image = "liar" }}
instanceLifecycleConfig = {{ initializer = {{ handler = "index.initialize", timeout = 120 }} }}
environmentVariables = {{ MODEL = "digits", OMP_NUM_THREADS = "1", EDGEBURST_EMULATE = "{profile}" }}
provisionConfig = {{ defaultTarget = {instances} }}
"""


def until(condition: Callable[[], object], what: str, *, limit_s: float = LIMIT_S) -> None:
    """Polls a condition until it holds.

    Raises:
        RuntimeError: it did not within the limit.
    """
    end_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end_s:
            raise RuntimeError(f"this never came: {what}")
        time.sleep(0.05)


def asked(url: str, content: object = None, *, method: str = "") -> Any:
    """Asks a process of ours and returns the JSON that it answers."""
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, data=data, method=method or None)
    with OPENER.open(request, timeout=20) as answer:
        return json.loads(answer.read() or b"null")


class Neighbours:
    """Starts the neighbours on first use, keeps them over the rows, and starts again what a row has killed."""

    def __init__(self, folder: Path, processes: Processes, *, edge_profile: str = EDGE_PROFILE) -> None:
        """Stores where files go, what starts processes, and which profile the edge server emulates."""
        self._edge_profile = edge_profile
        self._folder = folder
        self._processes = processes
        self._started = 0
        self.edge: Running | None = None
        self.endpoint: Running | None = None
        self._liar: Running | None = None
        self.edge_port = _free_port()
        self.liar_port = 0
        self.endpoint_port = _free_port()
        self.edge_mode = folder / "edge-mode"
        self.function_mode = folder / "function-mode"
        self._edge_options: tuple[str, ...] = ()
        self.tell_truth()

    def tell_truth(self) -> None:
        """Has both liars pass everything on."""
        self.edge_mode.write_text("")
        self.function_mode.write_text("")

    def start(self, name: str, arguments: Sequence[str], *, before: Sequence[str] = (), **variables: str) -> Running:
        """Starts a process under a name that no other has."""
        self._started += 1
        return self._processes.start(f"{self._started:03d}-{name}", arguments, before=before, **variables)

    def restore(self, *, edge: bool, function: bool) -> None:
        """Makes those that a row needs run and tell the truth."""
        self.tell_truth()
        if edge:
            self.restore_edge()
        if function:
            self.restore_endpoint()
            asked(f"http://127.0.0.1:{self.endpoint_port}/admin/faults", method="DELETE")
            until(lambda: len(self.instances()) >= INSTANCES, "warm instances of the function")

    def restore_edge(self, *options: str) -> None:
        """Starts the edge server on its port, where it does not run with these options, and waits for it."""
        if not self._runs(self.edge) or self._edge_options != options:
            self.end_edge()
            self.start_edge(*options)
        assert self.edge is not None
        self.edge.wait_for("ready", limit_s=LIMIT_S)
        if self._liar is None:
            mode = str(self.edge_mode)
            place = ["scripts.fault_table.liar", "--mode", mode, "--upstream", str(self.edge_port)]
            self._liar = self.start("liar", place, PYTHONPATH=str(ROOT))
            self.liar_port = int(self._liar.wait_for("ready", limit_s=LIMIT_S)["port"])

    def start_edge(self, *options: str) -> None:
        """Starts the edge server and does not wait for it."""
        self._edge_options = options
        place = ["--port", str(self.edge_port), "--model", "digits", "--emulate", self._edge_profile]
        quiet = ["--torch-threads", "1", "--decode-threads", "1"]
        self.edge = self.start("edge", ["edge_server", *place, *quiet, *options])

    def end_edge(self, number: int = signal.SIGKILL) -> None:
        """Ends the edge server."""
        if self.edge is not None and self._runs(self.edge):
            os.kill(self.edge.process.pid, number)
            self.edge.process.wait(LIMIT_S)

    def restore_endpoint(self) -> None:
        """Starts the endpoint on its port, where it does not run."""
        if self._runs(self.endpoint):
            self.endpoint.wait_for("ready", limit_s=LIMIT_S)
            return
        config = self._folder / "local-fc.toml"
        config.write_text(
            _ENDPOINT.format(
                key=KEY,
                secret=SECRET,
                most=4 * INSTANCES,
                python=sys.executable,
                root=ROOT,
                mode=self.function_mode,
                profile=FUNCTION_PROFILE,
                instances=INSTANCES,
            )
        )
        place = ["--config", str(config), "--port", str(self.endpoint_port), "--uplink-mbit-per-s", "8"]
        self.endpoint = self.start("local-fc", ["serverless_fn.local_fc", *place])
        self.endpoint.wait_for("ready", limit_s=LIMIT_S)

    def end_endpoint(self, number: int = signal.SIGKILL) -> None:
        """Ends the endpoint; with SIGKILL its containers, which it cannot end then, too."""
        if self.endpoint is None or not self._runs(self.endpoint):
            return
        children = [] if number == signal.SIGTERM else self.containers()
        os.kill(self.endpoint.process.pid, number)
        for group in children:
            kill_group(group)
        self.endpoint.process.wait(LIMIT_S)

    def instances(self) -> list[dict[str, Any]]:
        """Returns the running instances of the function."""
        found = asked(f"http://127.0.0.1:{self.endpoint_port}/admin/instances")["instances"]
        return [each for each in found if each["status"] == "Running"]

    def containers(self) -> list[int]:
        """Returns the process groups of the containers."""
        assert self.endpoint is not None
        pid = self.endpoint.process.pid
        found = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True, check=False)
        return [int(each) for each in found.stdout.split()]

    def fault(self, **fault: object) -> None:
        """Has the endpoint misbehave."""
        asked(f"http://127.0.0.1:{self.endpoint_port}/admin/faults", fault)

    def no_fault(self) -> None:
        """Has the endpoint behave."""
        asked(f"http://127.0.0.1:{self.endpoint_port}/admin/faults", method="DELETE")

    @staticmethod
    def _runs(running: Running | None) -> TypeGuard[Running]:
        return running is not None and running.process.poll() is None


def _free_port() -> int:
    """Returns a port that no connection of a client takes while the server on it is away."""
    for port in random.sample(range(*PORTS), 50):
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"no port from {PORTS[0]} to {PORTS[1]} is free")


def kill_group(group: int) -> None:
    """Kills a process and its children."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
