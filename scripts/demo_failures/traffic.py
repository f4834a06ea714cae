"""Clients of the daemon: `edgeburst replay` in a process of its own, ended when a scene is over."""

from __future__ import annotations

import csv
import itertools
import json
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from scripts.demo.errors import DemoError
from scripts.demo.processes import Processes, Running

_LONGEST_S = 300
_END_LIMIT_S = 60.0
_INTERRUPTED = 130
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Sent:
    """What clients got.

    Attributes:
        rows: one for each request that had ended: `requests.csv` of the replay.
        summary: of the replay.
    """

    rows: Sequence[Mapping[str, str]]
    summary: Mapping[str, Any]

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many requests had ended, were answered, and were refused."""
        return len(self.rows), self.answered, self.refused

    @property
    def within(self) -> float:
        """Share of the requests that were answered within the SLO; 0 without any."""
        return sum(row["within_slo"] == "True" for row in self.rows) / len(self.rows) if self.rows else 0.0

    @property
    def answered(self) -> int:
        """How many were answered."""
        return sum(row["status"] == "200" for row in self.rows)

    @property
    def refused(self) -> int:
        """How many were refused in a sentence: 429, 503 or 504."""
        return sum(row["status"] in ("429", "503", "504") for row in self.rows)

    @property
    def others(self) -> list[str]:
        """What else happened to requests: none may be lost, or fail."""
        return [f"{row['status']} {row['error']}" for row in self.rows if row["status"] not in _ENDS]


_ENDS = ("200", "429", "503", "504")


class Traffic:
    """Poisson requests for a model until the end of the block; `sent` then has what they got.

    Args:
        processes: starts the clients.
        url: the daemon.
        folder: for the results.
        tenants: requests a second of each tenant; each has clients of its own.
        slo_s: within which answers count as in time.
    """

    def __init__(
        self, processes: Processes, url: str, folder: Path, tenants: Mapping[str, float], *, slo_s: float
    ) -> None:
        self._processes, self._url, self._folder = processes, url, folder
        self._tenants, self._slo_s = tenants, slo_s
        self._running: list[tuple[Running, Path]] = []
        self.sent = Sent([], {})

    def __enter__(self) -> Traffic:
        """Starts the clients, and waits until they send."""
        for tenant, rate_rps in self._tenants.items():
            name = f"clients-{next(_numbers)}-{tenant}"
            out = self._folder / name
            options = ["--url", self._url, "--model", "digits", "--pattern", "poisson", "--rps", f"{rate_rps:g}"]
            options += ["--duration-s", f"{_LONGEST_S}", "--slo-s", f"{self._slo_s:g}", "--tenant", tenant]
            command = ["scheduler.cli", "replay", *options, "--out", str(out), "--json", "--quiet"]
            self._running.append((self._processes.start(name, command), out))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the clients as Ctrl-C does, and reads what they got.

        Raises:
            DemoError: they failed.
        """
        for running, _ in self._running:
            if running.process.poll() is None:
                running.process.send_signal(signal.SIGINT)
        if kind is not None:
            return
        rows: list[Mapping[str, str]] = []
        summary: Mapping[str, Any] = {}
        for running, out in self._running:
            try:
                status = running.process.wait(_END_LIMIT_S)
            except subprocess.TimeoutExpired:
                raise DemoError(f"{running.name} did not end within {_END_LIMIT_S:g} s; see {running.log}") from None
            if status != _INTERRUPTED:
                raise DemoError(f"{running.name} failed: {running.last_words()}; see {running.log}")
            with (out / "requests.csv").open(encoding="utf-8", newline="") as file:
                rows += list(csv.DictReader(file))
            summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        self.sent = Sent(rows, summary)
