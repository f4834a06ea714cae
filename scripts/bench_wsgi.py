"""Compares WSGI servers for the edge server and the function's container, in processes of their own.

Each serves the same application: it reads a batch of 16 items of 24 KB and answers with 2 KB. CPU time counts the whole
process; the least of several turns is shown, for other load of the machine only adds to it. The servers' packages go
into an environment of their own:

    python3 -m venv out/wsgi
    out/wsgi/bin/pip install waitress cheroot gunicorn granian hypercorn uvicorn a2wsgi aiohttp httptools
    python -m scripts.bench_wsgi --python out/wsgi/bin/python
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from scheduler.terminal import counted
from scripts.edge_bench.servers import called, table
from scripts.support.script import run_script
from scripts.wsgi_bench import hostile
from scripts.wsgi_bench.serve import SERVERS

_SERVE = Path(__file__).parent / "wsgi_bench" / "serve.py"
_BODY = bytes(16 * 24 * 1024)
_CONNECTIONS = 3
_START_LIMIT_S = 20.0
COLUMNS = (
    "server",
    "version",
    "CPU ms",
    "/s",
    "MB",
    "of hostile requests served",
    "beside 100 idle",
    "100 half headers",
    "100 half bodies",
    "slow header ends",
)


class _Call:
    """A kept connection that sends the same request again and again."""

    def __init__(self, port: int) -> None:
        head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(_BODY)}\r\n\r\n"
        self._request = head.encode() + _BODY
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(self) -> float:
        """Sends and reads the answer; returns the seconds."""
        began_s = time.perf_counter()
        self._socket.sendall(self._request)
        received = b""
        while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < 2048:
            part = self._socket.recv(65536)
            if not part:
                raise OSError("the server has closed the connection")
            received += part
        return time.perf_counter() - began_s

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()


@dataclass
class _Server:
    """A server under test: its process, its port, and CPU seconds for a request and requests a second, by turn."""

    name: str
    version: str
    process: psutil.Popen
    port: int
    cpu_s: list[float] = field(default_factory=list)
    per_s: list[float] = field(default_factory=list)

    def turn(self, seconds: float) -> None:
        """Calls it for so many seconds."""
        connections = [_Call(self.port) for _ in range(_CONNECTIONS)]
        try:
            before_s = self._cpu_s()
            calls = called(connections, seconds)
            self.cpu_s.append((self._cpu_s() - before_s) / len(calls.latencies_s))
            self.per_s.append(calls.per_s)
        finally:
            for connection in connections:
                connection.close()

    def cells(self) -> tuple[str, ...]:
        """Asks it for the rest, and returns its row."""
        memory = sum(each.memory_info().rss for each in self._processes()) / 1e6
        served = hostile.served(self.port)
        half = b"GET / HTTP/1.1\r\nHost: x\r\n"
        body = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na"
        newcomers = (hostile.newcomer_s(self.port, sent) for sent in (b"", half, body))
        ends_s = hostile.cut_off_s(self.port, 25.0)
        return (
            self.name,
            self.version,
            f"{min(self.cpu_s) * 1e3:.2f}",
            f"{max(self.per_s):.0f}",
            f"{memory:.0f}",
            f"{len(served)} of {len(hostile.REFUSED)}",
            *("not in 2 s" if took_s is None else f"{took_s * 1e3:.0f} ms" for took_s in newcomers),
            "no" if ends_s is None else f"{ends_s:.0f} s",
        )

    def _processes(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def _cpu_s(self) -> float:
        return sum(sum(each.cpu_times()[:2]) for each in self._processes())


def main() -> int:
    """Measures and prints the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the servers (default this one)")
    parser.add_argument("--servers", default=",".join(SERVERS), metavar="NAME,...", help="default: all")
    parser.add_argument("--turns", type=int, default=3, metavar="N", help="turns of each (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.5, metavar="S", help="of a turn (default %(default)g)")
    given = parser.parse_args()
    with ExitStack() as stack:
        servers = [
            stack.enter_context(_running(name, version, given.python))
            for name in given.servers.split(",")
            if (version := _version(name, given.python)) is not None
        ]
        for _ in counted(range(given.turns), "measuring", "turns"):
            for server in servers:
                server.turn(given.seconds)
        print("\n".join(table(COLUMNS, [server.cells() for server in servers])))
    return 0


def _version(name: str, python: str) -> str | None:
    if name == "edgeburst":
        return "this tree"
    code = f"import importlib.metadata; print(importlib.metadata.version({name!r}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"bench_wsgi: {name} is not installed there and is left out", file=sys.stderr)
        return None
    return done.stdout.strip()


@contextmanager
def _running(name: str, version: str, python: str) -> Iterator[_Server]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # Ours is that of this tree.
    environ = {**os.environ, "PYTHONPATH": str(_SERVE.parents[2])}
    process = psutil.Popen([python, str(_SERVE), name, str(port)], env=environ, stderr=subprocess.DEVNULL)
    try:
        end_s = time.monotonic() + _START_LIMIT_S
        while hostile.status_of(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") != 200:
            if time.monotonic() > end_s or process.poll() is not None:
                raise SystemExit(f"bench_wsgi: {name} does not answer")
            time.sleep(0.1)
        yield _Server(name, version, process, port)
    finally:
        for each in [*process.children(recursive=True), process]:
            each.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(run_script("bench_wsgi", main))
