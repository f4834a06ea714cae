"""The example with shares of one GPU as edge servers: it loads, and says how to start what it names."""

import re
import shlex
from pathlib import Path

import pytest

from edge_server.settings import parse_arguments
from scheduler.daemon.config.config import load_config
from scheduler.domain.plans import EdgeSettings

EXAMPLE = Path(__file__).parents[2] / "scripts" / "edgeburst.mps.example.toml"


def test_the_example_loads_with_an_edge_server_a_share() -> None:
    settings = load_config(EXAMPLE, {"EDGE_TOKEN": "0123456789abcdef0123456789abcdef"}).engine_settings()
    assert settings.edges == (EdgeSettings("resnet50-a"), EdgeSettings("resnet50-b"), EdgeSettings("mobilenet"))
    serving = {
        model.name: [edge.name for edge in settings.edges if model.edge_latency_on(edge.name) is not None]
        for model in settings.models
    }
    assert serving == {"resnet50": ["resnet50-a", "resnet50-b"], "mobilenet_v3_small": ["mobilenet"]}


def test_its_servers_are_started_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_TOKEN", "0123456789abcdef0123456789abcdef")
    text = EXAMPLE.read_text()
    commands = re.findall(r"^#   edgeburst-edge (.*)$", text, re.MULTILINE)
    started = [parse_arguments(shlex.split(command)) for command in commands]
    tables = text.split("\n[[edge]]\n")[1:]
    assert len(started) == len(tables) == 3
    for one, table in zip(started, tables, strict=True):
        assert f":{one.port}" in table
        assert f'models = ["{one.models[0].card.name}"]' in table
    shares = [one.share.percentage for one in started if one.share is not None]
    assert shares == [35, 35, 30]
