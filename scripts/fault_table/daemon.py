"""The daemon of one row: its configuration, its process, what it counted and what it logged."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from scripts.demo.processes import Running
from scripts.fault_table.neighbours import (
    EDGE_PROFILE,
    FUNCTION_PROFILE,
    INSTANCES,
    KEY,
    LIMIT_S,
    OPENER,
    SECRET,
    Neighbours,
    asked,
)

BAD_LINES = re.compile(r"_bug\b|Traceback|never awaited|never retrieved")
_COUNTS = {"arrived": "edgeburst_arrivals_total", "ended": "edgeburst_requests_total"}


@dataclass(frozen=True, slots=True)
class Settings:
    """What differs between the daemons of rows."""

    edge: str = ""
    """Its URL; empty: none."""
    endpoint: str = ""
    """HOST:PORT of the functions; empty: none."""
    slo_s: float = 1.0
    late: str = "refuse"
    state: Path | None = None
    explain: Path | None = None
    spend_per_hour: float | None = None

    def toml(self, port: int) -> str:
        """Returns the configuration file."""
        lines = ["[daemon]", f"port = {port}", f'late = "{self.late}"', "drain_limit_s = 10"]
        if self.state:
            lines.append(f'state = "{self.state}"')
        if self.explain:
            lines += ["[explain]", f'file = "{self.explain}"']
        if self.spend_per_hour is not None:
            lines += ["[spend]", f"per_hour = {self.spend_per_hour}"]
        if self.edge:
            lines += ["[edge]", f'url = "{self.edge}"']
        if self.endpoint:
            lines += ["[function]", f'endpoint = "{self.endpoint}"', 'protocol = "http"', 'region = "cn-hangzhou"']
            lines += ['access_key_id_env = "FAULTS_KEY_ID"', 'access_key_secret_env = "FAULTS_KEY_SECRET"']
        lines += ["[[model]]", 'name = "digits"', f'edge_profile = "{EDGE_PROFILE}"' if self.edge else ""]
        lines += ["[[model.class]]", f"slo_s = {self.slo_s}", "percentile = 0.99"]
        if self.endpoint:
            lines += ["[[model.tier]]", 'name = "1gb"', 'function = "digits"', f'profile = "{FUNCTION_PROFILE}"']
            lines += ["memory_gb = 1.0", f"max_in_flight = {INSTANCES}"]
        return "\n".join(lines) + "\n"


class Daemon:
    """One daemon and its successors on the same port."""

    def __init__(self, neighbours: Neighbours, folder: Path, settings: Settings) -> None:
        """Stores what it is started with."""
        self._neighbours = neighbours
        self._config = folder / "edgeburst.toml"
        self.settings = settings
        self.port = 0
        self.lives: list[Running] = []
        self.told_to_die: set[int] = set()
        """Indices of the lives that were killed."""

    @property
    def running(self) -> Running:
        """The latest life."""
        return self.lives[-1]

    def write(self, settings: Settings) -> None:
        """Writes the configuration anew."""
        self.settings = settings
        self._config.write_text(settings.toml(self.port))

    def start(
        self,
        *options: str,
        before: Sequence[str] = (),
        wait: bool = True,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Starts a life."""
        self.write(self.settings)
        keys = {"FAULTS_KEY_ID": KEY, "FAULTS_KEY_SECRET": SECRET, **variables}
        command = ["scheduler.cli", "serve", "--config", str(self._config), *options]
        self.lives.append(self._neighbours.start("daemon", command, before=before, **keys))
        if wait:
            self.port = int(self.running.wait_for("ready", limit_s=LIMIT_S)["port"])

    def kill(self) -> None:
        """Kills the latest life."""
        self.told_to_die.add(len(self.lives) - 1)
        self.running.process.kill()
        self.running.process.wait(LIMIT_S)

    def signal(self, number: signal.Signals, *, life: int = -1) -> None:
        """Sends a life a signal."""
        self.lives[life].process.send_signal(number)

    def unaccounted(self) -> str:
        """Returns what does not add up in its counts; empty: all is well."""
        end_s = time.monotonic() + 10
        while True:
            with OPENER.open(f"http://127.0.0.1:{self.port}/metrics", timeout=20) as answer:
                text = answer.read().decode()
            counts = {
                name: sum(float(v) for v in re.findall(rf"^{metric}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))
                for name, metric in _COUNTS.items()
            }
            waiting = int(asked(f"http://127.0.0.1:{self.port}/v1/status")["waiting_requests"])
            if counts["arrived"] == counts["ended"] and not waiting:
                return ""
            if time.monotonic() > end_s:
                return f"{counts['arrived']:g} arrived, {counts['ended']:g} ended, {waiting} wait"
            time.sleep(0.1)

    def end(self) -> list[str]:
        """Stops it; returns what is wrong: counts, exit statuses and lines that name faults of the program."""
        wrong = []
        try:
            if found := self.unaccounted():
                wrong.append(found)
        except OSError as error:
            wrong.append(f"the daemon does not answer: {error}")
        for index, life in enumerate(self.lives):
            status = life.stop()
            if status != 0 and index not in self.told_to_die:
                wrong.append(f"a daemon ended with {status}: {life.last_words()}")
            log = life.log.read_text(errors="replace")
            wrong += [f"in the log: {line[:200]}" for line in log.splitlines() if BAD_LINES.search(line)][:3]
        return wrong

    def log(self) -> str:
        """Returns the log of all its lives."""
        return "".join(life.log.read_text(errors="replace") for life in self.lives)
