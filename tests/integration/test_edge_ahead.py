"""Batches sent ahead, over real processes: to our server on an emulated device, and to one that reports nothing."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import cv2
import numpy as np
import pytest
from support.daemon_process import Running, daemon_process, stub_edge_process
from support.edge_process import running
from support.picture_client import picture_request

from models.profile import load_profile

pytestmark = [pytest.mark.xdist_group("serve"), pytest.mark.slow]

CONFIG = """
[daemon]
port = 0
[edge]
url = "{url}"
ahead = {ahead}
parallel = 1
[[model]]
name = "digits"
edge_profile = "{profile}"
[[model.class]]
slo_s = 20.0
"""
ALPHA_S, BETA_S, DECODE_S = 0.2, 0.01, 0.1
REQUESTS, GAP_S = 240, 0.01


def profile(folder: Path) -> Path:
    values = json.loads((Path(__file__).parents[2] / "models" / "profiles" / "orin-resnet50.json").read_text())
    law = {"alpha_s": ALPHA_S, "beta_s": BETA_S, "decode_s": DECODE_S, "max_batch": 16, "model": "digits"}
    path = folder / "law.json"
    path.write_text(json.dumps({**values, **law, "name": "law"}))
    assert load_profile(str(path)).decode_s == DECODE_S
    return path


async def load(
    daemon: Running, requests: int = REQUESTS
) -> tuple[list[int], list[dict[str, Any]], dict[str, Any], str]:
    """Sends the requests; returns their statuses, the edge's batches, its row in the status, and the metrics."""
    asked = picture_request(cv2.imencode(".png", np.zeros((28, 28), np.uint8))[1].tobytes())

    async def one(number: int) -> int:
        await asyncio.sleep(number * GAP_S)
        async with session.post(f"{daemon.url}/v2/models/digits/infer", **asked) as response:
            await response.read()
            return response.status

    async def read(path: str) -> str:
        async with session.get(f"{daemon.url}{path}") as response:
            return await response.text()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        statuses = list(await asyncio.gather(*[one(number) for number in range(requests)]))
        batches = json.loads(await read("/v1/batches?limit=1000"))["batches"]
        [row] = json.loads(await read("/v1/status"))["engine"]["edges"]
        return statuses, batches, row, await read("/metrics")


def together(batches: Sequence[dict[str, Any]]) -> list[int]:
    """Returns, of each batch, how many others were in flight when it was sent."""
    return [
        sum(other["sent_at_s"] < batch["sent_at_s"] < other["finished_at_s"] for other in batches) for batch in batches
    ]


@pytest.mark.parametrize("ahead", ["auto", "0"])
def test_our_server_gets_one_ahead_by_itself_once_its_lead_is_known(tmp_path: Path, ahead: str) -> None:
    law, word = profile(tmp_path), '"auto"' if ahead == "auto" else ahead
    with running("--model", "digits", "--runtime", "onnxruntime", "--emulate", str(law), "--max-batch", "16") as edge:
        config = tmp_path / "edgeburst.toml"
        config.write_text(CONFIG.format(url=edge.url, ahead=word, profile=law))
        with daemon_process(config) as daemon:
            statuses, batches, row, metrics = asyncio.run(load(daemon))
    assert statuses == [200] * REQUESTS
    assert sum(batch["items"] for batch in batches) == REQUESTS
    beside = together(batches)
    if ahead == "0":
        assert max(beside) == 0
        assert row["ahead_s"] == 0.0
        return
    assert max(beside) == 1
    assert sum(beside) > 0.3 * len(batches)
    assert row["ahead_s"] >= DECODE_S
    assert f'edgeburst_edge_ahead_seconds{{edge="main"}} {row["ahead_s"]}' in metrics
    waited_s = [batch["queue_s"] for batch in batches]
    assert all(seconds is not None for seconds in waited_s)


@pytest.mark.parametrize(("ahead", "most"), [('"auto"', 0), ("1", 1)])
def test_a_server_that_reports_nothing_gets_one_only_where_it_is_wanted(tmp_path: Path, ahead: str, most: int) -> None:
    law = profile(tmp_path)
    with stub_edge_process("--alpha-s", str(ALPHA_S), "--beta-s", str(BETA_S)) as edge:
        config = tmp_path / "edgeburst.toml"
        config.write_text(CONFIG.format(url=edge.url, ahead=ahead, profile=law))
        with daemon_process(config) as daemon:
            statuses, batches, row, _ = asyncio.run(load(daemon))
    assert statuses == [200] * REQUESTS
    assert max(together(batches)) == most
    assert (row["ahead_s"] > 0.0) is bool(most)


def test_a_server_with_tritons_statistics_gets_one_ahead_by_itself(tmp_path: Path) -> None:
    law, options = profile(tmp_path), ("--beside-s", str(DECODE_S), "--statistics")
    with stub_edge_process("--alpha-s", str(ALPHA_S), "--beta-s", str(BETA_S), *options) as edge:
        config = tmp_path / "edgeburst.toml"
        config.write_text(CONFIG.format(url=edge.url, ahead='"auto"', profile=law))
        with daemon_process(config) as daemon:
            statuses, batches, row, _ = asyncio.run(load(daemon, requests=480))
    assert statuses == [200] * 480
    assert max(together(batches)) == 1
    assert row["ahead_s"] >= 0.9 * DECODE_S
    assert {batch["service_s"] for batch in batches} == {None}
