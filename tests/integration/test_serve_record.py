"""The daemon as a process records what arrives, over restarts, and says where."""

import signal
from pathlib import Path

import pytest
import requests
from support.daemon_process import daemon_process, stub_edge_process

from scheduler.recordings.layout import Kind
from scheduler.recordings.recorded import read_recorded

pytestmark = pytest.mark.xdist_group("serve")

CONFIG = """
[daemon]
port = 0
[record]
folder = "arrivals"
[edge]
url = "{edge}"
[[tenant]]
name = "lab"
[[model]]
name = "digits"
edge_profile = "orin-resnet50"
[[model.class]]
slo_s = 20.0
"""


def test_each_arrival_is_recorded_once_over_restarts_and_nothing_of_its_payload(tmp_path: Path) -> None:
    config, secret = tmp_path / "edgeburst.toml", b"a-very-secret-picture" * 10
    with stub_edge_process() as edge:
        config.write_text(CONFIG.format(edge=edge.url))
        for _ in range(2):
            with daemon_process(config) as daemon:
                headers = {"Content-Type": "image/png", "X-Edgeburst-Tenant": "lab"}
                for query in ("", "?timeout_s=7"):
                    url = f"{daemon.url}/v1/classify/digits{query}"
                    assert requests.post(url, data=secret, headers=headers, timeout=30).status_code == 200
                status = requests.get(f"{daemon.url}/v1/status", timeout=30).json()["recording"]
                daemon.signal(signal.SIGTERM)
                assert daemon.exit_status() == 0
    found = read_recorded(tmp_path / "arrivals")
    assert (status["folder"], status["lost"]) == (str(tmp_path / "arrivals"), 0)
    assert found.kinds == (Kind("digits", "default", "lab", 2),)
    assert found.timeouts_s.tolist() == pytest.approx([float("nan"), 7.0] * 2, nan_ok=True)
    assert found.body_bytes.tolist() == [len(secret) + 4] * 4, "a picture and its length"
    assert (found.times_s > 1_780_000_000).all()
    written = b"".join(path.read_bytes() for path in (tmp_path / "arrivals").iterdir())
    assert b"secret" not in written
