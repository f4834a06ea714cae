"""`edgeburst serve --shadow FILE` over real processes: figures beside the live ones, nothing sent and nothing spent."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests
from support import stub_fc
from support.daemon_process import Running, daemon_process, stub_edge_process, until
from support.page_world import Child, write_config
from support.picture_client import picture_request

pytestmark = pytest.mark.xdist_group("serve")

BURST = 30
ONE_BY_ONE = 20
"""At first, from which the live engine learns."""


def shadow_of(config: Path, *changes: tuple[str, str]) -> Path:
    """Writes the live configuration with these texts replaced, with an SLO of its own."""
    text = config.read_text(encoding="utf-8")
    for before, after in (("slo_s = 20.0\n[[model.class]]", "slo_s = 40.0\n[[model.class]]"), *changes):
        assert before in text
        text = text.replace(before, after)
    path = config.parent / "what-if.toml"
    path.write_text(text, encoding="utf-8")
    return path


def shadow(daemon: Running) -> dict[str, Any]:
    told: dict[str, Any] = requests.get(f"{daemon.url}/v1/status", timeout=30).json()["shadow"]
    return told


async def send(daemon: Running, *bursts: int) -> int:
    """Sends so many together, then so many; returns how many requests were answered."""
    answered = 0
    async with aiohttp.ClientSession() as session:

        async def one(picture: bytes) -> None:
            nonlocal answered
            asked = picture_request(picture)
            async with session.post(f"{daemon.url}/v2/models/digits/infer", **asked) as response:
                await response.read()
                answered += response.status == 200

        for number, burst in enumerate(bursts):
            await asyncio.gather(*(one(b"%d of %d" % (each, number)) for each in range(burst)))
    return answered


def settled(daemon: Running) -> Callable[[], bool]:
    """Whether each request that both heard has ended in both."""

    def ended() -> bool:
        told = shadow(daemon)
        sides = [told["live"], told["shadow"]]
        return all(side["answered"] + side["refused"] == side["requests"] > 0 for side in sides)

    return ended


@pytest.mark.slow
def test_a_shadow_is_shown_beside_the_live_figures_and_sends_and_spends_nothing(tmp_path: Path) -> None:
    with (
        Child("functions") as functions,
        stub_edge_process("--alpha-s", "0.04", "--beta-s", "0.01") as edge,
    ):
        config = write_config(
            tmp_path,
            edge=edge.url,
            functions=functions.said["port"],
            slo_s=20.0,
            spend="per_hour = 50.0",
            tenants="",
        )
        edge_table, edge_profile = f'[edge]\nurl = "{edge.url}"\n', 'edge_profile = "orin-resnet50"\n'
        moved = ('state = "state"\n', 'state = "shadow-state"\n')
        beside = shadow_of(config, moved, (edge_table, ""), (edge_profile, ""))
        with daemon_process(config, environ=stub_fc.KEYS, options=("--shadow", str(beside))) as daemon:
            assert shadow(daemon)["state"] == "waiting"
            tried = requests.get(f"{edge.url}/control", timeout=30).json()["items"]
            bursts = [*[1] * ONE_BY_ONE, *[BURST] * 3]
            assert asyncio.run(send(daemon, *bursts)) == sum(bursts)
            until(settled(daemon), "ends on both sides")
            told = shadow(daemon)
            status = requests.get(f"{daemon.url}/v1/status", timeout=30).json()
            metrics = requests.get(f"{daemon.url}/metrics", timeout=30).text
            batches = requests.get(f"{daemon.url}/v1/batches", timeout=30).json()["batches"]
            served = requests.get(f"{edge.url}/control", timeout=30).json()
            now = requests.get(f"{daemon.url}/v1/now", timeout=30).json()["now"]["shadow"]
        assert told["state"] == "hearing"
        assert 0 < told["live"]["requests"] == told["shadow"]["requests"] < sum(bursts)
        assert set(told["shadow"]["places"]) == {"function:1gb"}
        assert set(told["live"]["places"]) == {"edge:main"}
        assert told["shadow"]["within_slo"] > 0.5  # instances start cold, some of them slowly
        assert told["shadow"]["spent"] > told["live"]["spent"] == 0.0
        assert told["loop_share"] < 0.1
        # The cap and the ledger hold the live engine's money alone, and every batch that was sent is a live one.
        (cap,) = status["engine"]["caps"]
        assert cap["spent"] == pytest.approx(status["engine"]["spent"])
        on_edge = [batch for batch in batches if batch["place"] == "edge:main"]
        assert served["items"] == sum(batch["items"] for batch in on_edge) + tried
        assert not (tmp_path / "shadow-state").exists()
        assert (
            'edgeburst_shadow_requests_total{class="interactive",end="answered",engine="shadow",model="digits"}'
            in metrics
        )
        assert f'edgeburst_shadow_spent{{currency="CNY",engine="shadow"}} {told["shadow"]["spent"]}' in metrics
        assert now["shadow"]["spent"] > now["live"]["spent"]
        assert (now["state"], Path(now["config"]).name) == ("hearing", "what-if.toml")


def test_a_bad_file_leaves_the_daemon_without_a_shadow_until_a_reload(tmp_path: Path) -> None:
    with stub_edge_process() as edge:
        config = write_config(tmp_path, edge=edge.url, functions=1, slo_s=20.0, tenants="")
        bad = shadow_of(config, ('name = "1gb"', 'name = "1gb"\nmemory = 3'))
        with daemon_process(config, environ=stub_fc.KEYS, options=("--shadow", str(bad))) as daemon:
            told = shadow(daemon)
            assert told["state"] == "refused"
            assert "what-if.toml:" in told["message"]
            assert "memory" in told["message"]
            assert "\n" not in told["message"]
            assert asyncio.run(send(daemon, 5)) == 5
            assert "edgeburst_shadow_up 0.0" in requests.get(f"{daemon.url}/metrics", timeout=30).text
            assert daemon.log.count("shadow_refused") == 1
            shadow_of(config)
            daemon.signal(signal.SIGHUP)
            until(lambda: shadow(daemon)["state"] == "waiting", "the mended file")
            # A bad one at a reload leaves the old one in use.
            shadow_of(config, ('name = "1gb"', 'name = "1gb"\nmemory = 3'))
            daemon.signal(signal.SIGHUP)
            until(lambda: daemon.log.count("shadow_refused") == 2, "the sentence in the log")
            assert shadow(daemon)["state"] == "waiting"
            assert "the shadow's old configuration stays in use" in daemon.log
