"""The uplink's meter: what connections carry while something is under way on them, whatever becomes of the batches."""

import asyncio
import socket
from dataclasses import dataclass, field

import pytest
from support.virtual_loop import run_virtual

from scheduler.daemon.backends import uplink_meter
from scheduler.daemon.backends.tcp_info import Sent, sent
from scheduler.daemon.backends.uplink_meter import LEAST_BYTES, LOOK_S, PIECE_S, UplinkMeter
from scheduler.domain.messages import UplinkCarried


@dataclass(eq=False)
class Connection:
    """A connection that sends all it has at once, on a link that carries so much."""

    sent_bytes: int = 0
    left_bytes: float = 0.0
    closed: bool = False


@dataclass
class Link:
    """A link that its connections share equally."""

    bytes_per_s: float
    connections: list[Connection] = field(default_factory=list)

    def opened(self, size: float) -> Connection:
        connection = Connection(left_bytes=size)
        self.connections.append(connection)
        return connection

    def pass_time(self, seconds: float) -> None:
        open_ones = [connection for connection in self.connections if connection.left_bytes > 0]
        for connection in open_ones:
            carried = min(connection.left_bytes, self.bytes_per_s * seconds / len(open_ones))
            connection.left_bytes -= carried
            connection.sent_bytes += round(carried)


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> Link:
    def said(connection: Connection) -> Sent | None:
        return None if connection.closed else Sent(connection.sent_bytes, connection.left_bytes > 0)

    monkeypatch.setattr(uplink_meter, "sent", said)
    return Link(1e6)


def metered(link: Link, seconds: float, *, at: dict[int, float] | None = None) -> list[UplinkCarried]:
    """Lets time pass in steps of 1 ms during one call; `at`: by step, bytes of a connection that is opened then."""
    told: list[UplinkCarried] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        meter = UplinkMeter(sockets=lambda: link.connections, clock=loop.time)
        meter.post = told.append
        with meter.call():
            for step in range(round(seconds * 1000)):
                if at and step in at:
                    link.opened(at[step])
                await asyncio.sleep(0.001)
                link.pass_time(0.001)
        await asyncio.sleep(2 * LOOK_S)
        assert meter.idle

    run_virtual(main())
    return told


def test_connections_that_share_the_link_are_counted_together(link: Link) -> None:
    for _ in range(16):
        link.opened(1e6)
    told = metered(link, 3.0)
    assert len(told) >= 2.5 / PIECE_S
    for piece in told:
        assert piece.carried_bytes / (piece.end_s - piece.start_s) == pytest.approx(1e6, rel=0.02)


def test_a_transfer_is_measured_between_the_looks_that_saw_it(link: Link) -> None:
    told = metered(link, 0.3, at={33: 180_000})
    assert sum(piece.end_s - piece.start_s for piece in told) >= 0.1
    for piece in told:
        assert piece.carried_bytes / (piece.end_s - piece.start_s) == pytest.approx(1e6, rel=0.1)


def test_of_a_transfer_that_a_receivers_buffer_takes_nothing_is_told(link: Link) -> None:
    assert metered(link, 0.2, at={33: LEAST_BYTES}) == []


def test_nothing_is_told_while_nothing_is_under_way(link: Link) -> None:
    link.opened(0.0)
    assert metered(link, 2.0) == []


def test_a_link_that_is_cut_carries_nothing(link: Link) -> None:
    link.bytes_per_s = 0.0
    link.opened(1e6)
    told = metered(link, 1.0)
    assert len(told) >= 3
    assert {piece.carried_bytes for piece in told} == {0}


def test_the_wait_for_the_first_acknowledgement_does_not_count(link: Link) -> None:
    link.opened(2e6).closed = False
    link.bytes_per_s = 0.0

    async def main() -> list[UplinkCarried]:
        loop, told = asyncio.get_running_loop(), []
        meter = UplinkMeter(sockets=lambda: link.connections, clock=loop.time)
        meter.post = told.append
        with meter.call():
            await asyncio.sleep(0.1)  # a round trip
            link.bytes_per_s = 1e6
            for _ in range(500):
                await asyncio.sleep(0.001)
                link.pass_time(0.001)
        return told

    told = run_virtual(main())
    assert told[0].carried_bytes / (told[0].end_s - told[0].start_s) == pytest.approx(1e6, rel=0.1)


def test_a_connection_that_was_closed_is_left_out(link: Link) -> None:
    link.opened(1e6)
    link.opened(1e6).closed = True
    assert metered(link, 0.3)


def test_the_kernel_says_what_was_acknowledged_and_whether_more_is_under_way() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        with theirs:
            ours.setblocking(False)
            before = sent(ours)
            assert before is not None
            assert not before.under_way
            written = 0
            while True:  # until the buffers of both ends are full, since the other end reads nothing
                try:
                    written += ours.send(b"x" * 65536)
                except BlockingIOError:
                    break
            full = sent(ours)
            assert full is not None
            assert full.under_way
            assert 0 < full.acknowledged_bytes - before.acknowledged_bytes < written
            ours.close()
            assert sent(ours) is None
