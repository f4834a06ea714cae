"""The daemon as a process: ready, signals, reload, watchdog, bad starts; nothing that was accepted is lost."""

import asyncio
import json
import re
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import numpy as np
import pytest
import requests
from support import stub_fc
from support.daemon_process import Running, daemon_process, refused_start, stub_edge_process, until
from support.picture_client import picture_request, row_of
from support.stub_fc import Heard, Say

from scripts.support.stub_edge import expected_row

pytestmark = pytest.mark.xdist_group("serve")

T = TypeVar("T")

CONFIG = """
[daemon]
port = {port}
drain_limit_s = {drain_limit_s}
{edge}
{function}
[[model]]
name = "digits"
{edge_profile}
[[model.class]]
name = "default"
slo_s = {slo_s}
late = "serve"
{tier}
"""


def written(folder: Path, *, edge: str = "", fc_port: int = 0, **values: object) -> Path:
    path = folder / "edgeburst.toml"
    shown = {"port": 0, "drain_limit_s": 30, "slo_s": 20.0, **values}
    path.write_text(
        CONFIG.format(
            **shown,
            edge=f'[edge]\nurl = "{edge}"' if edge else "",
            edge_profile='edge_profile = "orin-resnet50"' if edge else "",
            function=stub_fc.FUNCTION.format(port=fc_port) if fc_port else "",
            tier=stub_fc.TIER if fc_port else "",
        )
    )
    return path


@pytest.fixture(scope="module")
def stub() -> Iterator[Running]:
    with stub_edge_process() as running:
        yield running


@pytest.fixture
def edge(stub: Running) -> Running:
    """The module's stub edge, behaving well again."""

    async def reset() -> None:
        async with client() as session:
            await behave(session, stub, mode="ok", alpha_s=0.0)

    run(reset())
    return stub


@pytest.fixture(scope="module")
def shared(stub: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A daemon for tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("shared")
    with daemon_process(written(folder, edge=stub.url), environ={"WATCHDOG_USEC": "100000"}) as running:
        yield running


def run(main: Awaitable[T]) -> T:
    async def limited() -> T:
        return await asyncio.wait_for(main, 90.0)

    return asyncio.run(limited())


@asynccontextmanager
async def client() -> Any:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


async def behave(session: aiohttp.ClientSession, edge: Running, **behaviour: object) -> dict[str, Any]:
    async with session.post(f"{edge.url}/control", json=behaviour) as response:
        counters: dict[str, Any] = await response.json(content_type=None)
        return counters


async def infer(session: aiohttp.ClientSession, daemon: Running, picture: bytes) -> tuple[int, Any]:
    """Sends one picture; returns the status, and the row of probabilities or the error."""
    async with session.post(f"{daemon.url}/v2/models/digits/infer", **picture_request(picture)) as response:
        body = await response.read()
        if response.status != 200:
            return response.status, json.loads(body)["error"]
        return 200, row_of(response, body)


async def get(session: aiohttp.ClientSession, daemon: Running, path: str) -> tuple[int, Any]:
    async with session.get(f"{daemon.url}{path}") as response:
        return response.status, await response.json(content_type=None)


async def until_true(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():
        await asyncio.sleep(0.01)


async def until_waiting(session: aiohttp.ClientSession, daemon: Running, requests: int) -> None:
    async def waiting() -> bool:
        return bool((await get(session, daemon, "/v1/status"))[1]["waiting_requests"] == requests)

    await until_true(waiting)


def test_it_says_that_it_is_ready_when_it_is(edge: Running, shared: Running) -> None:
    async def main() -> tuple[int, int, Any]:
        async with client() as session:
            status, row = await infer(session, shared, b"a picture")
            return (await get(session, shared, "/v2/health/ready"))[0], status, row

    assert "STATUS=serving digits" in shared.notification("READY=1")
    ready, status, row = run(main())
    assert (ready, status) == (200, 200)
    assert np.array_equal(row, expected_row(b"a picture"))


def test_a_stop_under_load_answers_everything_that_was_accepted(edge: Running, tmp_path: Path) -> None:
    async def main(daemon: Running) -> tuple[list[tuple[int, Any]], int, tuple[int, Any]]:
        async with client() as session:
            await behave(session, edge, alpha_s=0.3)
            pictures = [b"%d" % index for index in range(100)]
            tasks = [asyncio.create_task(infer(session, daemon, picture)) for picture in pictures]
            await until_waiting(session, daemon, 100)
            daemon.signal(signal.SIGTERM)

            async def draining() -> bool:
                return (await get(session, daemon, "/v2/health/ready"))[0] == 503

            await until_true(draining)
            late = await infer(session, daemon, b"late")
            answers = await asyncio.gather(*tasks)
            for picture, (status, row) in zip(pictures, answers, strict=True):
                assert status == 200
                assert np.array_equal(row, expected_row(picture))
            return answers, daemon.exit_status(), late

    with daemon_process(written(tmp_path, edge=edge.url)) as daemon:
        answers, exit_status, late = run(main(daemon))
        assert daemon.notification("STOPPING=1")
        assert "info drained refused=0" in daemon.log
    assert (len(answers), exit_status) == (100, 0)
    assert late[0] == 503
    assert "shutting down" in late[1]


def test_a_drain_that_takes_too_long_ends_at_its_limit_and_tells_its_clients(edge: Running, tmp_path: Path) -> None:
    async def main(daemon: Running) -> tuple[tuple[int, Any], int]:
        async with client() as session:
            await behave(session, edge, mode="hang")
            task = asyncio.create_task(infer(session, daemon, b"x"))
            await until_waiting(session, daemon, 1)
            daemon.signal(signal.SIGTERM)
            return await task, daemon.exit_status()

    with daemon_process(written(tmp_path, edge=edge.url, drain_limit_s=1)) as daemon:
        (status, error), exit_status = run(main(daemon))
    assert (status, exit_status) == (503, 0)
    assert "the daemon stopped before the request was answered" in error


def test_a_second_signal_stops_at_once_but_still_tells_its_clients(edge: Running, tmp_path: Path) -> None:
    async def main(daemon: Running) -> tuple[tuple[int, Any], int]:
        async with client() as session:
            await behave(session, edge, mode="hang")
            task = asyncio.create_task(infer(session, daemon, b"x"))
            await until_waiting(session, daemon, 1)
            daemon.signal(signal.SIGINT)
            await until_true(lambda: _logged(daemon, "draining"))
            daemon.signal(signal.SIGTERM)
            return await task, daemon.exit_status()

    with daemon_process(written(tmp_path, edge=edge.url, drain_limit_s=300)) as daemon:
        (status, _), exit_status = run(main(daemon))
    assert (status, exit_status) == (503, 1)


async def _logged(daemon: Running, event: str) -> bool:
    return f" {event} " in daemon.log


def test_a_reload_takes_effect_without_losing_what_is_under_way(edge: Running, tmp_path: Path) -> None:
    async def main(daemon: Running, other: Running) -> list[int]:
        async with client() as session:
            await behave(session, edge, alpha_s=0.5)
            under_way = asyncio.create_task(infer(session, daemon, b"x"))
            await until_waiting(session, daemon, 1)
            daemon.signal(signal.SIGHUP)
            told = await asyncio.get_running_loop().run_in_executor(None, daemon.notification, "RELOADING=1")
            assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", told)
            await asyncio.get_running_loop().run_in_executor(None, daemon.notification, "READY=1")
            afterwards = await infer(session, daemon, b"y")
            counters = await behave(session, other)
            return [(await under_way)[0], afterwards[0], counters["batches"]]

    with stub_edge_process() as other, daemon_process(written(tmp_path, edge=edge.url)) as daemon:
        daemon.notification("READY=1")
        written(tmp_path, edge=other.url, port=1)
        # The other edge got one request, and before it a made-up one: does it answer with the model?
        assert run(main(daemon, other)) == [200, 200, 2]
        assert re.search(r"info reloaded .*needs_restart=port", daemon.log)


def test_a_bad_reload_is_refused_in_one_sentence_and_the_old_configuration_stays(edge: Running, tmp_path: Path) -> None:
    path = written(tmp_path, edge=edge.url)
    with daemon_process(path) as daemon:
        daemon.notification("READY=1")
        path.write_text(path.read_text().replace("slo_s", "slo"))
        daemon.signal(signal.SIGHUP)
        daemon.notification("RELOADING=1")
        daemon.notification("READY=1")
        refusals = [line for line in daemon.log.splitlines() if "reload_refused" in line]

        async def main() -> tuple[int, Any]:
            async with client() as session:
                return await infer(session, daemon, b"x")

        assert run(main())[0] == 200
    (refusal,) = refusals
    assert "edgeburst.toml:13: unknown key `slo`" in refusal
    assert refusal.endswith('the old configuration stays in use"')


def test_the_watchdog_is_fed_while_the_daemon_lives(shared: Running) -> None:
    for _ in range(5):
        shared.notification("WATCHDOG=1")


def test_a_port_in_use_is_one_sentence_and_status_2(edge: Running, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = refused_start(written(tmp_path, edge=edge.url, port=port))
    assert result.returncode == 2
    sentence = f"edgeburst: port {port} of 127.0.0.1 is in use; stop the program on it, or set another daemon.port"
    assert result.stderr.splitlines()[-1].startswith(sentence)
    assert "Traceback" not in result.stderr


def test_a_bad_configuration_is_one_sentence_and_status_2(tmp_path: Path) -> None:
    path = written(tmp_path, edge="http://127.0.0.1:1")
    path.write_text(path.read_text().replace("drain_limit_s", "drain_limit"))
    result = refused_start(path)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert "did you mean `drain_limit_s`?" in result.stderr


def test_a_missing_access_key_is_one_sentence_and_status_2(tmp_path: Path) -> None:
    result = refused_start(written(tmp_path, fc_port=1))
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert "environment variable TEST_KEY_ID is not set" in result.stderr


def refuse_every_key(heard: Heard) -> Say:
    return stub_fc.error(403, "SignatureNotMatch") if "authorization" in heard.headers else Say(403)


def test_a_wrong_access_key_is_named_in_the_log_and_the_edge_carries_on(edge: Running, tmp_path: Path) -> None:
    async def main() -> tuple[list[int], str]:
        async with AsyncExitStack() as stack:
            _, server, port = await stub_fc.start(refuse_every_key)
            stack.callback(server.close)
            start = asyncio.get_running_loop().run_in_executor
            daemon = await start(
                None,
                stack.enter_context,
                daemon_process(written(tmp_path, edge=edge.url, fc_port=port), environ=stub_fc.KEYS),
            )
            session = await stack.enter_async_context(client())
            await until_true(lambda: _logged(daemon, "function_check"))
            answers = await asyncio.gather(*(infer(session, daemon, b"%d" % index) for index in range(20)))
            return [status for status, _ in answers], daemon.log

    statuses, log = run(main())
    assert statuses == [200] * 20
    assert "403 SignatureNotMatch): check the access key that [function] refers to" in log
    assert stub_fc.KEYS["TEST_KEY_SECRET"] not in log


def test_with_functions_only_a_batch_goes_through_the_sdk_and_is_billed(tmp_path: Path) -> None:
    def script(heard: Heard) -> Say:
        if heard.method == "GET":
            return Say(200, b"{}", {"Content-Type": "application/json"})
        # As long as the container says that it took; a start before that is none of an old container's words.
        answer = replace(stub_fc.answer_frame(heard), hang_s=0.31)
        return answer if "authorization" in heard.headers else Say(403)

    async def main() -> tuple[int, Any, Any]:
        async with AsyncExitStack() as stack:
            _, server, port = await stub_fc.start(script)
            stack.callback(server.close)
            config = written(tmp_path, fc_port=port, slo_s=2.0)
            start = asyncio.get_running_loop().run_in_executor
            daemon = await start(None, stack.enter_context, daemon_process(config, environ=stub_fc.KEYS))
            session = await stack.enter_async_context(client())
            status, row = await infer(session, daemon, b"x")
            assert np.array_equal(row, expected_row(b"x"))
            batches = (await get(session, daemon, "/v1/batches"))[1]["batches"]
            # Warming calls are billed as well, and stand among them without items.
            (record,) = [batch for batch in batches if batch["items"]]
            return status, record, (await get(session, daemon, "/v1/status"))[1]

    status, record, state = run(main())
    assert status == 200
    assert (record["backend"], record["start_kind"], record["billed_s"]) == ("function", "cold", 0.3)
    assert record["call_cost"] == pytest.approx(0.3 * 1.27e-5 + 9e-7)
    assert 0.0 < record["start_estimate_cost"] == pytest.approx(record["cost"] - record["call_cost"])
    assert state["engine"]["spent"] >= record["cost"] - 1e-12


@pytest.mark.parametrize(
    "daemon_keys", ['late = "refuse"', 'late = "serve"\nmax_timeout_s = 3.0'], ids=["refuse", "serve"]
)
def test_an_edge_that_dies_mid_batch_costs_its_requests_an_error_and_nothing_else(
    tmp_path: Path, daemon_keys: str
) -> None:
    async def main(daemon: Running, edge: Running) -> tuple[list[tuple[int, Any]], int]:
        async with client() as session:
            await behave(session, edge, mode="die")
            answers = await asyncio.gather(*(infer(session, daemon, b"%d" % index) for index in range(10)))
            # Where all ten shared the batch that died, only the next request finds that the edge is gone.
            answers.append(await infer(session, daemon, b"next"))
            assert (await get(session, daemon, "/v2/health/ready"))[0] == 503
            return answers, (await get(session, daemon, "/v2/health/live"))[0]

    with stub_edge_process() as edge:
        path = written(tmp_path, edge=edge.url, slo_s=2.0)
        path.write_text(
            path.read_text().replace('late = "serve"\n', "").replace("[daemon]", f"[daemon]\n{daemon_keys}")
        )
        with daemon_process(path) as daemon:
            answers, live = run(main(daemon, edge))
    assert {status for status, _ in answers} == {503}
    assert all(isinstance(error, str) and error for _, error in answers)
    assert live == 200


def test_a_client_that_goes_away_is_forgotten(edge: Running, shared: Running) -> None:
    async def main() -> None:
        async with client() as session:
            await behave(session, edge, alpha_s=0.5)
            task = asyncio.create_task(infer(session, shared, b"x"))
            await until_waiting(session, shared, 1)
            task.cancel()
            await until_waiting(session, shared, 0)

    run(main())


def test_the_daemon_imports_no_heavy_library(shared: Running) -> None:
    maps = Path(f"/proc/{shared.process.pid}/maps")
    if not maps.exists():
        pytest.skip("this system has no /proc/PID/maps")
    until(lambda: "numpy" in maps.read_text(), "numpy in the daemon's address space")
    mapped = maps.read_text()
    assert [name for name in ("torch", "scipy", "matplotlib", "cv2") if f"site-packages/{name}" in mapped] == []


def test_read_outs_have_a_listener_of_their_own_where_that_is_configured(edge: Running, tmp_path: Path) -> None:
    config = written(tmp_path, edge=edge.url)
    config.write_text(config.read_text().replace("[daemon]", '[daemon]\nread_listen = "127.0.0.1:0"', 1))
    with daemon_process(config) as daemon:
        own = f"http://127.0.0.1:{daemon.ready['read_port']}"
        for path in (
            "/v1/status",
            "/v1/batches",
            "/v1/now",
            "/v1/history",
            "/metrics",
            "/",
            "/page/main.js",
            "/v2/health/ready",
        ):
            assert requests.get(own + path, timeout=30).status_code == 200
        for path in (
            "/v1/status",
            "/v1/batches",
            "/v1/explain/1",
            "/v1/now",
            "/v1/events",
            "/metrics",
            "/",
            "/page/main.js",
        ):
            refusal = requests.get(daemon.url + path, timeout=30)
            assert refusal.status_code == 404
            assert refusal.json()["error"].startswith("status, batches, explanations and metrics are at port")
        assert requests.get(f"{daemon.url}/v2/models/digits", timeout=30).status_code == 200
        refusal = requests.post(f"{own}/v1/classify/digits", data=b"x", timeout=30)
        assert refusal.status_code == 404
        assert "this port (`read_listen`) has status" in refusal.json()["error"]
