"""Two tenants over real processes: shares under overload, metrics, status, and a reload of shares."""

import asyncio
import json
import re
import signal
from collections import Counter
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
[[tenant]]
name = "a"
share = {a}
[[tenant]]
name = "b"
share = {b}
[[model]]
name = "digits"
edge_profile = "orin-resnet50"
max_items = 16
[[model.class]]
slo_s = 2.0
"""
ALPHA_S, BETA_S = 0.1, 0.04
CAPACITY_RPS = 16 / (ALPHA_S + 16 * BETA_S)
"""22 a second: both processes and two clients are far from what a core can do."""
LEARNING_S, COUNTED_S = 4.0, 8.0


async def send(session: aiohttp.ClientSession, daemon: Running, tenant: str, picture: bytes) -> int:
    asked = picture_request(picture, {"X-Edgeburst-Tenant": tenant})
    async with session.post(f"{daemon.url}/v2/models/digits/infer", **asked) as response:
        await response.read()
        return response.status


async def overload(daemon: Running, tenants: str, *, seconds: float) -> Counter[str]:
    """Each tenant sends twice the capacity in an open loop; returns the answers to requests after the first seconds."""
    loop, served = asyncio.get_running_loop(), Counter[str]()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        began_s = loop.time()

        async def one(number: int, tenant: str, at_s: float) -> None:
            await asyncio.sleep(began_s + at_s - loop.time())
            if await send(session, daemon, tenant, b"%d" % number) == 200 and at_s >= LEARNING_S:
                served[tenant] += 1

        gap_s = 1.0 / (2.0 * CAPACITY_RPS)
        each = [(tenant, number * gap_s) for number in range(int(seconds / gap_s)) for tenant in tenants]
        await asyncio.gather(*[one(number, tenant, at_s) for number, (tenant, at_s) in enumerate(each)])
    return served


async def got(daemon: Running, path: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{daemon.url}{path}") as response:
        return await response.text()


def written(path: Path, **values: object) -> Path:
    path.write_text(CONFIG.format(**values))
    return path


async def scenario(daemon: Running, config: Path, edge: Running) -> tuple[Any, ...]:
    served = await overload(daemon, "ab", seconds=LEARNING_S + COUNTED_S)
    await overload(daemon, "x", seconds=0.1)
    status, metrics = json.loads(await got(daemon, "/v1/status")), await got(daemon, "/metrics")
    batches = json.loads(await got(daemon, "/v1/batches?limit=1000"))["batches"]
    written(config, edge=edge.url, a=1.0, b=7.0)
    daemon.signal(signal.SIGHUP)
    while '"event":"reloaded"' not in daemon.log.replace(" ", "") and "reloaded" not in daemon.log:
        await asyncio.sleep(0.05)
    return served, status, metrics, batches, json.loads(await got(daemon, "/v1/status"))


@pytest.mark.slow
def test_two_clients_at_twice_the_capacity_are_served_by_their_shares(tmp_path: Path) -> None:
    with stub_edge_process("--alpha-s", str(ALPHA_S), "--beta-s", str(BETA_S)) as edge:
        config = written(tmp_path / "edgeburst.toml", edge=edge.url, a=3.0, b=1.0)
        with daemon_process(config) as daemon:
            served, status, metrics, batches, after = asyncio.run(scenario(daemon, config, edge))
    # 170 answers in whole batches of a 0.7 s each: the simulations are exact, this shows that the parts are connected.
    assert served["a"] / served["b"] == pytest.approx(3.0, rel=0.25), served
    rows = {row["tenant"]: row for row in status["tenants"]}
    assert set(rows) == {"a", "b", "other"}
    assert (rows["a"]["model"], rows["a"]["class"]) == ("digits", "default")
    assert rows["a"]["within_slo"] > rows["b"]["within_slo"]
    edge_s = {tenant["name"]: tenant["edge_s"] for tenant in status["engine"]["tenants"]}
    assert edge_s["a"] > 1.5 * edge_s["b"] > 0.0
    assert 'edgeburst_tenant_requests_total{class="default",model="digits",tenant="other"}' in metrics
    assert 'edgeburst_tenant_within_slo_total{class="default",model="digits",tenant="a"}' in metrics
    assert 'edgeburst_tenant_edge_seconds_total{tenant="a"}' in metrics
    assert 'tenant="x"' not in metrics
    assert batches[-1]["tenants"].startswith("other ")
    assert any(re.fullmatch(r"a \d+, b \d+", batch["tenants"]) for batch in batches)
    shares = {tenant["name"]: tenant["share"] for tenant in after["engine"]["tenants"]}
    assert shares == pytest.approx({"a": 1 / 9, "b": 7 / 9, "other": 1 / 9})
