"""Which connections of waitress make room for another."""

from __future__ import annotations

from dataclasses import dataclass, field

from scheduler.strict_wsgi import most_dispensable


@dataclass
class Channel:
    """What is looked at of a connection."""

    addr: tuple[str, int]
    last_activity: float
    requests: list[object] = field(default_factory=list)


def channels(peer: str, *last_activity: float) -> list[Channel]:
    return [Channel((peer, 1), at_s) for at_s in last_activity]


def test_with_room_none_is_closed() -> None:
    assert most_dispensable(channels("a", 1.0, 2.0), most=3) == ()


def test_the_peer_with_most_idle_connections_loses_those_that_waited_longest() -> None:
    greedy, other = channels("a", 5.0, 3.0, 4.0), channels("b", 1.0)
    assert most_dispensable([*other, *greedy], most=4) == [greedy[1]]
    assert most_dispensable([*other, *greedy], most=3) == [greedy[1], greedy[2]]


def test_a_connection_with_a_request_in_hand_stays() -> None:
    busy = [Channel(("a", 1), 0.0, [object()]) for _ in range(5)]
    [idle] = channels("b", 9.0)
    assert most_dispensable([*busy, idle], most=2) == [idle]
    assert most_dispensable(busy, most=2) == []
