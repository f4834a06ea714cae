"""A daemon with functions alone, as a process: a lone request is in time although its instance has to start."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import numpy as np
from support import stub_fc
from support.daemon_process import daemon_process
from support.picture_client import picture_request, row_of
from support.stub_fc import Heard, Say

from scripts.support.stub_edge import expected_row

SLO_S, START_S = 6.0, 2.5
"""Sent at once, an answer takes half of the SLO; held for others until the last moment of a warm call, more than it."""
CONFIG = """
[daemon]
port = 0
[function]
endpoint = "127.0.0.1:{port}"
protocol = "http"
access_key_id_env = "TEST_KEY_ID"
access_key_secret_env = "TEST_KEY_SECRET"
[[model]]
name = "digits"
[[model.class]]
name = "default"
slo_s = {slo_s}
late = "serve"
[[model.tier]]
name = "1gb"
function = "digits"
profile = "fc-resnet50-1gb"
memory_gb = 1.0
"""


def cold(heard: Heard) -> Say:
    """A platform whose instance starts for each call."""
    if heard.method == "GET":
        return Say(200, b"{}", {"Content-Type": "application/json"})
    said = stub_fc.answer_frame(heard, cold_start=True)
    return Say(said.status, said.body, said.headers, hang_s=START_S)


async def infer(session: aiohttp.ClientSession, url: str, picture: bytes) -> np.ndarray:
    async with session.post(f"{url}/v2/models/digits/infer", **picture_request(picture)) as response:
        body = await response.read()
        assert response.status == 200, body
        return row_of(response, body)


def test_a_lone_request_is_in_time_although_its_function_starts_cold(tmp_path: Path) -> None:
    async def main() -> str:
        async with AsyncExitStack() as stack:
            _, server, port = await stub_fc.start(cold)
            stack.callback(server.close)
            config = tmp_path / "edgeburst.toml"
            config.write_text(CONFIG.format(port=port, slo_s=SLO_S))
            start = asyncio.get_running_loop().run_in_executor
            daemon = await start(None, stack.enter_context, daemon_process(config, environ=stub_fc.KEYS))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            assert np.array_equal(await infer(session, daemon.url, b"x"), expected_row(b"x"))
            async with session.get(f"{daemon.url}/metrics") as response:
                return await response.text()

    metrics = asyncio.run(asyncio.wait_for(main(), 60.0))
    assert 'edgeburst_within_slo_total{class="default",model="digits"} 1.0' in metrics
    assert 'edgeburst_cold_starts_total{model="digits",tier="1gb"} 1.0' in metrics
    assert 'edgeburst_warming_calls_total{model="digits",tier="1gb"} 0.0' in metrics
