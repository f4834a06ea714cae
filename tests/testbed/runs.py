"""One run of the testbed: real processes around a shaped link, and the daemon's estimate of it beside the shaper."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.daemon_process import ROOT, environment, serve_command
from support.shaped_link import shaped_link

ITEM_BYTES = 40_000
ALPHA_S, BETA_S = 0.1, 0.03
SETTLING_S = 5.0
"""Not judged, at the start of a run: before the first answers nothing is known."""
FUNCTION_PORT, DAEMON_PORT = 9000, 9001
CONFIG = f"""
[daemon]
port = {DAEMON_PORT}
late = "{{late}}"
[function]
endpoint = "10.77.0.2:{FUNCTION_PORT}"
protocol = "http"
access_key_id_env = "TEST_KEY_ID"
access_key_secret_env = "TEST_KEY_SECRET"
[[model]]
name = "digits"
[[model.class]]
slo_s = 2.0
[[model.tier]]
name = "1gb"
function = "digits"
profile = "profile.json"
memory_gb = 1.0
max_in_flight = 16
"""
KEYS = {"TEST_KEY_ID": "an-id", "TEST_KEY_SECRET": "very-secret-secret"}


@dataclass(frozen=True)
class Run:
    """What the link does, and what is offered."""

    name: str
    shaper: tuple[tuple[float, float], ...]
    """Seconds since the start and bytes a second, ascending from 0."""
    load: float
    """Offered bytes in parts of the mean of the shaper."""
    seconds: float = 60.0
    late: str = "refuse"

    def __str__(self) -> str:
        return f"{self.name} x {self.load:g}"

    @property
    def mean_bytes_per_s(self) -> float:
        ends_s = [*(at_s for at_s, _ in self.shaper[1:]), self.seconds]
        parts = zip(self.shaper, ends_s, strict=True)
        return sum(rate * (end_s - at_s) for (at_s, rate), end_s in parts) / self.seconds


@dataclass
class Outcome:
    """What came of a run."""

    run: Run
    outcomes: dict[str, int]
    samples: list[tuple[float, float | None, float]] = field(default_factory=list)
    """Seconds since the start, the estimate and the shaper's bytes a second."""

    def errors(self) -> list[float]:
        """Of each sample after the first seconds: |estimate / shaper - 1|; 1 where nothing was estimated."""
        return [
            1.0 if estimate is None else abs(estimate / shaper - 1.0)
            for at_s, estimate, shaper in self.samples
            if at_s >= SETTLING_S
        ]

    @property
    def answered_bytes_per_s(self) -> float:
        """Bytes of answered requests for each second in which some were offered."""
        return self.outcomes.get("200", 0) * ITEM_BYTES / self.run.seconds

    @property
    def median_error(self) -> float:
        return statistics.median(self.errors())


def perform(run: Run, folder: Path, number: int = 0) -> Outcome:
    """Performs a run in namespaces of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "edgeburst.toml"
    config.write_text(CONFIG.format(late=run.late))
    (folder / "profile.json").write_text(json.dumps(profile()))
    processes: list[subprocess.Popen[str]] = []
    with shaped_link(number) as link, (folder / "log").open("w") as log:

        def start(command: list[str]) -> subprocess.Popen[str]:
            # What else this machine does is not to be measured.
            process = subprocess.Popen(
                ["nice", "-n", "-10", *command],
                cwd=ROOT,
                env=environment(KEYS),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            processes.append(process)
            return process

        def ready(process: subprocess.Popen[str]) -> None:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"{process.args} did not get ready: {(folder / 'log').read_text()[-2000:]}"
            assert json.loads(line)["event"] == "ready"

        try:
            link.shape(run.shaper[0][1])
            arguments = [link.server_address, str(FUNCTION_PORT), str(ALPHA_S), str(BETA_S)]
            ready(start(link.inside_server([sys.executable, "-m", "testbed.function_process", *arguments])))
            ready(start(link.inside_client(serve_command(config))))
            offered_rps = run.load * run.mean_bytes_per_s / ITEM_BYTES
            url = f"http://127.0.0.1:{DAEMON_PORT}"
            asked = [url, str(offered_rps), str(run.seconds), str(ITEM_BYTES), str(number)]
            client = start(link.inside_client([sys.executable, "-m", "testbed.client_process", *asked]))
            began_s, steps = time.monotonic(), list(run.shaper)
            changed_s = [began_s]
            for at_s, bytes_per_s in steps[1:]:
                time.sleep(max(0.0, began_s + at_s - time.monotonic()))
                link.shape(bytes_per_s)
                changed_s.append(time.monotonic())
            said, _ = client.communicate(timeout=run.seconds + 60.0)
            log.flush()
            assert said, f"the client of {run} failed: {(folder / 'log').read_text()[-2000:]}"
        finally:
            for process in reversed(processes):
                process.kill()
                process.wait(timeout=60.0)
                if process.stdout is not None:
                    process.stdout.close()
    told = json.loads(said)
    samples = [
        (at_s - began_s, estimate, steps[max(0, bisect_right(changed_s, at_s) - 1)][1])
        for at_s, estimate in told["samples"]
    ]
    return Outcome(run, told["outcomes"], samples)


def profile() -> dict[str, object]:
    """What the daemon is told of the functions: the truth."""
    return {
        "name": "testbed",
        "backend": "function",
        "model": "digits",
        "device": "a process that sleeps",
        "source": "tests/testbed",
        "date": "2026-01-01",
        "note": "",
        "rows": [],
        "alpha_s": ALPHA_S,
        "beta_s": BETA_S,
        "max_batch": 8,
        "environment": {},
    }


OUTCOMES = pytest.StashKey[list[Outcome]]()
"""Where a run of the tests keeps what its table is made of."""


def table(outcomes: Sequence[Outcome]) -> str:
    """What was measured, as Markdown."""
    rows = [
        "| shaper | offered | answered | median of \\|estimate / shaper - 1\\| | its 90 % quantile |",
        "|---|---|---|---|---|",
    ]
    for outcome in sorted(outcomes, key=lambda outcome: str(outcome.run)):
        run, errors = outcome.run, sorted(outcome.errors())
        asked = sum(outcome.outcomes.values())
        p90 = errors[int(0.9 * (len(errors) - 1))]
        rows.append(
            f"| {run.name} | {run.load:g} of it | {outcome.outcomes.get('200', 0)} of {asked} |"
            f" {outcome.median_error:.1%} | {p90:.1%} |"
        )
    return "\n".join(rows)
