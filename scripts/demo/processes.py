"""Processes of the demo: starts them, waits until they report that they are ready, stops them by their ids."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from scripts.demo.errors import DemoError

STOP_LIMIT_S = 30.0
_POLL_S = 0.05
_PR_SET_PDEATHSIG = 1
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
# Otherwise idle OpenMP threads of fifteen processes would occupy the cores that all processes share.
_QUIET_THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment of the processes of the demo.

    Proxy variables are removed, because the provider's SDK would use proxies also for loopback. EDGEBURST_* variables
    are removed, because they would override the daemon's configuration.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if name.lower() not in _PROXIES and not name.startswith("EDGEBURST_")
    }
    return {**kept, **_QUIET_THREADS}


@dataclass(frozen=True, slots=True)
class Running:
    """Running process.

    Attributes:
        name: name in messages and of its logs.
        process: the process.
        output: file of its standard output.
        log: file of its standard error.
    """

    name: str
    process: subprocess.Popen[bytes]
    output: Path
    log: Path

    def events(self) -> list[dict[str, Any]]:
        """Returns the JSON objects that it has printed so far; an incomplete last line is not returned."""
        lines = self.output.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith(b"{")]

    def wait_for(self, event: str, *, limit_s: float) -> dict[str, Any]:
        """Waits until it has printed an event, and returns the event.

        Raises:
            DemoError: it ended before, or the limit passed; the message has the last line of its log.
        """
        end_s = time.monotonic() + limit_s
        while True:
            ended = self.process.poll() is not None
            for found in self.events():
                if found.get("event") == event:
                    return found
            if ended:
                raise DemoError(f"{self.name} ended before it was {event}: {self.last_words()}; see {self.log}")
            if time.monotonic() > end_s:
                raise DemoError(f"{self.name} was not {event} within {limit_s:g} s; see {self.log}")
            time.sleep(_POLL_S)

    def wait_to_end(self, *, limit_s: float) -> None:
        """Waits until it has ended.

        Raises:
            DemoError: its exit status is not 0, or the limit passed.
        """
        try:
            status = self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise DemoError(f"{self.name} did not end within {limit_s:g} s; see {self.log}") from None
        if status != 0:
            raise DemoError(f"{self.name} failed: {self.last_words()}; see {self.log}")

    def last_words(self) -> str:
        """Returns the last line of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it logged nothing and its status was {self.process.poll()}"

    def stop(self, *, limit_s: float = STOP_LIMIT_S) -> int:
        """Sends SIGTERM, and SIGKILL after the limit; returns the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Processes:
    """Processes of one demo. The end of the `with` block stops them, the last started first.

    Args:
        logs: folder for their output and logs.
        environ: their environment.
    """

    def __init__(self, logs: Path, environ: Mapping[str, str]) -> None:
        self._logs = logs
        self._environ = environ
        self._running: list[Running] = []

    def start(self, name: str, arguments: Sequence[str], *, before: Sequence[str] = (), **variables: str) -> Running:
        """Starts `python -m` with arguments.

        Args:
            name: name of the process.
            arguments: the module and its arguments.
            before: a program that starts it, with arguments; it replaces itself by what follows.
            variables: additional environment variables of this process.
        """
        self._logs.mkdir(parents=True, exist_ok=True)
        output, log = self._logs / f"{name}.out", self._logs / f"{name}.log"
        # Files, not pipes: they need not be read while the process runs.
        with output.open("wb") as stdout, log.open("wb") as stderr:
            process = subprocess.Popen(
                [*before, sys.executable, "-m", *arguments],
                env={**self._environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                # A separate session: Ctrl-C reaches only the demo, which then stops the processes in order.
                start_new_session=True,
                preexec_fn=_die_with_parent(),
            )
        running = Running(name, process, output, log)
        self._running.append(running)
        return running

    def stop(self, running: Running) -> int:
        """Stops one process; returns its exit status."""
        self._running.remove(running)
        return running.stop()

    def __enter__(self) -> Processes:
        """Returns this object."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops all processes that still run."""
        with deaf_to_interrupts():
            while self._running:
                self._running.pop().stop()


def ignore_interrupts() -> Any:
    """Ignores SIGINT from now on; returns the handler before. One that had come already is dropped."""
    while True:
        try:
            return signal.signal(signal.SIGINT, signal.SIG_IGN)
        except KeyboardInterrupt:  # Python calls the handler of one that has come before it sets another
            continue


@contextlib.contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Ignores SIGINT within the block, so that a second Ctrl-C leaves no process running."""
    before = ignore_interrupts()
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _die_with_parent() -> Callable[[], None] | None:
    """Returns a function that lets a child get SIGTERM when the demo is killed; None except on Linux."""
    if not sys.platform.startswith("linux"):
        return None
    libc, parent = ctypes.CDLL(None, use_errno=True), os.getpid()

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)

    return prepare
