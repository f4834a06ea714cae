"""The daemon's HTTP face, asked by curl as a process, with nothing but what people type."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemon_process import environment
from support.fake_runner import FakeRunner, digit_of
from support.ingress_server import READERS, IngressServer

from scheduler.daemon.config.config import load_config

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")

PICTURE = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + bytes([0, 0, 0, 8] * 2) + bytes(range(256)) * 50
CONFIG = """
[daemon]
body_limit_bytes = 100000
[edge]
[[model]]
name = "digits"
edge_profile = "orin-resnet50"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("curl")
    (made / "x.png").write_bytes(PICTURE)
    (made / "large.png").write_bytes(PICTURE * 10)
    (made / "edgeburst.toml").write_text(CONFIG)
    return made


@pytest.fixture(scope="module", params=READERS)
def running(folder: Path, request: pytest.FixtureRequest) -> Iterator[tuple[IngressServer, FakeRunner]]:
    runner = FakeRunner()
    with IngressServer(
        runner.parts(), load_config(folder / "edgeburst.toml", {}), {}, hot=READERS[request.param]
    ) as server:
        yield server, runner


class Curl:
    """curl in a folder with `x.png`; paths are those of the daemon."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url

    def __call__(self, path: str, *options: str) -> tuple[int, Any]:
        """Returns status and body."""
        command = ["curl", "-sS", "-m", "30", "-w", "\n%{http_code}", *options, self._url + path]
        done = subprocess.run(
            command, cwd=self._folder, env=environment({}), capture_output=True, timeout=60, check=True
        )
        body, _, status = done.stdout.rpartition(b"\n")
        return int(status), body

    def json(self, path: str, *options: str) -> tuple[int, Any]:
        """Returns status and decoded body."""
        status, body = self(path, *options)
        return status, json.loads(body)


@pytest.fixture
def curl(folder: Path, running: tuple[IngressServer, FakeRunner]) -> Curl:
    running[1].calls.clear()
    return Curl(folder, running[0].url)


@pytest.fixture
def runner(running: tuple[IngressServer, FakeRunner]) -> FakeRunner:
    return running[1]


@pytest.mark.parametrize(
    "options",
    [
        ("--data-binary", "@x.png"),
        ("--data-binary", "@x.png", "-H", "Content-Type: image/png"),
        ("--data-binary", "@x.png", "-H", "Content-Type:"),
        ("-F", "image=@x.png"),
        ("-F", "picture=@x.png;type=application/octet-stream", "-F", "note=hello"),
        ("-F", "image=@x.png", "-H", "Transfer-Encoding: chunked"),
        ("-H", "Expect: 100-continue", "--data-binary", "@x.png"),
    ],
)
def test_a_picture_is_classified_however_curl_sends_it(
    curl: Curl, runner: FakeRunner, options: tuple[str, ...]
) -> None:
    status, answer = curl.json("/v1/classify/digits?top=2", *options)
    assert status == 200, answer
    assert answer["label"] == str(digit_of(PICTURE))
    assert answer.items() >= {"backend": "edge", "tier": "", "cost": 0.0}.items()
    assert len(answer["top"]) == 2
    assert runner.calls[0].inputs[0].elements() == [PICTURE]


@pytest.mark.parametrize(
    ("options", "status", "sentence"),
    [
        (("-d", "@x.png"), 400, "use --data-binary"),
        (("-d", "hello"), 415, "does not begin like a picture"),
        (("-F", "image=@x.png", "-F", "other=@x.png"), 400, "the form has 2 files"),
        (("-F", "image=@large.png"), 413, "over the limit of 100000 bytes"),
        (("--data-binary", "@large.png"), 413, "over the limit of 100000 bytes"),
    ],
)
def test_what_is_not_one_picture_is_told_what_to_send(
    curl: Curl, runner: FakeRunner, options: tuple[str, ...], status: int, sentence: str
) -> None:
    found, answer = curl.json("/v1/classify/digits", *options)
    assert found == status
    assert sentence in answer["error"]
    assert runner.calls == []


def test_a_raw_request_needs_no_json(curl: Curl, runner: FakeRunner) -> None:
    raw = ("-H", "Inference-Header-Content-Length: 0", "-H", "Content-Type: application/octet-stream")
    status, _ = curl("/v2/models/digits/infer", "--data-binary", "@x.png", *raw)
    assert status == 200
    assert runner.calls[0].inputs[0].elements() == [PICTURE]


def test_a_timeout_of_zero_is_none(curl: Curl, runner: FakeRunner) -> None:
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(PICTURE).decode()]}
    status, answer = curl.json(
        "/v2/models/digits/infer", "-d", json.dumps({"parameters": {"timeout": 0}, "inputs": [image]})
    )
    assert status == 200, answer
    assert runner.calls[0].timeout_s is None


def test_a_long_answer_is_packed_for_a_client_that_asks_for_it(curl: Curl, runner: FakeRunner) -> None:
    element = base64.b64encode(PICTURE[:50]).decode()
    image = {"name": "image", "shape": [20], "datatype": "BYTES", "data": [element] * 20}
    ask = ("/v2/models/digits/infer", "-d", json.dumps({"inputs": [image]}))
    _, plain = curl.json(*ask)
    status, unpacked = curl.json(*ask, "--compressed")
    assert status == 200
    assert unpacked["outputs"] == plain["outputs"]
    for coding in ("gzip", "deflate"):
        _, head = curl(*ask, "-H", f"Accept-Encoding: {coding}", "-o", "/dev/null", "-D", "-")
        assert f"content-encoding: {coding}" in head.decode().lower()
        assert "vary: accept-encoding" in head.decode().lower()
    _, head = curl(*ask, "-H", "Accept-Encoding: gzip;q=0, br", "-o", "/dev/null", "-D", "-")
    assert "content-encoding" not in head.decode().lower()


def test_models_their_configuration_and_statistics_are_listed(curl: Curl, runner: FakeRunner) -> None:
    assert curl.json("/v2/models") == (200, {"models": ["digits"]})
    assert curl.json("/v2/models/digits/versions/1/config")[1]["max_batch_size"] == 64
    assert curl.json("/v2/models/stats")[1]["model_stats"][0]["name"] == "digits"
    assert curl.json("/v2/models/cats/config")[0] == 404
    assert curl.json("/v2/models/digits/versions/2/stats")[0] == 404
    for body in ('{"ready": true}', "", "{}"):
        status, index = curl.json("/v2/repository/index", "-X", "POST", *(("-d", body) if body else ()))
        assert (status, index) == (200, [{"name": "digits", "version": "1", "state": "READY", "reason": ""}])
    assert "must be" in curl.json("/v2/repository/index", "-d", '{"ready": 1}')[1]["error"]
    assert "not valid JSON" in curl.json("/v2/repository/index", "-d", "ready")[1]["error"]


def test_models_of_a_stopping_daemon_are_unavailable(curl: Curl, runner: FakeRunner) -> None:
    runner.draining = True
    try:
        [entry] = curl.json("/v2/repository/index", "-X", "POST")[1]
        assert entry["state"] == "UNAVAILABLE"
        assert "is stopping" in entry["reason"]
        assert curl.json("/v2/repository/index", "-d", '{"ready": true}') == (200, [])
    finally:
        runner.draining = False
