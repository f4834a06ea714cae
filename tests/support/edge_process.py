"""A real edge server in a process of its own, on a free loopback port."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.hygiene import assert_no_faults

ROOT = Path(__file__).parents[2]
READY_LIMIT_S = 60
STOP_LIMIT_S = 30


@dataclass(frozen=True)
class EdgeProcess:
    """A running server, its address, and the socket on which it tells systemd how it is."""

    process: subprocess.Popen[str]
    ready: dict[str, object]
    notifications: socket.socket

    @property
    def address(self) -> str:
        """Return host:port."""
        return f"{self.ready['host']}:{self.ready['port']}"

    @property
    def url(self) -> str:
        """Return the URL's beginning."""
        return f"http://{self.address}"

    def stop(self) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.terminate()
        return self.process.wait(timeout=STOP_LIMIT_S)


def command(*options: str) -> list[str]:
    """Return the server's command line."""
    return [sys.executable, "-m", "edge_server", "--port", "0", *options]


@contextmanager
def running(*options: str, environ: dict[str, str] | None = None, may_fail: bool = False) -> Iterator[EdgeProcess]:
    """Start a server, hand it over once it is ready, and end it; unless it may fail, it logs no fault of its own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications,
        open(f"{folder}/log", "w+", encoding="utf-8", errors="replace") as log,
    ):
        path = f"{folder}/notify"
        notifications.bind(path)
        notifications.settimeout(READY_LIMIT_S)
        process = subprocess.Popen(
            command(*options),
            cwd=ROOT,
            env={**os.environ, "NOTIFY_SOCKET": path, **(environ or {})},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            assert process.stdout is not None
            yield EdgeProcess(process, json.loads(process.stdout.readline()), notifications)
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()
            log.seek(0)
            said = log.read()
            sys.stderr.write(said)
        if not may_fail:
            assert_no_faults(said)


def refused(*options: str) -> subprocess.CompletedProcess[str]:
    """Run a server that cannot start, to its end."""
    return subprocess.run(
        command(*options), cwd=ROOT, capture_output=True, text=True, timeout=READY_LIMIT_S, check=False
    )


def options_of_a_quick_server() -> Sequence[str]:
    """Return options that keep a test machine's cores for others."""
    return ("--torch-threads", "1", "--decode-threads", "2", "--max-batch", "32", "--log-level", "warning")
