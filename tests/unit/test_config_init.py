"""`edgeburst config init` asks five questions or takes flags, and writes what the daemon accepts, never over a file."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scheduler import cli
from scheduler.daemon import init_command
from scheduler.daemon.config.config import load_config

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], list[str]]:
    """Makes stdin a terminal with these answers; returns the questions that were asked."""

    def with_answers(answers: list[str]) -> list[str]:
        asked: list[str] = []
        left: Iterator[str] = iter(answers)

        def answer(prompt: str) -> str:
            asked.append(prompt)
            return next(left)

        monkeypatch.setattr("builtins.input", answer)
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        return asked

    return with_answers


def made(path: Path, *options: str) -> dict[str, object]:
    assert cli.main(["config", "init", "--out", str(path), *options]) == 0
    load_config(path, {})
    found: dict[str, object] = tomllib.loads(path.read_text())
    return found


def test_five_questions_make_a_valid_file(tmp_path: Path, terminal: Callable[[list[str]], list[str]]) -> None:
    asked = terminal(["http://10.0.0.2:8700", "", "0.5", "infer", "12"])
    found = made(path := tmp_path / "a.toml")
    assert len(asked) == 5
    config = load_config(path, {})
    assert (config.edges[0].url, config.edges[0].token_env) == ("http://10.0.0.2:8700", "EDGE_TOKEN")
    assert config.models[0].name == "digits"
    assert config.models[0].classes[0].slo_s == 0.5
    assert config.models[0].tiers[0].function == "infer"
    assert found["spend"] == {"per_day": 12.0}
    assert path.stat().st_mode & 0o777 == 0o644


def test_without_functions_no_cap_is_asked_for(tmp_path: Path, terminal: Callable[[list[str]], list[str]]) -> None:
    asked = terminal(["", "", "", ""])
    made(path := tmp_path / "a.toml")
    assert len(asked) == 4
    config = load_config(path, {})
    assert (config.function, config.edges[0].token_env) == (None, "")


def test_what_an_option_says_is_not_asked(tmp_path: Path, terminal: Callable[[list[str]], list[str]]) -> None:
    asked = terminal([])
    options = ["--edge", "-", "--model", "resnet50", "--slo-s", "2", "--function", "f", "--per-day", "-"]
    made(
        path := tmp_path / "a.toml",
        *options,
        "--image",
        "registry/x:1",
        "--endpoint",
        "127.0.0.1:1",
        "--protocol",
        "http",
    )
    config = load_config(path, {})
    assert asked == []
    assert (config.edges, config.spend.per_day) == ((), None)
    assert config.deploy is not None


def test_without_a_terminal_the_defaults_hold(tmp_path: Path) -> None:
    config = load_config(path := tmp_path / "a.toml", {}) if made(tmp_path / "a.toml") else None
    assert config is not None
    assert path.exists()
    assert config.daemon.state == "state"


def test_a_folder_is_named_wherever_the_file_is_read_from(tmp_path: Path) -> None:
    folder = ROOT / "models" / "shipped" / "digits"
    made(path := tmp_path / "a.toml", "--model", str(folder))
    card = load_config(path, {}).card(0)
    assert card is not None
    assert card.folder == folder


def test_a_file_in_etc_keeps_its_state_where_the_unit_makes_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(init_command, "SYSTEM", tmp_path)
    made(path := tmp_path / "a.toml")
    assert load_config(path, {}).daemon.state == "/var/lib/edgeburst"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--slo-s", "soon"], "--slo-s is 'soon'"),
        (["--slo-s", "-1"], "slo_s"),
        (["--model", "nothing"], "the card cannot be used"),
        (["--edge", "-"], "give --edge or --function"),
        (["--edge", "edge:8700"], "http"),
    ],
)
def test_a_wrong_answer_is_one_sentence_and_leaves_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert cli.main(["config", "init", "--out", str(tmp_path / "a.toml"), *options]) == 2
    [sentence] = capsys.readouterr().err.splitlines()
    assert words in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_overwritten_by_force_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.toml"
    path.write_text("mine")
    assert cli.main(["config", "init", "--out", str(path)]) == 2
    assert path.read_text() == "mine"
    assert "--force" in capsys.readouterr().err
    made(path, "--force")


def test_the_example_is_the_one_of_the_source_tree(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "example"]) == 0
    assert capsys.readouterr().out == (ROOT / "scripts" / "edgeburst.example.toml").read_text()
