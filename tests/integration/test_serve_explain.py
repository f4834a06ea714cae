"""The daemon as a process explains its decisions: asked while it runs, from its files after, and on a full disk too."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from support.daemon_process import Running, daemon_process, stub_edge_process, until

from scheduler.cli import main

pytestmark = pytest.mark.xdist_group("serve")

CONFIG = """
[daemon]
port = 0
[explain]
file = "{file}"
max_bytes = 8192
files = 3
[edge]
url = "{edge}"
[[model]]
name = "digits"
edge_profile = "orin-resnet50"
[[model.class]]
slo_s = 20.0
"""


@pytest.fixture(scope="module")
def edge() -> Iterator[Running]:
    with stub_edge_process() as running:
        yield running


def config(folder: Path, edge: Running, *, file: str) -> Path:
    path = folder / "edgeburst.toml"
    path.write_text(CONFIG.format(edge=edge.url, file=file))
    return path


def classify(daemon: Running, client_id: str, query: str = "") -> requests.Response:
    headers = {"Content-Type": "image/png", "X-Request-Id": client_id}
    return requests.post(f"{daemon.url}/v1/classify/digits{query}", data=b"x", headers=headers, timeout=30)


def explained(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["explain", *arguments]) == 0
    return capsys.readouterr().out


def without_heading(text: str) -> str:
    return text.partition("\n")[2]


def test_requests_are_explained_while_the_daemon_runs_and_from_its_rotated_files_after(
    edge: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with daemon_process(config(tmp_path, edge, file="why.jsonl")) as daemon:
        numbers = [classify(daemon, f"r{index}").headers["X-Edgeburst-Request-Id"] for index in range(30)]
        hopeless = classify(daemon, "hopeless", "?timeout_s=0.001")
        assert hopeless.status_code == 503
        by_id, by_number = (
            explained(capsys, "r29", "--url", daemon.url),
            explained(capsys, numbers[29], "--url", daemon.url),
        )
        refused = explained(capsys, hopeless.headers["X-Edgeburst-Request-Id"], "--url", daemon.url)
        batches = requests.get(f"{daemon.url}/v1/batches", timeout=30).json()["batches"]
        metrics = requests.get(f"{daemon.url}/metrics", timeout=30).text
        daemon.signal(signal.SIGTERM)
        assert daemon.exit_status() == 0
    # The first line has the time of day, which is reckoned back from the moment of asking.
    assert without_heading(by_id) == without_heading(by_number)
    for words in (
        f"request {numbers[29]} (its client calls it 'r29')",
        "on arrival, it was put into the edge's next batch",
        "decided by least-total: no other offer was possible or asked for",
        "sent to edge:main in batch",
        "before",
    ):
        assert words in by_id
    assert "refused: no place could answer within its deadline" in refused
    for words in ("it was refused", "decided by joins-late", "nearest miss: edge:main"):
        assert words in refused
    assert {(batch["place"], batch["reason"]) for batch in batches} == {("edge:main", "least-total")}
    assert (
        'edgeburst_placements_total{class="default",model="digits",place="edge:main",reason="least-total"} 30.0'
        in metrics
    )
    assert 'edgeburst_refusals_total{kind="deadline",reason="joins-late"} 1.0' in metrics
    file = tmp_path / "why.jsonl"
    assert without_heading(explained(capsys, "r29", "--file", str(file))) == without_heading(by_id)
    client_ids = [json.loads(line)["client_id"] for line in file.read_text().splitlines()]
    assert client_ids == [*(f"r{index}" for index in range(30)), "hopeless"][-len(client_ids) :]
    assert {path.name for path in tmp_path.glob("why.jsonl*")} == {"why.jsonl", "why.jsonl.1", "why.jsonl.2"}
    assert all(path.stat().st_size <= 8192 for path in tmp_path.glob("why.jsonl*"))


def status(daemon: Running) -> dict[str, Any]:
    found: dict[str, Any] = requests.get(f"{daemon.url}/v1/status", timeout=30).json()["explanations"]
    return found


def test_a_full_disk_fails_no_request(edge: Running, tmp_path: Path) -> None:
    with daemon_process(config(tmp_path, edge, file="/dev/full")) as daemon:
        assert [classify(daemon, "a").status_code for _ in range(5)] == [200] * 5
        until(lambda: status(daemon)["lost"] == 5, "five lost lines")
        assert "No space left" in status(daemon)["failure"]
        assert requests.get(f"{daemon.url}/v1/explain/a", timeout=30).status_code == 200
        daemon.signal(signal.SIGTERM)
        assert daemon.exit_status() == 0
        assert daemon.log.count("explain_file_failed") == 1


def test_a_reload_says_that_another_ring_or_file_waits_for_a_restart(edge: Running, tmp_path: Path) -> None:
    path = config(tmp_path, edge, file="why.jsonl")
    with daemon_process(path) as daemon:
        config(tmp_path, edge, file="other.jsonl")
        daemon.signal(signal.SIGHUP)
        until(lambda: "info reloaded" in daemon.log, "the reload")
        assert "needs_restart=explain\n" in daemon.log
        assert classify(daemon, "a").status_code == 200
        assert status(daemon)["file"] == str(tmp_path / "why.jsonl")
