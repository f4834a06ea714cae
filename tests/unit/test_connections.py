"""Where too many connections are open, the greedy peer's idle ones make room for the newcomer."""

from __future__ import annotations

import logging
import resource
import socket
from dataclasses import dataclass

import pytest

from scheduler.daemon.http import connections
from scheduler.daemon.http.connections import Connections, most_connections
from scheduler.daemon.http.half_closed import is_reset


@dataclass(eq=False)
class Fake:
    """A connection that waits since a time, or has a request in hand."""

    peer: str
    idle_since_s: float | None = None
    is_closed: bool = False

    def force_close(self) -> None:
        self.is_closed = True


def opened(limit: int, *those: Fake) -> Connections:
    counted = Connections(limit, lambda: 0.0)
    for each in those:
        counted.opened(each)
    return counted


def test_below_the_limit_nothing_is_closed() -> None:
    those = [Fake("a", float(number)) for number in range(5)]
    opened(5, *those)
    assert not any(each.is_closed for each in those)


def test_the_peer_with_most_idle_connections_loses_the_one_that_waits_longest() -> None:
    greedy = [Fake("a", 9.0), Fake("a", 5.0), Fake("a", 7.0)]
    others = [Fake("b", 1.0), Fake("c", 2.0)]
    opened(5, *greedy, *others, newcomer := Fake("d", 10.0))
    assert [each.is_closed for each in greedy] == [False, True, False]
    assert not any(each.is_closed for each in [*others, newcomer])


def test_a_connection_with_a_request_in_hand_is_never_closed_for_another() -> None:
    busy = [Fake("a"), Fake("a"), Fake("a")]
    idle = Fake("b", 1.0)
    counted = opened(4, *busy, idle)
    counted.opened(first := Fake("b", 2.0))
    assert idle.is_closed
    assert not first.is_closed
    first.idle_since_s = None
    counted.opened(second := Fake("b", 3.0))
    assert second.is_closed, "all others are busy"
    assert not any(each.is_closed for each in busy)


def test_one_that_leaves_makes_room() -> None:
    first, second, third = (Fake("a", float(number)) for number in range(3))
    counted = opened(2, first, second)
    counted.closed(first, "a")
    counted.closed(first, "a")  # it is told twice when it was closed for another
    counted.opened(third)
    assert not any(each.is_closed for each in (first, second, third))


def test_many_are_closed_at_once_where_the_limit_is_high_and_one_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    those = [Fake("a", float(number)) for number in range(1002)]
    with caplog.at_level(logging.WARNING):
        counted = opened(1000, *those)
        for _ in range(20):
            counted.opened(Fake("b", 5000.0))
    closed = [number for number, each in enumerate(those) if each.is_closed]
    assert closed == list(range(len(closed)))
    assert len(closed) in (20, 30)
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("limits", "expected", "raised"),
    [((64, 64), 32, None), ((1024, 4096), 3584, (4096, 4096)), ((1024, resource.RLIM_INFINITY), 57344, (65536, -1))],
)
def test_the_limit_of_open_files_is_raised_as_far_as_it_may(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], expected: int, raised: tuple[int, int] | None
) -> None:
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(connections.resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(connections.resource, "setrlimit", lambda _, wanted: found.append(wanted))
    assert most_connections() == expected
    assert found == ([] if raised is None else [raised])


def test_a_socket_that_is_closed_here_has_no_other_end() -> None:
    here, there = socket.socketpair()
    with there:
        here.close()
        assert is_reset(here)
