"""One daemon before two edge servers in processes of their own: both work, and neither loses a request when it goes."""

import asyncio
import json
import signal
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from support.daemon_process import Running, daemon_process, stub_edge_process, until
from support.picture_client import picture_request, row_of

from scripts.support.stub_edge import expected_row

pytestmark = pytest.mark.xdist_group("serve")

BOTH = {"edge:near", "edge:far"}
LAW = ("--alpha-s", "0.03", "--beta-s", "0.004")
EDGE = '[[edge]]\nname = "{name}"\nurl = "{url}"\nparallel = {parallel}\n{more}'
MODEL = """
[[model]]
name = "{name}"
edge_profile = "orin-resnet50"
inputs = [{{ name = "image", datatype = "BYTES", shape = [] }}]
outputs = [{{ name = "probabilities", datatype = "FP32", shape = [10] }}]
[[model.class]]
slo_s = 30.0
"""


def written(folder: Path, edges: Sequence[str], models: Sequence[str] = ("digits",)) -> Path:
    path = folder / "edgeburst.toml"
    path.write_text("\n".join(["[daemon]\nport = 0", *edges, *(MODEL.format(name=name) for name in models)]))
    return path


def edge_of(name: str, url: str, more: str = "", *, parallel: int = 1) -> str:
    return EDGE.format(name=name, url=url, more=more, parallel=parallel)


@contextmanager
def two_edges() -> Iterator[tuple[Running, Running]]:
    with stub_edge_process(*LAW) as near, stub_edge_process(*LAW) as far:
        yield near, far


def read(daemon: Running, path: str) -> Any:
    with urllib.request.urlopen(f"{daemon.url}{path}", timeout=20) as response:
        return json.loads(response.read())


def metric(daemon: Running, sample: str) -> float | None:
    with urllib.request.urlopen(f"{daemon.url}/metrics", timeout=20) as response:
        lines = response.read().decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(sample + " ")), None)


def states(daemon: Running) -> dict[str, bool]:
    return {edge["name"]: edge["up"] for edge in read(daemon, "/v1/status")["engine"]["edges"]}


def placed(daemon: Running) -> Counter[str]:
    """How many requests were sent to each place so far."""
    found = Counter[str]()
    for row in read(daemon, "/v1/status")["placements"]:
        found[row["place"]] += row["requests"]
    return found


def answered_at(daemon: Running, model: str) -> set[str]:
    """The places of the first batches of a model that were answered."""
    rows = read(daemon, "/v1/batches?after=0&limit=500")["batches"]
    return {row["place"] for row in rows if row["model"] == model and not row["error"]}


async def one(session: aiohttp.ClientSession, daemon: Running, model: str, number: int) -> bool:
    picture = f"picture {number}".encode()
    async with session.post(f"{daemon.url}/v2/models/{model}/infer", **picture_request(picture)) as response:
        body = await response.read()
        if response.status != 200:
            return False
        head = json.loads(body[: int(response.headers.get("Inference-Header-Content-Length", len(body)))])
        named = head["parameters"]["edge"] in {edge.removeprefix("edge:") for edge in (*BOTH, "edge:new", "edge:box")}
        return named and np.array_equal(row_of(response, body), expected_row(picture))


class Traffic:
    """Requests that go on until they are ended; each must be answered once, with the right row."""

    def __init__(self, daemon: Running, models: Sequence[str] = ("digits",), rate_rps: float = 60.0) -> None:
        self.daemon, self.models, self.rate_rps = daemon, models, rate_rps
        self.asked: list[asyncio.Task[bool]] = []

    async def __aenter__(self) -> "Traffic":
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        self.going_on = asyncio.create_task(self.go_on())
        return self

    async def go_on(self) -> None:
        while True:
            number = len(self.asked)
            model = self.models[number % len(self.models)]
            self.asked.append(asyncio.create_task(one(self.session, self.daemon, model, number)))
            await asyncio.sleep(1.0 / self.rate_rps)

    async def __aexit__(self, *_: object) -> None:
        self.going_on.cancel()
        answered = await asyncio.wait_for(asyncio.gather(*self.asked), 60.0)
        await self.session.close()
        assert len(answered) > 0
        assert all(answered), f"{answered.count(False)} of {len(answered)} requests were not answered well"


async def reached(condition: Any, what: str) -> None:
    """Waits in a thread of its own until a condition holds, while traffic goes on."""
    await asyncio.get_running_loop().run_in_executor(None, until, condition, what)


def test_both_work_and_one_that_is_killed_returns_and_is_removed_loses_nothing(tmp_path: Path) -> None:
    async def story(daemon: Running, near: Running, far: Running) -> None:
        async with Traffic(daemon):
            await reached(lambda: answered_at(daemon, "digits") == BOTH, "both have served a batch")
            assert states(daemon) == {"near": True, "far": True}
            far.signal(signal.SIGKILL)
            await reached(lambda: not states(daemon)["far"], "the killed one is not used")
            assert metric(daemon, 'edgeburst_edge_up{edge="far"}') == 0.0
            assert metric(daemon, 'edgeburst_edge_model_up{edge="near",model="digits"}') == 1.0
            assert metric(daemon, 'edgeburst_backend_up{backend="edge"}') == 1.0
            with stub_edge_process(*LAW, "--port", str(far.port)):
                await reached(lambda: states(daemon)["far"], "it is back")
                seen = placed(daemon)["edge:far"]
                await reached(lambda: placed(daemon)["edge:far"] > seen, "it serves again")
                written(tmp_path, [edge_of("far", far.url)])
                daemon.signal(signal.SIGHUP)
                await reached(lambda: list(states(daemon)) == ["far"], "the other one is removed")
                assert [edge["name"] for edge in read(daemon, "/v1/status")["edges"]] == ["far"]
                assert metric(daemon, 'edgeburst_edge_up{edge="near"}') is None
                left = placed(daemon)
                await reached(lambda: placed(daemon)["edge:far"] > left["edge:far"] + 20, "the other one goes on")
                assert placed(daemon)["edge:near"] == left["edge:near"]
                written(tmp_path, [edge_of("far", far.url), edge_of("new", near.url)])
                daemon.signal(signal.SIGHUP)
                await reached(lambda: placed(daemon)["edge:new"] > 5, "one that was added serves")

    with two_edges() as (near, far):
        config = written(tmp_path, [edge_of("near", near.url), edge_of("far", far.url)])
        with daemon_process(config) as daemon:
            asyncio.run(asyncio.wait_for(story(daemon, near, far), 90.0))
            status = read(daemon, "/v1/status")
            # Traffic goes on at once to what is left: no request waited for the one that was killed.
            assert status["requests"]["refused"] == 0
            assert set(placed(daemon)) == {*BOTH, "edge:new"}


def test_a_model_goes_only_to_the_edge_that_serves_it(tmp_path: Path) -> None:
    async def story(daemon: Running) -> None:
        async with Traffic(daemon, models=("digits", "other", "own")):
            await reached(lambda: answered_at(daemon, "digits") == BOTH, "both have served a batch")
            await reached(
                lambda: bool(answered_at(daemon, "other") and answered_at(daemon, "own")), "each model was served"
            )

    with two_edges() as (near, far):
        mine = edge_of("near", near.url, 'models = ["digits", "other"]\n')
        theirs = edge_of("far", far.url, 'models = ["digits", "own"]\n')
        config = written(tmp_path, [mine, theirs], models=("digits", "other", "own"))
        with daemon_process(config) as daemon:
            asyncio.run(asyncio.wait_for(story(daemon), 90.0))
            assert (answered_at(daemon, "other"), answered_at(daemon, "own")) == ({"edge:near"}, {"edge:far"})
            rows = {row["model"]: dict(row["edges"]) for row in read(daemon, "/v1/status")["engine"]["models_up"]}
            assert rows == {"digits": {"near": True, "far": True}, "other": {"near": True}, "own": {"far": True}}
            described = {edge["name"]: edge for edge in read(daemon, "/v1/status")["edges"]}
            assert (described["near"]["url"], described["far"]["url"]) == (near.url, far.url)


@pytest.mark.parametrize("parallel", [1, 3])
def test_one_that_serves_several_batches_at_once_is_given_so_many_and_never_more(tmp_path: Path, parallel: int) -> None:
    async def story(daemon: Running, edge: Running) -> int:
        async with Traffic(daemon, rate_rps=150.0):
            seen = placed(daemon)["edge:box"]
            await reached(lambda: placed(daemon)["edge:box"] > seen + 300, "some hundred requests")
        with urllib.request.urlopen(f"{edge.url}/control", timeout=20) as response:
            return int(json.loads(response.read())["most_at_once"])

    with stub_edge_process(*LAW, "--parallel", str(parallel)) as edge:
        config = written(tmp_path, [edge_of("box", edge.url, parallel=parallel)])
        with daemon_process(config) as daemon:
            assert asyncio.run(asyncio.wait_for(story(daemon, edge), 90.0)) == parallel
            assert metric(daemon, 'edgeburst_edge_parallel{edge="box"}') == parallel
            [row] = read(daemon, "/v1/status")["engine"]["edges"]
            assert row == {"name": "box", "up": True, "batches_in_flight": 0, "parallel": parallel, "ahead_s": 0.0}
