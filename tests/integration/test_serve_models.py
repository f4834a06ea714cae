"""A daemon before an edge that fails with one of its models: readiness per model, and the other model goes on."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.daemon_process import Running, daemon_process, stub_edge_process, until
from support.picture_client import picture_request

pytestmark = pytest.mark.xdist_group("serve")

MODEL = """
[[model]]
name = "{name}"
edge_profile = "orin-resnet50"
inputs = [{{ name = "image", datatype = "BYTES", shape = [] }}]
outputs = [{{ name = "probabilities", datatype = "FP32", shape = [10] }}]
[[model.class]]
slo_s = 2.0
"""


@pytest.fixture(scope="module")
def edge() -> Iterator[Running]:
    with stub_edge_process() as running:
        yield running


def behave(edge: Running, **behaviour: object) -> None:
    data = json.dumps(behaviour).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{edge.url}/control", data=data), timeout=20):
        pass


def ready(daemon: Running, model: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"{daemon.url}/v2/models/{model}/ready", timeout=20) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


async def infer(daemon: Running, model: str) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{daemon.url}/v2/models/{model}/infer", **picture_request(b"a picture")) as response,
    ):
        await response.read()
        return response.status


@pytest.mark.parametrize("mode", ["nan", "short", "other_model", "status", "hang"])
def test_readiness_follows_each_model_from_the_start(tmp_path: Path, edge: Running, mode: str) -> None:
    config = tmp_path / "edgeburst.toml"
    models = MODEL.format(name="sound") + MODEL.format(name="broken")
    config.write_text(f'[daemon]\nport = 0\n[edge]\nurl = "{edge.url}"\n{models}')
    behave(edge, mode=mode, only_model="broken")
    with daemon_process(config) as daemon:
        # Nothing was asked of it yet: made-up batches have shown it.
        until(lambda: ready(daemon, "broken")[0] == 503, "it is not ready")
        assert "model 'broken'" in ready(daemon, "broken")[1]["error"]
        assert ready(daemon, "sound") == (200, {"name": "sound", "ready": True})
        assert asyncio.run(infer(daemon, "sound")) == 200
        assert asyncio.run(infer(daemon, "broken")) == 503
        assert "model_check" in daemon.log
        metrics = urllib.request.urlopen(f"{daemon.url}/metrics", timeout=20).read().decode()
        assert 'edgeburst_model_up{backend="edge",model="broken"} 0.0' in metrics
        assert 'edgeburst_model_up{backend="edge",model="sound"} 1.0' in metrics
        behave(edge, mode="ok")
        until(lambda: ready(daemon, "broken")[0] == 200, "it is ready again")
        assert asyncio.run(infer(daemon, "broken")) == 200
