"""A real daemon in a process of its own, on a free loopback port, with a stub edge server in another."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import operators
from support.accounting import assert_accounted
from support.hygiene import assert_no_faults, python_path

from scheduler.daemon.admin_socket import ask

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0
"""For whatever a process is waited for; only a machine that is stuck takes so long."""


@dataclass
class Running:
    """A process that has printed its ready line."""

    process: "subprocess.Popen[str]"
    port: int
    notifications: socket.socket | None = None
    log_path: Path | None = None
    ready: Mapping[str, Any] = field(default_factory=dict)
    """Its ready line."""
    told_to_end: bool = False
    """Whether it was sent a signal after which it answers no questions."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def signal(self, number: int) -> None:
        self.told_to_end |= number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGSTOP)
        self.process.send_signal(number)

    def assert_accounted(self) -> None:
        """Checks that each request that arrived has ended once, or waits still."""

        def read(path: str) -> str:
            if "admin_socket" in self.ready:
                return str(ask(Path(self.ready["admin_socket"]), path)[1], "utf-8")
            port = self.ready.get("read_port", self.port)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=LIMIT_S) as response:
                return str(response.read(), "utf-8")

        assert_accounted(lambda: read("/metrics"), lambda: int(json.loads(read("/v1/status"))["waiting_requests"]))

    def exit_status(self) -> int:
        return self.process.wait(timeout=LIMIT_S)

    @property
    def log(self) -> str:
        return self.log_path.read_text() if self.log_path else ""

    def notification(self, wanted: str) -> str:
        """Waits for the datagram that begins so, over the watchdog's."""
        assert self.notifications is not None
        while True:
            text = self.notifications.recv(4096).decode()
            if text.startswith(wanted):
                return text


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child: ours, without proxies, able to import what is tested."""
    proxies = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"}
    kept = {name: value for name, value in os.environ.items() if name not in proxies}
    return {**kept, "PYTHONPATH": python_path(ROOT, ROOT / "tests"), **extra}


@contextmanager
def stub_edge_process(*options: str) -> Iterator[Running]:
    """Starts a stub edge server and ends it."""
    command = [sys.executable, "-m", "scripts.support.stub_edge", *options]
    with _started(command, {}, None) as process:
        ready = _ready(process)
        yield Running(process, int(ready["port"]), ready=ready)


@contextmanager
def daemon_process(
    config: Path, *, environ: Mapping[str, str] | None = None, options: Sequence[str] = ()
) -> Iterator[Running]:
    """Starts a daemon, hands it over when it is ready, and ends it."""
    folder = config.parent
    address = folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
        notifications.bind(str(address))
        notifications.settimeout(LIMIT_S)
        extra = {"NOTIFY_SOCKET": str(address), **operators.ENVIRON, **(environ or {})}
        log_path = folder / "daemon.log"
        try:
            with _started([*serve_command(config), *options], extra, log_path) as process:
                ready = _ready(process)
                running = Running(process, int(ready["port"]), notifications, log_path, ready)
                yield running
                if process.poll() is None and not running.told_to_end:
                    running.assert_accounted()
            assert_no_faults(running.log)
        finally:
            address.unlink()


def serve_command(config: Path) -> list[str]:
    """The daemon's command line."""
    return [sys.executable, "-m", "scheduler.cli", "serve", "--config", str(config)]


def refused_start(config: Path, environ: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Runs a daemon that cannot start to its end."""
    return subprocess.run(
        serve_command(config),
        cwd=config.parent,
        env=environment(environ or {}),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@contextmanager
def _started(command: list[str], extra: Mapping[str, str], log_path: Path | None) -> "Iterator[subprocess.Popen[str]]":
    log = log_path.open("w") if log_path else None
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(extra), stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=LIMIT_S)
        assert process.stdout is not None
        process.stdout.close()
        if log:
            log.close()


def _ready(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], LIMIT_S)
    line = process.stdout.readline() if readable else ""
    if not line:
        raise AssertionError(f"{process.args} did not get ready")
    ready: dict[str, Any] = json.loads(line)
    assert ready["event"] == "ready"
    return ready


def until(condition: Callable[[], bool], what: str) -> None:
    """Polls a condition until it holds."""
    give_up_s = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > give_up_s:
            raise AssertionError(f"this never came: {what}")
        time.sleep(0.01)
