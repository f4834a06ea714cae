"""MLPerf's LoadGen tests a real daemon with a stub edge behind it: what the script prints is LoadGen's own verdict."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.domain.errors import EdgeburstError
from scripts import mlperf
from scripts.support import loadgen

ROOT = Path(__file__).parents[2]
# A stub of 14 requests a batch of 25 ms at most: Offline takes its second on any machine.
SLOW_STUB = ("--alpha-ms", "10", "--beta-ms", "1", "--max-batch", "15", "--offline-rps", "600")


def run_script(*options: str) -> subprocess.CompletedProcess[str]:
    # A process of its own: it keeps itself on one core.
    command = [sys.executable, "-m", "scripts.mlperf", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def needs_loadgen() -> None:
    try:
        loadgen.library()
    except loadgen.NoLoadGen as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("needs_loadgen")
def test_loadgen_judges_a_daemon_in_both_scenarios(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = run_script(
        *("--seconds", "1", "--rps", "800", "--latency-ms", "20000", *SLOW_STUB),
        *("--out", str(tmp_path / "logs"), "--json", str(figures)),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(figures.read_text())
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith(("| Server", "| Offline"))]
    assert [(row[0], row[6], row[7]) for row in rows] == [("| Server", "VALID", "0 |"), ("| Offline", "VALID", "0 |")]
    for scenario, rate in (("Server", "Completed samples per second"), ("Offline", "Samples per second")):
        summary = (tmp_path / "logs" / f"{scenario}_summary.txt").read_text()
        lines = dict(line.split(":", 1) for line in summary.splitlines() if line.count(":") == 1)
        own = {name.strip(): value.strip() for name, value in lines.items()}
        assert own["Result is"] == "VALID"
        assert float(own[rate]) == pytest.approx(said[scenario]["rps"], rel=1e-3)
        assert float(own["99.00 percentile latency (ns)"]) == pytest.approx(said[scenario]["p99_ms"] * 1e6)
    assert said["Offline"]["samples"] >= 600


@pytest.mark.usefixtures("needs_loadgen")
@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b"HTTP/1.1 503 X\r\nContent-Length: 4\r\n\r\nbusy", "503 busy"),
        (b"", "connection lost: closed by the server"),
    ],
)
def test_what_is_not_answered_counts_as_failed_whatever_loadgen_says(
    answer: bytes, failure: str, tmp_path: Path
) -> None:
    asked = loadgen.Asked("Server", rps=1000.0, latency_s=20.0, duration_s=0.2)
    with served(answer) as port:
        said = loadgen.run(asked, port, [b"POST / HTTP/1.1\r\n\r\n"], tmp_path, connections=4)

    assert set(said.failed) == {failure}
    assert said.failed[failure] == said.samples >= 100


@pytest.mark.usefixtures("needs_loadgen")
def test_a_daemon_elsewhere_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EdgeburstError, match=r"is no daemon of this host; one is http://127\.0\.0\.1:8600"):
        mlperf.main(["--url", "https://example.org", "--out", str(tmp_path)])


@pytest.mark.usefixtures("needs_loadgen")
def test_a_port_where_nothing_listens_is_told_before_the_run(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(EdgeburstError, match=r"nothing answers at --url .*start `edgeburst serve` there"):
        mlperf.main(["--url", f"http://127.0.0.1:{port}", "--out", str(tmp_path)])


@contextlib.contextmanager
def served(answer: bytes) -> Iterator[int]:
    """Serves these bytes to each request, and closes where there are none; gives the port."""

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while self.request.recv(1000) and answer:
                self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
