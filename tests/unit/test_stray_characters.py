"""A key or token with a stray carriage return is one sentence that names the variable, and never the secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from scheduler import cli
from scheduler.daemon.config.config import load_config
from scheduler.daemon.config.credentials import edge_access, read_access_key
from scheduler.domain.errors import ConfigError

FUNCTION = """
[function]
[edge]
token_env = "EDGE_TOKEN"
[[model]]
name = "digits"
edge_profile = "orin-resnet50"
"""
KEYS = {"ALIBABA_CLOUD_ACCESS_KEY_ID": "an-id", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "a-secret"}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "a-secret\r", "a carriage return (CR)"),
        ("ALIBABA_CLOUD_ACCESS_KEY_ID", "an-id\n", "a line break"),
        ("ALIBABA_CLOUD_ACCESS_KEY_ID", "an-id ", "a blank at an end"),
        ("ALIBABA_CLOUD_ACCESS_KEY_ID", "an-id\u200b", "a character that is no printed ASCII"),
    ],
)
def test_a_key_that_cannot_be_sent_is_named_by_its_variable(tmp_path: Path, name: str, value: str, words: str) -> None:
    path = tmp_path / "edgeburst.toml"
    path.write_text(FUNCTION)
    with pytest.raises(ConfigError) as raised:
        read_access_key(load_config(path, {}), {**KEYS, name: value})
    sentence = str(raised.value)
    assert f"environment variable {name} holds {words}" in sentence
    assert "secret" not in sentence.replace("access_key_secret", "")
    assert "\r" not in sentence


def test_so_is_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "edgeburst.toml"
    path.write_text(FUNCTION)
    config = load_config(path, {})
    with pytest.raises(ConfigError, match="environment variable EDGE_TOKEN holds a carriage return"):
        edge_access(config, config.edges[0], {"EDGE_TOKEN": "abc\r"})
    assert edge_access(config, config.edges[0], {"EDGE_TOKEN": "a b"}).token == "a b"
    monkeypatch.setenv("MY_TOKEN", "abc\r")
    assert cli.main(["explain", "1", "--token-env", "MY_TOKEN"]) == 2
    assert "environment variable MY_TOKEN holds a carriage return" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "most"), [("[[model.class]]", 32), ("[[model.tier]]", 32), ("[[edge]]", 64), ("[[tenant]]", 64)]
)
def test_more_tables_than_there_may_be_are_told_as_that(tmp_path: Path, table: str, most: int) -> None:
    path = tmp_path / "edgeburst.toml"
    rows = {
        "[[model.class]]": 'name = "c{0}"',
        "[[model.tier]]": 'name = "t{0}"\nfunction = "f"\nprofile = "p"\nmemory_gb = 1.0',
        "[[edge]]": 'name = "e{0}"\nurl = "http://10.0.0.{0}:8700"',
        "[[tenant]]": 'name = "t{0}"',
    }
    many = "\n".join(f"{table}\n{rows[table].format(number)}" for number in range(1, most + 3))
    path.write_text('[[model]]\nname = "digits"\nedge_profile = "orin-resnet50"\n' + many)
    with pytest.raises(ConfigError) as raised:
        load_config(path, {})
    assert f"{table} occurs {most + 2} times, but at most {most} are possible" in str(raised.value)
