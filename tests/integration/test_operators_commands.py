"""`edgeburst top` and `edgeburst limits` ask a real daemon, over its socket or at its address."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from support.daemon_process import Running, daemon_process, stub_edge_process

from scheduler.cli import main

CONFIG = """
[daemon]
port = 0
state = "state"
[edge]
url = "{edge}"
[[model]]
name = "digits"
edge_profile = "orin-resnet50"
"""
pytestmark = pytest.mark.xdist_group("serve")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Path]]:
    config = tmp_path_factory.mktemp("operators") / "edgeburst.toml"
    with stub_edge_process() as edge:
        config.write_text(CONFIG.format(edge=edge.url))
        with daemon_process(config) as running:
            yield running, config


def told(capsys: pytest.CaptureFixture[str], *command: str) -> Any:
    assert main([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_limits_are_set_one_by_one_and_left_to_the_plan_again(
    daemon: tuple[Running, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, config = daemon
    by_socket = ("--config", str(config))
    nothing = {"model": "digits", "window_s": None, "edge_batch_cap": None, "function_batch_cap": None}
    assert told(capsys, "limits", "get", *by_socket) == {"limits": [nothing]}
    told(capsys, "limits", "set", "digits", "--edge-batch-cap", "4", *by_socket)
    both = told(capsys, "limits", "set", "digits", "--window-s", "0.25", *by_socket)
    assert both == {"limits": [{**nothing, "window_s": 0.25, "edge_batch_cap": 4}]}
    assert main(["limits", "get", "digits", *by_socket]) == 0
    assert capsys.readouterr().out == "digits: window_s 0.25, edge_batch_cap 4, function_batch_cap plan\n"
    told(capsys, "limits", "set", "digits", "--window-s", "plan", "--edge-batch-cap", "plan", *by_socket)
    assert told(capsys, "limits", "get", "digits", *by_socket) == {"limits": [nothing]}


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["set", "digits"], "no limit is named"),
        (["set", "digits", "--edge-batch-cap", "0"], "edge_batch_cap"),
        (["set", "cats", "--edge-batch-cap", "1"], "cats"),
    ],
)
def test_wrong_limits_are_one_sentence(
    daemon: tuple[Running, Path], capsys: pytest.CaptureFixture[str], command: list[str], words: str
) -> None:
    assert main(["limits", *command, "--config", str(daemon[1])]) == 2
    [sentence] = capsys.readouterr().err.splitlines()
    assert words in sentence


def test_being_on_the_host_is_not_enough_to_set_them(
    daemon: tuple[Running, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["limits", "set", "digits", "--edge-batch-cap", "1", "--url", daemon[0].url]) == 2
    assert "needs a token" in capsys.readouterr().err


def test_top_shows_what_was_answered_where(daemon: tuple[Running, Path], capsys: pytest.CaptureFixture[str]) -> None:
    running, config = daemon
    for _ in range(5):
        answer = requests.post(f"{running.url}/v1/classify/digits", data=b"x", headers={"Content-Type": "image/png"})
        assert answer.status_code == 200
    for source in (["--config", str(config)], ["--url", running.url]):
        seen = told(capsys, "top", *source)
        assert [each["up"] for each in seen["edges"]] == [True]
        assert seen["function_up"] is None
        assert main(["top", "--once", *source]) == 0
        shown = capsys.readouterr().out
        assert f"plan {seen['plan']['plan_id']}: " in shown
        assert "edge:main" in shown


def test_without_a_daemon_it_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--url", "http://127.0.0.1:9"]) == 2
    assert "cannot reach a daemon at http://127.0.0.1:9" in capsys.readouterr().err
