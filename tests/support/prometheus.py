"""Debian's Prometheus and its promtool; where they are not installed, a test is skipped with a sentence."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.daemon_process import LIMIT_S, environment, until

FOLDER = Path(__file__).parents[2] / "scripts" / "monitoring"
RULES = FOLDER / "edgeburst.rules.yml"
DASHBOARD = FOLDER / "edgeburst.dashboard.json"


def program(name: str) -> str:
    """Returns the path of a program of Debian's package prometheus."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; `apt-get install prometheus` brings it")
    return found


def promtool(*arguments: str, text: str | None = None, folder: Path = FOLDER) -> str:
    """Runs promtool, and returns what it says; AssertionError if it finds anything wrong."""
    done = subprocess.run(
        [program("promtool"), *arguments],
        input=text,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = f"{done.stdout}{done.stderr}"
    assert done.returncode == 0, said
    return said


@dataclass(frozen=True)
class Prometheus:
    """A running one."""

    url: str

    def get(self, path: str, **parameters: str) -> Any:
        """Returns the data of an answer of its API; AssertionError with its sentence for an error or a warning."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=LIMIT_S) as response:
                answer = json.loads(response.read())
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None
        assert answer["status"] == "success", (parameters, answer)
        assert not answer.get("warnings"), (parameters, answer)
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Returns the present result of a query."""
        result: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return result

    def value(self, expression: str) -> float | None:
        """Returns the value of a query with one result; None without any."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None


@contextmanager
def prometheus_process(folder: Path, config: str) -> Iterator[Prometheus]:
    """Starts a Prometheus with that configuration, hands it over when it answers, and ends it."""
    (folder / "prometheus.yml").write_text(config, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [program("prometheus"), "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    command += [f"--web.listen-address={address}", "--log.level=warn"]
    log = folder / "prometheus.log"
    with log.open("w") as written:
        process = subprocess.Popen(command, cwd=folder, env=environment({}), stdout=written, stderr=written)
    try:
        running = Prometheus(f"http://{address}")

        def answers() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                with urllib.request.urlopen(f"{running.url}/-/ready", timeout=LIMIT_S) as response:
                    return bool(response.status == 200)
            except OSError:
                return False

        until(answers, "Prometheus answers")
        yield running
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=LIMIT_S)
