"""A daemon before servers of others: it learns how each takes tensors and batches, loses nothing, and remembers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.daemon_process import Running, daemon_process, until
from support.triton_stub import TritonServer, TritonStub

pytestmark = pytest.mark.xdist_group("serve")

CONFIG = """
[daemon]
port = 0
state = "state"
[edge]
url = "{url}"
{edge}
[[model]]
name = "sums"
edge_profile = "orin-resnet50"
inputs = [{{ name = "x", datatype = "FP32", shape = [4] }}]
outputs = [{{ name = "sum", datatype = "FP32", shape = [1] }}]
[[model.class]]
slo_s = 30.0
"""


def written(folder: Path, url: str, edge: str = "") -> Path:
    path = folder / "edgeburst.toml"
    path.write_text(CONFIG.format(url=url, edge=edge))
    return path


async def asked(session: aiohttp.ClientSession, url: str, number: int, items: int = 1) -> tuple[int, Any]:
    rows = [[number, row, 1, 2] for row in range(items)]
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [items, 4], "data": rows}]}
    async with session.post(f"{url}/v2/models/sums/infer", json=body) as response:
        return response.status, await response.json()


def burst(daemon: Running, numbers: range, items: int = 1) -> list[Any]:
    """Sends requests at once; returns their outputs, all of which are checked."""

    async def main() -> list[Any]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            return await asyncio.gather(*(asked(session, daemon.url, number, items) for number in numbers))

    found = asyncio.run(main())
    for number, (status, answer) in zip(numbers, found, strict=True):
        assert status == 200, answer
        assert answer["outputs"][0]["data"] == [number + row + 3 for row in range(items)]
    return found


def status_of(daemon: Running) -> dict[str, Any]:
    async def main() -> dict[str, Any]:
        async with aiohttp.ClientSession() as session, session.get(f"{daemon.url}/v1/status") as response:
            found: dict[str, Any] = await response.json()
            return found

    return asyncio.run(main())


def lines(daemon: Running, event: str) -> list[str]:
    return [line for line in daemon.log.splitlines() if f" {event} " in line]


def test_triton_says_its_largest_batch_and_none_larger_is_ever_sent(tmp_path: Path) -> None:
    with TritonServer(TritonStub()) as triton, daemon_process(written(tmp_path, triton.url)) as daemon:
        until(lambda: status_of(daemon)["engine"]["edge_limits"] != [], "the limit that Triton says")
        for first in range(0, 200, 50):
            burst(daemon, range(first, first + 50))
        stub, status = triton.stub, status_of(daemon)
        assert stub.refused == []
        assert max(stub.answered) == 8
        assert all(stub.binary)
        assert status["engine"]["edge_limits"] == [
            {"model": "sums", "items": 8, "source": "said", "settled": True, "edge": "main"}
        ]
        assert status["edge"] == {
            "name": "main",
            "url": triton.url,
            "server": "triton 2.58.0",
            "tensors": "auto",
            "learned_tensors": {"sums": "binary"},
            "models": {"sums": {"max_batch": 8, "preferred_batches": [4, 8], "instances": 1}},
        }
        [line] = lines(daemon, "edge_batch_learned")
        assert "set max_items = 8 in the model's table" in line


def test_a_limit_that_only_refusals_name_costs_one_batch_which_is_answered_and_outlives_the_daemon(
    tmp_path: Path,
) -> None:
    with TritonServer(TritonStub(says_config=False)) as triton:
        config = written(tmp_path, triton.url)
        with daemon_process(config) as daemon:
            for first in range(0, 200, 50):
                burst(daemon, range(first, first + 50))
            assert len(triton.stub.refused) == 1
            [line] = lines(daemon, "edge_batch_learned")
            assert "items=8" in line
            assert status_of(daemon)["engine"]["edge_limits"][0]["source"] == "named"
            daemon.signal(15)
            assert daemon.exit_status() == 0
        with daemon_process(config) as daemon:
            burst(daemon, range(300, 400))
            assert len(triton.stub.refused) == 1
            assert lines(daemon, "edge_batch_learned") == []


def test_a_server_that_falls_over_binary_tensors_gets_json_from_the_first_batch_on(tmp_path: Path) -> None:
    with TritonServer(TritonStub(takes_binary=False, most=64)) as server:
        # It does not claim to take them either.
        server.stub.answer = without_extensions(server.stub)  # type: ignore[method-assign]
        config = written(tmp_path, server.url)
        with daemon_process(config) as daemon:
            [(_, answer)] = burst(daemon, range(7, 8))
            assert answer["parameters"]["attempts"] == 1
            burst(daemon, range(100, 140))
            assert server.stub.binary.count(True) == 1
            status = status_of(daemon)
            assert status["edge"]["learned_tensors"] == {"sums": "json"}
            assert status["engine"]["edge_up"]
            [line] = lines(daemon, "edge_tensors_learned")
            assert "in [edge]" in line
            assert lines(daemon, "batch_failed") == []
            daemon.signal(15)
            assert daemon.exit_status() == 0
        with daemon_process(config) as daemon:
            burst(daemon, range(140, 180))
            assert server.stub.binary.count(True) == 1
            assert lines(daemon, "edge_tensors_learned") == []


@pytest.mark.parametrize("form", ["binary", "json"])
def test_a_configured_form_is_the_only_one_that_is_sent(tmp_path: Path, form: str) -> None:
    stub = TritonStub()
    with TritonServer(stub) as triton, daemon_process(written(tmp_path, triton.url, f'tensors = "{form}"')) as daemon:
        burst(daemon, range(20))
        assert set(stub.binary) == {form == "binary"}
        assert status_of(daemon)["edge"]["tensors"] == form


def test_a_request_larger_than_the_edge_takes_is_told_what_fits(tmp_path: Path) -> None:
    async def main(url: str) -> tuple[int, Any]:
        async with aiohttp.ClientSession() as session:
            return await asked(session, url, 1, items=9)

    with TritonServer(TritonStub()) as triton, daemon_process(written(tmp_path, triton.url)) as daemon:
        until(lambda: status_of(daemon)["engine"]["edge_limits"] != [], "the limit that Triton says")
        status, answer = asyncio.run(main(daemon.url))
        assert status == 413
        assert "at most 8 items of model sums at once, and the request has 9" in answer["error"]
        burst(daemon, range(10), items=8)


def without_extensions(stub: TritonStub) -> Any:
    inner = stub.answer

    def answer(path: str, headers: Any, body: bytes) -> tuple[int, bytes, int | None]:
        if path == "/v2":
            return 200, json.dumps({"name": "something", "version": "1", "extensions": []}).encode(), None
        return inner(path, headers, body)

    return answer
