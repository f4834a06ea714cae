"""`edgeburst explain` and GET /v1/explain: found by number or client's id, or one sentence that says why not."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from support.daemon_process import daemon_process, stub_edge_process
from support.explained import an_explanation
from support.fake_runner import FakeRunner
from support.ingress_server import IngressServer

from scheduler.cli import main
from scheduler.daemon.asking import daemon_url
from scheduler.daemon.config.config import load_config
from scheduler.domain.errors import EdgeburstError, Refusal, RefusalKind
from scheduler.explain.json_lines import to_json
from scheduler.explain.text import Context

CONFIG = '[edge]\n[[model]]\nname = "digits"\nedge_profile = "orin-resnet50"\n'
NUMBER = "X-Edgeburst-Request-Id"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[IngressServer, FakeRunner]]:
    path = tmp_path_factory.mktemp("config") / "edgeburst.toml"
    path.write_text(CONFIG)
    runner = FakeRunner()
    with IngressServer(runner.parts(), load_config(path, {}), {}) as server:
        yield server, runner


@pytest.fixture
def runner(running: tuple[IngressServer, FakeRunner]) -> Iterator[FakeRunner]:
    running[1].calls.clear()
    yield running[1]
    running[1].refusal = None


@pytest.fixture
def url(running: tuple[IngressServer, FakeRunner], runner: FakeRunner) -> str:
    return running[0].url


def infer(url: str, client_id: str) -> requests.Response:
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(b"x").decode()]}
    return requests.post(f"{url}/v2/models/digits/infer", json={"id": client_id, "inputs": [image]}, timeout=10)


def classify(url: str, client_id: str) -> requests.Response:
    headers = {"Content-Type": "image/png", "X-Request-Id": client_id}
    return requests.post(f"{url}/v1/classify/digits", data=b"x", headers=headers, timeout=10)


def explained(url: str, name: str) -> list[int]:
    response = requests.get(f"{url}/v1/explain/{name}", timeout=10)
    assert response.status_code == 200
    return [explanation["request_id"] for explanation in response.json()["explanations"]]


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_each_answer_brings_the_number_by_which_it_is_explained(url: str) -> None:
    first, second = infer(url, "a"), classify(url, "b")
    assert (first.headers[NUMBER], second.headers[NUMBER]) == ("1", "2")
    assert first.json()["parameters"]["request_id"] == 1
    assert second.json()["request_id"] == 2
    assert explained(url, "1") == explained(url, "a") == [1]
    assert explained(url, "2") == explained(url, "b") == [2]


def test_a_refusal_brings_its_number_too(url: str, runner: FakeRunner) -> None:
    runner.refusal = Refusal(RefusalKind.DEADLINE, "too late", 3.0)
    response = infer(url, "a")
    assert (response.status_code, response.headers[NUMBER], response.headers["Retry-After"]) == (503, "1", "3")


def test_what_never_became_a_request_has_no_number(url: str) -> None:
    response = requests.post(f"{url}/v2/models/digits/infer", data=b"{", timeout=10)
    assert response.status_code == 400
    assert NUMBER not in response.headers


def test_requests_of_one_id_come_newest_first(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        infer(url, "same")
    assert explained(url, "same") == [3, 2, 1]
    assert main(["explain", "same", "--url", url]) == 0
    told = capsys.readouterr().out
    assert told.startswith("request 3 (its client calls it 'same')")
    assert told.endswith("older requests with the same id (explain them by number): 2, 1\n")


@pytest.mark.parametrize("client_id", ["a/b", "50 %", "ä?x=1#y", "..x"])
def test_a_clients_id_may_hold_anything(url: str, client_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    infer(url, client_id)
    assert main(["explain", client_id, "--url", url + "/"]) == 0
    assert capsys.readouterr().out.startswith("request 1 ")


def test_json_is_what_the_daemon_answers(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    infer(url, "a")
    assert main(["explain", "a", "--url", url, "--json"]) == 0
    answered = requests.get(f"{url}/v1/explain/a", timeout=10).json()
    assert answered.pop("next") is None
    assert json.loads(capsys.readouterr().out) == answered


def test_an_unknown_request_is_told_in_one_sentence(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "4711", "--url", url]) == 2
    told = sentence(capsys)
    assert told.startswith(
        "edgeburst: request '4711' is unknown: it never reached this daemon, or it is not among the latest 4096"
    )


def test_a_daemon_that_is_not_there_is_told_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert main(["explain", "1", "--url", url]) == 2
    assert sentence(capsys) == f"edgeburst: cannot reach a daemon at {url}; start it, or give its address with --url\n"


class Stranger(BaseHTTPRequestHandler):
    """Some other program: its bodies are no JSON, or another JSON."""

    body = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}"])
def test_a_stranger_at_the_address_is_told_in_one_sentence(
    body: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Stranger, "body", body)
    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert main(["explain", "1", "--url", url]) == 2
        thread.join(10)
    assert sentence(capsys) == f"edgeburst: {url} does not answer as an edgeburst daemon does; correct --url\n"


def test_an_address_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "1", "--url", "localhost:8600"]) == 2
    assert "'localhost:8600' is not a URL; write it like http://127.0.0.1:8600" in sentence(capsys)


@pytest.mark.parametrize(
    ("listener", "url"),
    [
        ("", "http://127.0.0.1:8600"),
        ('host = "0.0.0.0"\nopen = true\nport = 9000', "http://127.0.0.1:9000"),
        ('host = "::"\nopen = true', "http://[::1]:8600"),
        ('host = "10.0.0.7"\nopen = true', "http://10.0.0.7:8600"),
    ],
)
def test_the_configuration_tells_where_the_daemon_is(listener: str, url: str, tmp_path: Path) -> None:
    path = tmp_path / "edgeburst.toml"
    path.write_text(f"[daemon]\n{listener}\n{CONFIG}")
    assert daemon_url(load_config(path, {})) == url


def test_a_configuration_with_any_free_port_does_not_tell_it(tmp_path: Path) -> None:
    path = tmp_path / "edgeburst.toml"
    path.write_text(f"[daemon]\nport = 0\n{CONFIG}")
    with pytest.raises(EdgeburstError, match="any free port; give its address with --url"):
        daemon_url(load_config(path, {}))


def written(path: Path, *requests: tuple[int, str]) -> None:
    lines = [to_json(an_explanation(request_id=number), Context(client_id)) for number, client_id in requests]
    path.write_text("\n".join(["", *lines, '{"version":2,"request_id":3,"cli', "[]"]))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Four files, each with torn lines; request 1 of three runs of the daemon."""
    path = tmp_path / "why [1].jsonl"
    written(path, (1, "new"), (2, "same"), (4, "same"))
    written(tmp_path / f"{path.name}.1", (9, "same"))
    written(tmp_path / f"{path.name}.2", (1, "old"))
    written(tmp_path / f"{path.name}.10", (1, "older"))
    (tmp_path / f"{path.name}.bak").write_text(to_json(an_explanation(request_id=77)))
    return path


def asked_of_file(file: Path, name: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    assert main(["explain", name, "--file", str(file), "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["explanations"]
    return found


def test_files_are_read_newest_first_without_any_daemon(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [found["client_id"] for found in asked_of_file(file, "1", capsys)] == ["new", "old", "older"]
    assert [found["request_id"] for found in asked_of_file(file, "same", capsys)] == [4, 2, 9]


def test_a_file_is_worded_as_the_daemon_is(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "9", "--file", str(file)]) == 0
    told = capsys.readouterr().out
    assert told.startswith("request 9 (its client calls it 'same')")
    assert told.endswith("answered, 0.750 s before its deadline\n")


@pytest.mark.parametrize("name", ["77", "3"])
def test_what_no_file_has_is_told_in_one_sentence(name: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", name, "--file", str(file)]) == 2
    assert (
        sentence(capsys)
        == f"edgeburst: request '{name}' is neither in {file} nor in its older parts; check number or id\n"
    )


def test_a_file_that_is_not_there_is_told_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "1", "--file", str(tmp_path / "none.jsonl")]) == 2
    assert f"there is no file {tmp_path / 'none.jsonl'}; give the file of [explain]" in sentence(capsys)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"version":7,"request_id":5}', "it is of version 7 and only version 2 can be read here; use the release"),
        ('{"version":1,"request_id":5}', "it is of version 1 and only version 2 can be read here; use the release"),
        ('{"request_id":5,"decisions":3}', "it is of version None and only version 2 can be read here"),
        ('{"version":2,"request_id":5}', "an explanation lacks or misstates 'model'"),
    ],
)
def test_a_line_of_another_version_is_told_in_one_sentence(
    line: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "why.jsonl"
    path.write_text(line)
    assert main(["explain", "5", "--file", str(path)]) == 2
    assert sentence(capsys).startswith(f"edgeburst: the explanation cannot be read: {reason}")


def test_the_last_request_and_the_last_miss_are_found_without_their_numbers(tmp_path: Path) -> None:
    config = tmp_path / "edgeburst.toml"
    with stub_edge_process() as edge:
        config.write_text(
            f'[daemon]\nport = 0\n[edge]\nurl = "{edge.url}"\n'
            '[[model]]\nname = "digits"\nedge_profile = "orin-resnet50"\n'
        )
        with daemon_process(config) as daemon:

            def last(*which: str) -> tuple[int, dict[str, Any]]:
                out = io.StringIO()
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
                    status = main(["explain", *which, "--url", daemon.url, "--json"])
                return status, json.loads(out.getvalue() or '{"explanations": [{}]}')["explanations"][0]

            assert last("--last")[0] == last("--last-miss")[0] == 2
            assert infer_picture(daemon.url, "1", timeout_s=0.0001) == 503
            assert infer_picture(daemon.url, "1", timeout_s=5.0) == 200
            miss, newest = last("--last-miss")[1], last("--last")[1]
            assert miss["outcome"] not in ("answered", "")
            assert newest["outcome"] == "answered"
            assert newest["request_id"] > miss["request_id"]
            # A number is the daemon's, unless it is said to be the client's.
            assert last("1")[1]["request_id"] == 1
            assert last("--client-id", "1")[1]["request_id"] == newest["request_id"]


def infer_picture(url: str, client_id: str, *, timeout_s: float) -> int:
    address = f"{url}/v1/classify/digits?timeout_s={timeout_s}"
    headers = {"Content-Type": "image/png", "X-Request-Id": client_id}
    return requests.post(address, data=b"a picture", headers=headers, timeout=30).status_code


@pytest.mark.parametrize(("option", "number"), [("--last", 4), ("--last-miss", None)])
def test_files_have_a_last_request_too(
    option: str, number: int | None, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["explain", option, "--file", str(file), "--json"])
    if number is None:
        assert status == 2
        assert "a request that was refused or late is neither in" in capsys.readouterr().err
    else:
        assert status == 0
        [only] = json.loads(capsys.readouterr().out)["explanations"]
        assert only["request_id"] == number
