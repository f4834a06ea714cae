"""The daemon as a process with an edge and functions: one dies, the other carries on; a stop loses nothing."""

import asyncio
import json
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import aiohttp
import numpy as np
import pytest
import tritonclient.http as triton
from support import operators, stub_fc
from support.daemon_process import Running, daemon_process, stub_edge_process, until
from support.stub_fc import Heard, Say

from scripts.support.stub_edge import expected_row

pytestmark = pytest.mark.xdist_group("serve")

CONFIG = """
[daemon]
port = 0
[edge]
url = "{edge}"
[function]
endpoint = "127.0.0.1:{port}"
protocol = "http"
access_key_id_env = "TEST_KEY_ID"
access_key_secret_env = "TEST_KEY_SECRET"
[[model]]
name = "digits"
edge_profile = "orin-resnet50"
[[model.class]]
slo_s = {slo_s}
[[model.tier]]
name = "1gb"
function = "digits"
profile = "fc-resnet50-1gb"
memory_gb = 1.0
"""


def functions(heard: Heard) -> Say:
    if heard.method == "GET":
        return Say(200, b"{}", {"Content-Type": "application/json"})
    return stub_fc.answer_frame(heard, cold_start=False) if "authorization" in heard.headers else Say(403)


@contextmanager
def function_endpoint() -> Iterator[int]:
    """The stub endpoint on a loop of its own, so that a synchronous client can be used beside it."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    _, server, port = asyncio.run_coroutine_threadsafe(stub_fc.start(functions), loop).result(30)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


@contextmanager
def both(folder: Path, slo_s: float = 20.0) -> Iterator[tuple[Running, Running]]:
    with function_endpoint() as port, stub_edge_process() as edge:
        config = folder / "edgeburst.toml"
        config.write_text(CONFIG.format(edge=edge.url, port=port, slo_s=slo_s))
        with daemon_process(config, environ=stub_fc.KEYS) as daemon:
            yield daemon, edge


def picture_input(content: bytes) -> triton.InferInput:
    tensor = triton.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([content], dtype=object))
    return tensor


async def behave(edge: Running, **behaviour: object) -> None:
    async with aiohttp.ClientSession() as session, session.post(f"{edge.url}/control", json=behaviour) as response:
        await response.read()


async def classify_many(daemon: Running, count: int, *, stop: bool = False) -> list[tuple[int, Any]]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(index: int) -> tuple[int, Any]:
            url = f"{daemon.url}/v1/classify/digits"
            async with session.post(url, data=b"%d" % index, headers={"Content-Type": "image/png"}) as response:
                return response.status, json.loads(await response.read())

        tasks = [asyncio.create_task(one(index)) for index in range(count)]
        if stop:
            while not await _unanswered(session, daemon, count):
                await asyncio.sleep(0.01)
            daemon.signal(signal.SIGTERM)
        return await asyncio.gather(*tasks)


async def _unanswered(session: aiohttp.ClientSession, daemon: Running, count: int) -> bool:
    async with session.get(f"{daemon.url}/v1/status") as response:
        return bool((await response.json(content_type=None))["waiting_requests"] == count)


@pytest.mark.slow
def test_an_edge_that_dies_mid_batch_is_survived_by_its_requests(tmp_path: Path) -> None:
    with both(tmp_path) as (daemon, edge):
        asyncio.run(behave(edge, mode="die"))
        answers = asyncio.run(classify_many(daemon, 12))
    assert [status for status, _ in answers] == [200] * 12
    assert {answer["backend"] for _, answer in answers} == {"function"}


def test_a_stop_under_load_answers_what_both_sides_have(tmp_path: Path) -> None:
    with both(tmp_path) as (daemon, edge):
        asyncio.run(behave(edge, mode="ok", alpha_s=0.5))
        answers = asyncio.run(classify_many(daemon, 20, stop=True))
        exit_status = daemon.exit_status()
    assert [status for status, _ in answers] == [200] * 20
    assert exit_status == 0


def test_tritons_client_gets_each_request_its_own_answer_through_the_whole_daemon(tmp_path: Path) -> None:
    with both(tmp_path) as (daemon, _):
        client = triton.InferenceServerClient(daemon.url.removeprefix("http://"), concurrency=8)
        assert client.is_server_ready()
        assert client.is_model_ready("digits")
        under_way = [
            client.async_infer("digits", [picture_input(b"%d" % index)], request_id=f"r{index}") for index in range(24)
        ]
        for index, asked in enumerate(under_way):
            result = asked.get_result()
            assert result.get_response()["id"] == f"r{index}"
            assert np.array_equal(result.as_numpy("probabilities")[0], expected_row(b"%d" % index))
        client.close()


ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def model_row(daemon: Running) -> dict[str, Any]:
    with urllib.request.urlopen(f"{daemon.url}/v1/status", timeout=20) as response:
        row: dict[str, Any] = json.loads(response.read())["models"]["digits"]
    return row


def accept(daemon: Running, identity: str | None) -> None:
    operators.put(f"{daemon.url}/v1/models/digits/identity", {"identity": identity})


def backends(daemon: Running) -> set[str]:
    """Returns which backends answer; while one is away, a request may be refused, which is no false answer."""
    answers = asyncio.run(classify_many(daemon, 5))
    assert {status for status, _ in answers} <= {200, 503}, answers
    return {answer["backend"] for status, answer in answers if status == 200}


def test_no_answer_of_an_edge_with_other_files_passes_until_an_operator_accepts_them(tmp_path: Path) -> None:
    with both(tmp_path, slo_s=3.0) as (daemon, edge):
        asyncio.run(behave(edge, identity=ONE))
        until(lambda: "edge" in backends(daemon), "the edge is used")
        assert (model_row(daemon)["expected"], model_row(daemon)["expected_by"]) == (ONE, "first-report")
        asyncio.run(behave(edge, identity=TWO))
        assert backends(daemon) <= {"function"}
        refused = model_row(daemon)["refused"]["edge:main"]
        assert refused.startswith(f"edge:main serves model digits with the identity {TWO}, but {ONE} is expected")
        assert daemon.log.count("identity_refused") == 1
        until(lambda: backends(daemon) == {"function"}, "the functions answer")
        accept(daemon, TWO)
        until(lambda: "edge" in backends(daemon), "the edge is used again")
        assert model_row(daemon)["refused"] == {}
        assert model_row(daemon)["unidentified"] == ["function:1gb"]


def test_requests_whose_answers_cannot_be_used_are_answered_by_the_other_side(tmp_path: Path) -> None:
    with both(tmp_path, slo_s=3.0) as (daemon, edge):
        asyncio.run(behave(edge, mode="nan"))
        until(lambda: backends(daemon) == {"function"}, "the functions answer")
        asyncio.run(behave(edge, mode="ok"))
        until(lambda: "edge" in backends(daemon), "the edge is used again")
