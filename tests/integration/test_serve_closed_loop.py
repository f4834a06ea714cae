"""Eight clients that each wait for their answer, over real processes: the edge's batches hold nearly all of them."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.daemon_process import Running, daemon_process, stub_edge_process
from support.picture_client import picture_request

pytestmark = pytest.mark.xdist_group("serve")

CONFIG = """
[daemon]
port = 0
[edge]
url = "{edge}"
[[model]]
name = "digits"
edge_profile = "orin-resnet50"
[[model.class]]
slo_s = 5.0
"""
CLIENTS, EACH, LEARNING = 8, 50, 10
"""Clients, requests of each of them, and batches until the loop is known."""


async def closed_loop(daemon: Running) -> list[dict[str, Any]]:
    async def one(number: int) -> None:
        asked = picture_request(b"%d" % number)
        for _ in range(EACH):
            url = f"{daemon.url}/v2/models/digits/infer"
            async with session.post(url, **asked) as response:
                assert response.status == 200, await response.read()
                await response.read()

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*[one(number) for number in range(CLIENTS)])
        async with session.get(f"{daemon.url}/v1/batches?limit=1000") as response:
            found: list[dict[str, Any]] = json.loads(await response.text())["batches"]
            return found


def test_the_edges_batches_hold_nearly_all_clients(tmp_path: Path) -> None:
    # The law of the profile, at which batches of 1 and 7 would alternate.
    with stub_edge_process("--alpha-s", "0.04234", "--beta-s", "0.008165") as edge:
        config = tmp_path / "edgeburst.toml"
        config.write_text(CONFIG.format(edge=edge.url))
        with daemon_process(config) as daemon:
            batches = asyncio.run(closed_loop(daemon))
    sizes = [batch["items"] for batch in batches]
    assert sum(sizes) == CLIENTS * EACH
    # At a busy host clients are late now and then; without waiting for them the mean is 4.
    counted = sizes[LEARNING:-1]
    assert sum(counted) / len(counted) >= 0.75 * CLIENTS, sizes
