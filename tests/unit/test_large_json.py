"""JSON of many values is read in processes beside the loop, with the same result and the same sentences."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterator

import pytest

from scheduler import wire
from scheduler.daemon.ingress import large_json
from scheduler.daemon.ingress.errors import Rejected
from scheduler.daemon.ingress.large_json import LargeJson, is_large


def body(values: object = None, **changes: object) -> bytes:
    entry = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [0.5, 1, -2.25] if values is None else values}
    return json.dumps({"id": "seven", "inputs": [entry | changes], "parameters": {"priority": 2}}).encode()


@pytest.fixture
def large() -> Iterator[LargeJson]:
    made = LargeJson()
    yield made
    made.close()


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(work(), 60)

    asyncio.run(limited())


def test_what_is_large() -> None:
    assert not is_large(body(), None)
    assert is_large(b"1," * large_json.VALUES_BESIDE, None)
    assert not is_large(b"A" * (large_json.BYTES_BESIDE - 1), None)
    assert is_large(b"A" * large_json.BYTES_BESIDE, None)
    assert not is_large(b"{}" + b"," * 10**6, 2), "what follows the JSON object is no JSON"


def test_a_process_reads_what_the_loop_would_have_read(large: LargeJson) -> None:
    picture = base64.b64encode(b"\xff\xd8 a picture").decode()
    texts = body([picture], datatype="BYTES", shape=[1])
    head = json.dumps(
        {"inputs": [{"name": "x", "datatype": "INT8", "shape": [2], "parameters": {"binary_data_size": 2}}]}
    )
    binary = head.encode() + b"ab"

    async def work() -> None:
        assert await large.parse("a", body(), None) == wire.parse_request(body(), None)
        assert await large.parse("a", texts, None) == wire.parse_request(texts, None)
        assert await large.parse("b", binary, len(head)) == wire.parse_request(binary, len(head))
        decoded = await large.parse("a", texts, None, base64=("x",))
        assert decoded.inputs[0].elements() == [b"\xff\xd8 a picture"]
        assert not decoded.inputs[0].from_json

    run(work)


@pytest.mark.parametrize(
    "wrong", [b"{" + b"1," * 10, body(["a"]), body([1e999, 1, 2])], ids=["json", "text", "infinite"]
)
def test_an_error_is_the_same_sentence_and_the_process_goes_on(large: LargeJson, wrong: bytes) -> None:
    with pytest.raises(wire.WireError) as expected:
        wire.parse_request(wrong, None)

    async def work() -> None:
        with pytest.raises(wire.WireError) as found:
            await large.parse("a", wrong, None)
        assert str(found.value) == str(expected.value)
        assert (await large.parse("a", body(), None)).id == "seven"

    run(work)


def test_a_process_that_is_killed_costs_one_request(large: LargeJson) -> None:
    async def work() -> None:
        await large.parse("a", body(), None)
        (reader,) = large._idle  # noqa: SLF001 - there is no other way to its number
        os.kill(reader._process.pid, signal.SIGSTOP)  # noqa: SLF001
        asked = asyncio.ensure_future(large.parse("a", body(), None))
        await asyncio.sleep(0.1)
        os.kill(reader._process.pid, signal.SIGKILL)  # noqa: SLF001
        with pytest.raises(Rejected, match=r"^the process that read this JSON has ended") as refusal:
            await asked
        assert refusal.value.status == 503
        assert (await large.parse("a", body(), None)).id == "seven"

    run(work)


def test_one_that_takes_too_long_is_given_up(large: LargeJson, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_json, "TIME_LIMIT_S", 0.01)

    async def work() -> None:
        with pytest.raises(
            Rejected, match=r"takes longer than 0\.01 s to read; send the tensors in binary form"
        ) as error:
            await large.parse("a", body(list(range(300_000)), shape=[1, 300_000]), None)
        assert error.value.status == 413

    run(work)


def test_a_client_that_goes_keeps_its_turn_until_its_body_is_read(large: LargeJson) -> None:
    async def work() -> None:
        await large.parse("a", body(), None)
        (reader,) = large._idle  # noqa: SLF001
        os.kill(reader._process.pid, signal.SIGSTOP)  # noqa: SLF001
        gone = asyncio.ensure_future(large.parse("greedy", body(), None))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        waiting = asyncio.ensure_future(large.parse("greedy", body(), None))
        assert (await large.parse("other", body(), None)).id == "seven"
        assert not waiting.done()
        os.kill(reader._process.pid, signal.SIGCONT)  # noqa: SLF001
        assert (await waiting).id == "seven"

    run(work)
