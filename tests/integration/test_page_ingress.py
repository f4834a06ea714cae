"""The page's files and its stream over a real socket: what they load, for which callers, how many are open."""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import pytest
import requests
from support.fake_runner import FakeRunner
from support.ingress_server import IngressServer

from scheduler.daemon.config.config import load_config
from scheduler.daemon.history.feed import Feed
from scheduler.daemon.http import page
from scheduler.explain.words import CAUSES, GATES, LEFT, OUTCOMES, QUEUES, REASONS

ROOT = Path(__file__).parents[2]
READER, CAMERA = "secret-of-the-reader", "secret-of-the-camera"
CONFIG = """
[daemon]
port = 0
[edge]
[[model]]
name = "digits"
edge_profile = "orin-resnet50"
"""
TOKENS = f"""
[[token]]
name = "reader"
sha256 = "{sha256(READER.encode()).hexdigest()}"
scopes = ["read"]
concurrency = 1
[[token]]
name = "camera"
sha256 = "{sha256(CAMERA.encode()).hexdigest()}"
"""


class Served:
    """A server whose feed a test drives."""

    def __init__(self, server: IngressServer, feed: Feed) -> None:
        self.server, self.feed, self.url = server, feed, server.url

    def tick(self) -> None:
        self.server.on_loop(self.feed.tick)

    def stream(self, after: int = 0, **headers: str) -> requests.Response:
        return requests.get(f"{self.url}/v1/events?after={after}", headers=headers, stream=True, timeout=10)


def served(folder: Path, more: str = "") -> Iterator[Served]:
    path = folder / "edgeburst.toml"
    path.write_text(CONFIG + more)
    parts = FakeRunner().parts()
    with IngressServer(parts, load_config(path, {}), {}) as server:
        yield Served(server, parts.feed)
        server.on_loop(parts.feed.close)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Served]:
    yield from served(tmp_path)


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Served]:
    """One that knows tokens."""
    yield from served(tmp_path, TOKENS)


def next_event(lines: Iterator[bytes]) -> dict[str, object]:
    for line in lines:
        if line.startswith(b"data: "):
            found: dict[str, object] = json.loads(line[6:])
            return found
    raise AssertionError("the stream ended")


class TestFiles:
    def test_the_page_runs_and_loads_only_what_the_daemon_has(self, daemon: Served) -> None:
        response = requests.get(daemon.url, timeout=10)
        rules = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in rules
        assert "unsafe-inline" not in rules
        assert "unsafe-eval" not in rules
        assert "<style" not in response.text
        assert not re.search(r"<script(?![^>]*src=)", response.text)
        assert not re.search(r"\son\w+=|style=", response.text)
        wanted = set(re.findall(r'(?:src|href)="(page/[^"]+)"', response.text))
        assert wanted >= {"page/main.js", "page/style.css", "page/uplot.js"}
        while wanted:
            name = wanted.pop()
            found = requests.get(f"{daemon.url}/{name}", timeout=10)
            assert found.status_code == 200, name
            wanted |= {f"page/{each}" for each in re.findall(r'from "\./([^"]+)"', found.text)} - {name}

    def test_its_scripts_name_no_other_host(self) -> None:
        for name, body in page.page_files().items():
            if name.startswith("uplot"):
                continue
            addresses = set(re.findall(r"https?://[^\"'\s)]+", body.decode()))
            assert addresses <= {"http://www.w3.org/2000/svg"}, name
            assert len(body.decode().splitlines()) < 400, name

    def test_the_package_has_them(self) -> None:
        settings = ConfigParser()
        settings.read(ROOT / "setup.cfg", encoding="utf-8")
        patterns = settings["options.package_data"]["scheduler"].split()
        packed = {path.name for pattern in patterns for path in (ROOT / "scheduler").glob(pattern)}
        assert set(page.page_files()) - packed == {"words.js"}, "which is made as the daemon runs"

    def test_uplot_has_its_licence(self, daemon: Served) -> None:
        licence = requests.get(f"{daemon.url}/page/uplot-license.txt", timeout=10).text
        assert "MIT License" in licence
        assert "Leon Sorokin" in licence

    def test_the_words_are_those_of_the_command(self, daemon: Served) -> None:
        text = requests.get(f"{daemon.url}/page/words.js", timeout=10).text
        for words in (CAUSES, GATES, LEFT, OUTCOMES, QUEUES, REASONS):
            for key, word in words.items():
                assert json.dumps(word, ensure_ascii=False) in text
                assert str(getattr(key, "value", key)) in text

    def test_a_file_that_is_known_is_not_sent_again(self, daemon: Served) -> None:
        first = requests.get(f"{daemon.url}/page/style.css", timeout=10)
        again = requests.get(
            f"{daemon.url}/page/style.css", headers={"If-None-Match": first.headers["ETag"]}, timeout=10
        )
        assert (again.status_code, again.content) == (304, b"")

    @pytest.mark.parametrize("name", ["", "nothing.js", "../serve.py", "..%2fserve.py", "%2e%2e/serve.py", "index"])
    def test_there_is_nothing_else(self, daemon: Served, name: str) -> None:
        connection = socket.create_connection(("127.0.0.1", daemon.server.port), timeout=10)
        with connection:
            connection.sendall(f"GET /page/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            assert b" 404 " in connection.recv(64)


class TestAccess:
    def test_only_files_are_shown_without_a_token(self, closed: Served) -> None:
        for path, status in (
            ("/", 200),
            ("/page/main.js", 200),
            ("/v1/now", 401),
            ("/v1/history", 401),
            ("/v1/events", 401),
        ):
            assert requests.get(closed.url + path, timeout=10).status_code == status
            other = requests.get(closed.url + path, headers={"Authorization": f"Bearer {CAMERA}"}, timeout=10)
            assert other.status_code == (200 if status == 200 else 403)

    def test_an_open_page_is_none_of_its_token_s_unanswered_requests(self, closed: Served) -> None:
        token = {"Authorization": f"Bearer {READER}"}
        with closed.stream(**token) as stream:
            assert stream.status_code == 200
            for path in ("/v1/now", "/v1/history", "/v1/history?columns=0"):
                assert requests.get(closed.url + path, headers=token, timeout=10).status_code == 200

    def test_another_page_and_another_name_are_refused(self, daemon: Served) -> None:
        for path in ("/v1/now", "/v1/history", "/v1/events"):
            origin = {"Origin": "http://elsewhere.example"}
            assert requests.get(daemon.url + path, headers=origin, timeout=10).status_code == 403
            assert requests.get(daemon.url + path, headers={"Host": "elsewhere.example"}, timeout=10).status_code == 421

    def test_no_secret_is_in_what_the_page_gets(self, closed: Served) -> None:
        for name, body in page.page_files().items():
            assert b"Bearer " not in body.replace(b'"Bearer " + token', b""), name
        now = requests.get(f"{closed.url}/v1/now", headers={"Authorization": f"Bearer {READER}"}, timeout=10).text
        assert READER not in now
        assert sha256(READER.encode()).hexdigest() not in now


class TestStream:
    def test_what_changes_comes_as_events_that_follow_the_snapshot(self, daemon: Served) -> None:
        begun = requests.get(f"{daemon.url}/v1/now", timeout=10).json()
        with daemon.stream(begun["id"]) as stream:
            assert stream.headers["Content-Type"].startswith("text/event-stream")
            lines = stream.iter_lines()
            body = {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["AAAA"]}]}
            assert requests.post(f"{daemon.url}/v2/models/digits/infer", json=body, timeout=10).status_code == 200
            daemon.tick()
            event = next_event(lines)
            assert event["id"] == begun["id"] + 1
            names, cells = event["names"], event["second"]["c"]  # type: ignore[index]
            counted = {tuple(names[cell[0]]): cell[1:3] for cell in cells}  # type: ignore[index]
            # The fake answers by "edge", a real one by a place.
            assert counted == {("digits", "default", "", ""): [1, 0], ("digits", "default", "", "edge"): [0, 1]}
        history = requests.get(f"{daemon.url}/v1/history", timeout=10)
        assert sum(value or 0 for value in history.json()["columns"]["edge"]) == 1
        assert history.headers["Cache-Control"] == "no-store"

    def test_history_and_snapshot_are_packed(self, daemon: Served) -> None:
        for _ in range(3):
            daemon.tick()
        with requests.get(f"{daemon.url}/v1/history", stream=True, timeout=10) as response:
            raw = response.raw.read(decode_content=False)
        assert response.headers["Content-Encoding"] == "gzip"
        assert len(raw) < 5000 < len(gzip.decompress(raw))

    @pytest.mark.parametrize("query", ["from=x", "to=-1", "columns=yes", "from=1.5"])
    def test_a_span_that_is_none_is_refused_with_a_sentence(self, daemon: Served, query: str) -> None:
        response = requests.get(f"{daemon.url}/v1/history?{query}", timeout=10)
        assert response.status_code == 400
        assert "whole number" in response.json()["error"]

    @pytest.mark.parametrize("query", ["from=0&to=99999999999", "from=5&to=1", "model=none&place=" + "x" * 500])
    def test_any_span_and_filter_is_answered(self, daemon: Served, query: str) -> None:
        assert requests.get(f"{daemon.url}/v1/history?{query}", timeout=10).status_code == 200

    def test_streams_are_bounded_and_their_places_come_back(self, daemon: Served) -> None:
        with ExitStack() as stack:
            streams = [stack.enter_context(daemon.stream()) for _ in range(page.STREAMS_OF_CLIENT)]
            assert [stream.status_code for stream in streams] == [200] * page.STREAMS_OF_CLIENT
            refused = daemon.stream()
            assert refused.status_code == 429
            assert "pages are open" in refused.json()["error"]
        give_up_s = time.monotonic() + 20
        while (again := daemon.stream()).status_code != 200:
            assert time.monotonic() < give_up_s
            again.close()
            daemon.tick()
        again.close()

    def test_all_end_when_the_daemon_stops(self, daemon: Served) -> None:
        with daemon.stream() as stream:
            daemon.server.on_loop(daemon.feed.close)
            assert b"event: over" in b"".join(stream.iter_content(None))

    def test_a_reader_that_takes_nothing_is_dropped(self, daemon: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(page, "WRITE_LIMIT_S", 0.2)
        begun = requests.get(f"{daemon.url}/v1/now", timeout=10).json()["id"]
        event = b"data: " + b"x" * 8_000_000 + b"\n\n"
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(("127.0.0.1", daemon.server.port))
            slow.sendall(f"GET /v1/events?after={begun} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert slow.recv(16)

            def flood() -> None:
                daemon.feed.tick()
                daemon.feed._events[-1] = (daemon.feed._events[-1][0], event)

            daemon.server.on_loop(flood)
            give_up_s = time.monotonic() + 20
            while daemon.server.ingress.page_calls._open:
                assert time.monotonic() < give_up_s
                time.sleep(0.02)
