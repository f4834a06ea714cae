"""The table of faults: its rows, the lies of its neighbours, and what it counts."""

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from scheduler import wire
from scripts.fault_table.liar import LIES, Message, _lying
from scripts.fault_table.rows import LOADS, QUICK, SIDES, Row, all_rows
from scripts.fault_table.table import Outcome, _outcome, markdown
from scripts.fault_table.traffic import Clients, End, Ends
from scripts.fault_table.truth import Item

ROW = np.arange(10, dtype=np.float32) / 10


def answer(*, frame: bool) -> Message:
    inputs = [wire.Tensor.from_elements("image", [b"one", b"two"])]
    said = {wire.ITEM_CRC32: wire.item_crc32(inputs), "service_s": 0.1, "identity": "sha256:1"}
    outputs = (
        wire.Tensor.from_numpy("probabilities", np.stack([ROW, ROW + 1])),
        wire.Tensor.from_elements("item_error", [b"", b""]),
    )
    response = wire.InferResponse("digits", outputs, id="7", parameters={} if frame else said)
    encoded = wire.encode_response(response, binary_by_default=True)
    if frame:
        return Message(200, {}, wire.pack_frame({"status": 200, **said}, encoded))
    return Message(200, {k.lower(): v for k, v in encoded.headers.items()}, encoded.body)


def test_rows_have_names_of_their_own_and_known_loads_and_sides() -> None:
    rows = all_rows()
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    assert {row.load for row in rows} == set(LOADS)
    assert {row.sides for row in rows} == set(SIDES)
    assert set(QUICK) <= set(names)


@pytest.mark.parametrize("frame", [False, True])
@pytest.mark.parametrize("lie", sorted(LIES))
def test_a_lie_changes_the_answer_and_leaves_it_one_that_can_be_read(lie: str, frame: bool) -> None:
    before = answer(frame=frame)
    after = _lying(before, LIES[lie])
    assert after.body != before.body
    if frame:
        _, encoded = wire.unpack_frame(after.body)
        wire.parse_response(encoded.body, encoded.json_length)
    else:
        length = after.headers.get(wire.JSON_LENGTH_HEADER.lower())
        wire.parse_response(after.body, int(length) if length else None)


def test_reordered_rows_come_with_the_sums_of_their_items() -> None:
    header, encoded = wire.unpack_frame(_lying(answer(frame=True), LIES["reordered"]).body)
    rows = wire.parse_response(encoded.body, encoded.json_length).outputs[0].to_numpy()
    np.testing.assert_array_equal(rows, np.stack([ROW + 1, ROW]))
    there = [wire.Tensor.from_elements("image", [b"two", b"one"])]
    assert header[wire.ITEM_CRC32] == wire.item_crc32(there)


def test_outcomes_are_counted_by_what_clients_see() -> None:
    ends = [
        End(0, status=200, right=True, latency_s=0.5),
        End(1, status=200, right=True, latency_s=1.5),
        End(2, status=200),
        End(3, status=503),
        End(4, status=502),
        End(5),
        End(6, status=400, right=True, latency_s=0.1),
    ]
    outcome = _outcome(Row("none"), Ends(ends, extra=1), 1.0, [])
    counted = (outcome.sent, outcome.right, outcome.within, outcome.wrong, outcome.refused, outcome.failed)
    assert counted == (7, 3, 2, 1, 1, 1)
    assert (outcome.lost, outcome.doubled, outcome.well) == (1, 1, False)


def test_the_table_has_one_line_for_a_fault_and_its_sides() -> None:
    kept = [Outcome(Row("x", load=load), 10, 8, 0, 0, 0, 0, 2, 7, 0) for load in ("light", "overload")]
    lines = markdown([*kept, Outcome(Row("x", "edge"), 4, 4, 0, 0, 0, 0, 0, 4, 0)]).splitlines()
    assert lines[2:] == [
        "| x | both | 8 + 2 of 10, 70 % |  | 8 + 2 of 10, 70 % | 0 | 0 | 0 | 0 |",
        "| x | edge |  | 4 + 0 of 4, 100 % |  | 0 | 0 | 0 | 0 |",
    ]


async def served(reply: bytes, ask: "Callable[[int], asyncio.Future[Ends]]") -> Ends:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        await writer.drain()
        writer.close()  # from Python 3.12.1 on a server waits for its connections

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        return await ask(int(server.sockets[0].getsockname()[1]))


def test_an_answer_too_many_is_seen() -> None:
    body = b'{"id": "r0", "outputs": [{"name": "probabilities", "data": %s}]}' % str(ROW.tolist()).encode()
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    clients = Clients([Item(b"picture", ROW)], again=False)
    ends = asyncio.run(served(2 * reply, lambda port: clients.send(port, rate_rps=1.0, seconds=1e-9)))  # type: ignore[arg-type, return-value]
    assert [end.right for end in ends.ends] == [True]
    assert ends.extra == 1
