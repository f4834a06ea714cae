"""Text with thousands of levels, from a file or a neighbour, is met like any other that is not understood."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.authoring.draft import AuthoringError
from models.authoring.mlserver_settings import _settings
from scheduler.daemon.config.source import _value
from scheduler.domain.errors import EdgeburstError
from scheduler.explain.json_lines import from_json
from scheduler.fc_client import Invoked
from scheduler.planner.catalogue.prices import load_sheet
from scheduler.planning.applications import read_applications
from scheduler.simulator.scenario import Scenario
from scheduler.simulator.scenario_file import read_scenario
from scheduler.workloads import read_map
from serverless_fn.forwarding import _sentence_in

DEEP = '{"errorMessage":' + "[" * 100_000 + "]" * 100_000 + "}"
DEEP_TOML = "a = " + "[" * 10_000 + "]" * 10_000


@pytest.mark.parametrize(
    "read", [load_sheet, read_map, _settings, read_applications, lambda path: read_scenario(path, Scenario())]
)
def test_a_deep_file_is_refused_in_one_sentence(read: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "deep"
    for text in (DEEP, DEEP_TOML):
        path.write_text(text, encoding="utf-8")
        with pytest.raises((EdgeburstError, AuthoringError), match="deep"):
            read(path)


def test_a_deep_line_of_a_file_of_explanations_is_none() -> None:
    with pytest.raises(ValueError, match="levels"):
        from_json(DEEP)


def test_a_deep_value_of_an_environment_variable_stays_a_text() -> None:
    deep = "[" * 10_000
    assert _value("daemon", "port", deep) == deep


def test_what_a_failed_function_says_so_is_shown_as_it_is() -> None:
    said = Invoked(DEEP.encode(), "UnhandledInvocationError").without_frame(ValueError("no frame"))
    assert said.startswith('the function failed (UnhandledInvocationError): {"errorMessage":[[[')


def test_what_a_server_in_a_container_says_so_is_shown_as_it_is() -> None:
    assert _sentence_in(DEEP.encode()).startswith('{"errorMessage":[[[')
