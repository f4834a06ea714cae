"""The daemon before backends that hang: a client of a class that is not served late hears at its deadline."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from support import stub_fc
from support.daemon_process import Running, daemon_process, stub_edge_process
from support.picture_client import picture_request
from support.stub_fc import Heard, Say

pytestmark = pytest.mark.xdist_group("serve")

SLO_S = 1.0
ASKED_S = 1.05
CLIENTS = 3
CONFIG = """
[daemon]
port = 0
{sides}
[[model]]
name = "digits"
{profile}
[[model.class]]
name = "default"
slo_s = 1.0
late = "refuse"
{tier}
"""
EDGE = '[edge]\nurl = "{url}"'


@pytest.fixture(scope="module")
def hung_edge() -> Iterator[Running]:
    with stub_edge_process() as running:
        yield running


def hang(heard: Heard) -> Say:
    """Accepts an invocation and never answers; describes itself."""
    return Say(hang_s=600.0) if heard.method == "POST" and "invocations" in heard.target else Say(200, b"{}")


async def ask(session: aiohttp.ClientSession, daemon: Running) -> tuple[float, int, str]:
    """Sends one request; returns the seconds until the client heard, the status and the sentence."""
    began_s = time.monotonic()
    async with session.post(f"{daemon.url}/v2/models/digits/infer", **picture_request(b"a picture")) as response:
        body = await response.read()
        return time.monotonic() - began_s, response.status, json.loads(body)["error"]


@pytest.mark.parametrize("sides", ["edge", "function", "edge and function"])
def test_the_client_of_hung_backends_hears_at_its_deadline(tmp_path: Path, hung_edge: Running, sides: str) -> None:
    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{hung_edge.url}/control", json={"mode": "hang"}):
                pass
            stub, server, port = await stub_fc.start(hang)
            path = tmp_path / "edgeburst.toml"
            path.write_text(
                CONFIG.format(
                    sides="\n".join(
                        ([EDGE.format(url=hung_edge.url)] if "edge" in sides else [])
                        + ([stub_fc.FUNCTION.format(port=port)] if "function" in sides else [])
                    ),
                    profile='edge_profile = "orin-resnet50"' if "edge" in sides else "",
                    tier=stub_fc.TIER if "function" in sides else "",
                )
            )
            loop = asyncio.get_running_loop()
            context = daemon_process(path, environ=stub_fc.KEYS)
            daemon = await loop.run_in_executor(None, context.__enter__)
            try:
                heard = [await ask(session, daemon) for _ in range(CLIENTS)]
                print(f"clients of a hung {sides} heard after {', '.join(f'{one[0]:.3f} s' for one in heard)}")
                # The first is sent; those after it may be told earlier, as nothing comes back.
                seconds, status, sentence = heard[0]
                assert status == 503, sentence
                assert "had not answered by the request's deadline" in sentence
                assert seconds >= SLO_S - 0.02
                # Other processes may delay one; none waits for the backend, which would take 11 s.
                assert min(waited_s for waited_s, _, said in heard if said == sentence) <= ASKED_S
                assert max(one[0] for one in heard) <= SLO_S + 1.0
                async with session.get(f"{daemon.url}/metrics") as response:
                    text = await response.text()
                assert 'edgeburst_refusals_total{kind="no_answer",reason=""}' in text
                async with session.get(f"{daemon.url}/v1/status") as response:
                    counts = (await response.json())["requests"]
                assert counts["arrived"] == CLIENTS == counts["answered"] + counts["refused"]
            finally:
                await loop.run_in_executor(None, context.__exit__, None, None, None)
                server.close()

    asyncio.run(asyncio.wait_for(main(), 90.0))
