"""Which connections of the WSGI servers make room for another, and which never do."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from scheduler.wsgi.places import MOST_KNOWN, Places, most_dispensable


@dataclass(eq=False)
class Held:
    """A connection: its peer, since when it waits, and when it was last served."""

    peer: str
    waits_since_s: float | None = 1.0
    served_at_s: float = 0.0


def held(peer: str, *waits_since_s: float) -> list[Held]:
    return [Held(peer, since_s) for since_s in waits_since_s]


def test_the_peer_with_most_waiting_connections_loses_those_that_wait_longest() -> None:
    greedy, other = held("a", 5.0, 3.0, 4.0), held("b", 1.0)
    assert most_dispensable([*other, *greedy], ()) == [greedy[1], greedy[2], greedy[0], *other]


def test_of_a_peer_those_that_were_never_served_come_first() -> None:
    served, fresh = Held("a", 1.0, served_at_s=1.0), Held("a", 2.0)
    assert most_dispensable([served, fresh], ()) == [fresh, served]


def test_a_connection_with_a_request_in_hand_stays() -> None:
    places: Places[Held] = Places(2)
    for _ in range(2):
        assert places.enter(Held("a", None)) == (True, [])
    assert places.enter(Held("b")) == (False, ())


def test_a_known_peer_keeps_the_connection_it_was_served_on_last() -> None:
    old, new = Held("a", 1.0, served_at_s=1.0), Held("a", 5.0, served_at_s=2.0)
    other = held("b", 9.0)
    assert most_dispensable([old, new, *other], ["a"]) == [*other, old]
    assert most_dispensable([old, new, *other], ["a", "b"]) == [old]


def test_a_known_peer_without_a_connection_gets_in_though_all_are_in_hand() -> None:
    places: Places[Held] = Places(1)
    places.know("b")
    assert places.enter(Held("a", None)) == (True, [])
    assert places.enter(Held("b", None)) == (True, [])
    assert places.enter(Held("b", None)) == (False, ())


def test_the_peers_that_were_served_last_are_known() -> None:
    places: Places[Held] = Places(1)
    for number in range(MOST_KNOWN + 1):
        places.know(str(number))
    places.enter(Held("x", None))
    assert places.enter(Held("0", None)) == (False, ())
    assert places.enter(Held("1", None)) == (True, [])


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.none() | st.floats(0, 9), st.floats(0, 9), st.booleans()), max_size=40
    )
)
def test_there_are_never_more_than_allowed_but_for_one_of_each_known_peer(
    events: list[tuple[str, float | None, float, bool]],
) -> None:
    places: Places[Held] = Places(3)
    known: set[str] = set()
    for peer, waits_since_s, served_at_s, served in events:
        new = Held(peer, waits_since_s, served_at_s)
        before = set(places.held())
        has_place, ending = places.enter(new)
        assert all(each.waits_since_s is not None for each in ending)
        assert set(places.held()) == (before - set(ending)) | ({new} if has_place else set())
        if peer in known:
            assert any(each.peer == peer for each in places.held())
        for kept in known & {each.peer for each in before}:
            assert any(each.peer == kept for each in places.held())
        assert len(places.held()) <= 3 + len(known)
        if has_place and served:
            places.know(peer)
            known.add(peer)
