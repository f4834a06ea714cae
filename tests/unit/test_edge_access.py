"""Who may use the edge server: tokens, addresses that others reach, and what a wrong start says."""

from __future__ import annotations

import hashlib
import logging
import socket
from collections.abc import Iterable
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from support.edge_fakes import FakeModel, make_service

from edge_server.access import Guard, check_reach, take_token, warn_of_readable
from edge_server.app import create_app
from edge_server.errors import StartupError
from edge_server.settings import parse_arguments

TOKEN = "4f1c0a5e7c9b4d7f"
SHA256 = hashlib.sha256(TOKEN.encode()).digest()


@pytest.fixture
def client() -> FlaskClient:
    return create_app(make_service(FakeModel(), max_batch=4), body_limit_bytes=1000, token_sha256=SHA256).test_client()


PATHS = [
    "/v2",
    "/v2/health/ready",
    "/v2/models/digits",
    "/v2/models/digits/ready",
    "/metrics",
    "/nothing",
    "/v2/health",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "header",
    [None, "", TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer zä"],
)
def test_nothing_is_answered_without_the_token(client: FlaskClient, path: str, header: str | None) -> None:
    answer = client.get(path, headers={} if header is None else {"Authorization": header})
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert list(answer.json or {}) == ["error"]
    assert TOKEN not in answer.text


def test_a_batch_is_not_even_read_without_it(client: FlaskClient) -> None:
    answer = client.post("/v2/models/digits/infer", data=b"x" * 5000)
    assert answer.status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
def test_the_token_opens_everything(client: FlaskClient, scheme: str) -> None:
    assert client.get("/v2", headers={"Authorization": f"{scheme}{TOKEN}"}).status_code == 200
    answer = client.post("/v2/models/digits/infer", data=b"{", headers={"Authorization": f"{scheme}{TOKEN}"})
    assert answer.status_code == 400


def test_that_the_process_lives_is_no_secret(client: FlaskClient) -> None:
    assert client.get("/v2/health/live").json == {"live": True}
    assert client.head("/v2/health/live").status_code == 200
    assert client.post("/v2/health/live").status_code == 401


def test_refusals_are_counted(client: FlaskClient) -> None:
    client.get("/v2")
    metrics = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text
    assert 'edgeburst_edge_responses_total{code="401"} 1.0' in metrics


def test_a_peer_is_known_by_its_token_alone() -> None:
    known: list[str] = []

    def app(_environ: dict[str, object], _start: object) -> Iterable[bytes]:
        return [b""]

    guard = Guard(app, SHA256, lambda _: None)  # type: ignore[arg-type]
    environ = {
        "PATH_INFO": "/v2/health/live",
        "REQUEST_METHOD": "GET",
        "edgeburst.known_peer": lambda: known.append("x"),
    }
    guard(environ, lambda *_: lambda _: None)  # type: ignore[arg-type]
    assert known == []
    guard({**environ, "HTTP_AUTHORIZATION": f"Bearer {TOKEN}"}, lambda *_: lambda _: None)  # type: ignore[arg-type]
    assert known == ["x"]


def test_the_token_leaves_the_environment(caplog: pytest.LogCaptureFixture) -> None:
    environ = {"EDGE": TOKEN, "HOME": "/"}
    assert take_token("EDGE", environ) == SHA256
    assert environ == {"HOME": "/"}
    assert caplog.records == []
    take_token("EDGE", {"EDGE": "short"})
    assert "EDGE is short" in caplog.text


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "EDGE, which is not set"),
        ({"EDGE": ""}, "not set"),
        ({"EDGE": "a b"}, "character"),
        ({"EDGE": "ä"}, "character"),
    ],
)
def test_a_token_that_is_none_is_one_sentence(environ: dict[str, str], words: str) -> None:
    with pytest.raises(StartupError, match=words) as raised:
        take_token("EDGE", environ)
    assert "a b" not in str(raised.value)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1"])
def test_loopback_needs_no_token(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listener:
        check_reach([listener], is_guarded=False)


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_beyond_loopback_it_must_be_said_who_may_use_it(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listener:
        with pytest.raises(StartupError, match="--token-env NAME, --client-ca FILE, or --open"):
            check_reach([listener], is_guarded=False)
        check_reach([listener], is_guarded=True)


def test_a_key_that_others_can_read_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = tmp_path / "key.pem"
    key.touch(mode=0o600)
    warn_of_readable(key)
    assert caplog.records == []
    key.chmod(0o640)
    warn_of_readable(key)
    assert [(record.levelno, "chmod 600" in record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, True)
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--certificate", "c.pem"], "--certificate and --key belong together"),
        (["--key", "k.pem"], "--certificate and --key belong together"),
        (["--client-ca", "a.pem"], "add --certificate and --key"),
    ],
)
def test_options_that_need_each_other_say_so(given: list[str], words: str) -> None:
    with pytest.raises(StartupError, match=words):
        parse_arguments(given)


def test_settings_hold_the_name_of_the_token_and_not_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE", TOKEN)
    settings = parse_arguments(["--token-env", "EDGE", "--certificate", "c", "--key", "k", "--client-ca", "a"])
    assert (settings.token_env, settings.is_open) == ("EDGE", False)
    assert settings.tls is not None
    assert TOKEN not in repr(settings)
