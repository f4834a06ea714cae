"""Kills and restarts over real processes: the cap holds, and the next process knows what the last one did."""

import asyncio
import json
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support import operators
from support.daemon_process import (
    Running,
    daemon_process,
    environment,
    refused_start,
    serve_command,
    stub_edge_process,
    until,
)

from scripts import restarts

pytestmark = pytest.mark.xdist_group("serve")

CONFIG = """
[daemon]
port = {port}
state = "state"
[edge]
url = "{edge}"
"""
MODEL = """
[[model]]
name = "{name}"
edge_profile = "orin-resnet50"
[[model.class]]
slo_s = 20.0
"""


def written(folder: Path, edge: Running, *models: str, port: int = 0) -> Path:
    path = folder / "edgeburst.toml"
    path.write_text(CONFIG.format(edge=edge.url, port=port) + "".join(MODEL.format(name=name) for name in models))
    return path


@pytest.fixture(scope="module")
def edge() -> Iterator[Running]:
    with stub_edge_process() as running:
        yield running


async def call(method: str, url: str, content: object = None) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.request(method, url, json=content) as response:
        return response.status, await response.json(content_type=None)


def limits_of(daemon: Running, model: str) -> Any:
    return asyncio.run(call("GET", f"{daemon.url}/v1/models/{model}/limits"))[1]


def status_of(daemon: Running) -> Any:
    return asyncio.run(call("GET", f"{daemon.url}/v1/status"))[1]


@pytest.mark.slow
def test_lives_that_are_killed_spend_no_more_than_the_cap_and_one_slice(tmp_path: Path) -> None:
    killed = restarts.killed_lives(tmp_path, lives=5, seed=1)
    assert killed.answered > 5
    assert killed.refused > 0
    assert 0.1 * killed.cap < killed.metered <= killed.cap + killed.a_slice


@pytest.mark.slow
def test_plan_uplink_and_margins_are_as_before_the_restart(tmp_path: Path) -> None:
    found = restarts.restarted(tmp_path, learn_s=8.0)
    assert {"uplink_bytes_per_s", "uplink_rtt_s", "edge batch cap"} <= set(found.before)
    assert {name for name, value in found.before.items() if "margin" in name and value > 1.0} >= {
        "edge margin of default",
        "believed margin of edge:digits",
    }
    assert found.worst() <= 0.05, (found.before, found.after)


def test_limits_outlive_a_kill_and_a_model_that_goes_away_and_comes_back(edge: Running, tmp_path: Path) -> None:
    config = written(tmp_path, edge, "digits", "resnet50")
    wanted = {"window_s": 0.0, "edge_batch_cap": 3}
    with daemon_process(config) as daemon:
        operators.put(f"{daemon.url}/v1/models/digits/limits", wanted)
        until(lambda: _kept(tmp_path, "digits") is not None, "limits in the state file")
        daemon.signal(signal.SIGKILL)
        daemon.exit_status()
    with daemon_process(config) as daemon:
        assert limits_of(daemon, "digits") == {"model": "digits", **wanted, "function_batch_cap": None}
        assert _edge_cap(daemon, "digits") <= 3
        written(tmp_path, edge, "resnet50")
        daemon.signal(signal.SIGHUP)
        until(lambda: _groups(daemon) == {"resnet50"}, "a plan without digits")
        written(tmp_path, edge, "digits", "resnet50")
        daemon.signal(signal.SIGHUP)
        until(lambda: _groups(daemon) == {"digits", "resnet50"}, "a plan with digits")
        assert limits_of(daemon, "digits")["edge_batch_cap"] == 3
        assert _edge_cap(daemon, "digits") <= 3


def test_a_second_daemon_on_the_folder_is_refused_and_a_successor_gets_folder_and_port(
    edge: Running, tmp_path: Path
) -> None:
    config = written(tmp_path, edge, "digits")
    with daemon_process(config) as first:
        second = refused_start(config)
        assert second.returncode == 2
        [sentence] = second.stderr.strip().splitlines()
        assert f"is in use by the daemon with process id {first.process.pid}" in sentence
        written(tmp_path, edge, "digits", port=first.port)
        waiting = subprocess.Popen(
            [*serve_command(config), "--wait-s", "60"],
            env=environment({}),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            first.signal(signal.SIGTERM)
            assert first.exit_status() == 0
            assert waiting.stdout is not None
            assert json.loads(waiting.stdout.readline())["port"] == first.port
        finally:
            waiting.kill()
            waiting.communicate()


def test_a_damaged_state_file_is_put_aside_and_the_daemon_starts(edge: Running, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.sqlite3").write_bytes(b"not a database" * 500)
    with daemon_process(written(tmp_path, edge, "digits")) as daemon:
        assert status_of(daemon)["state"]["up"] is True
        assert daemon.log.count("state_put_aside") == 1
    assert len(list((tmp_path / "state").glob("*.aside"))) == 1


def test_without_a_folder_the_daemon_says_that_caps_start_anew(edge: Running, tmp_path: Path) -> None:
    config = written(tmp_path, edge, "digits")
    config.write_text(config.read_text().replace('state = "state"\n', ""))
    with daemon_process(config) as daemon:
        assert "a spend cap starts anew with each process" in status_of(daemon)["state"]["message"]


def _kept(folder: Path, model: str) -> Any:
    with sqlite3.connect(folder / "state" / "state.sqlite3") as database:
        return database.execute("SELECT content FROM limits WHERE model = ?", (model,)).fetchone()


def _groups(daemon: Running) -> set[str]:
    return {group["model"] for group in status_of(daemon)["engine"]["plan"]["groups"]}


def _edge_cap(daemon: Running, model: str) -> int:
    groups = status_of(daemon)["engine"]["plan"]["groups"]
    return int(next(group["edge_batch_cap"] for group in groups if group["model"] == model))
