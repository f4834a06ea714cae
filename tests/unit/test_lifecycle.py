"""The life of a request: the table's transitions happen, all others raise and change nothing."""

from copy import copy
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.dispatch.queue import MAX_COPIES, DeadlineOrder, QueuedRequest
from scheduler.domain.lifecycle import QUEUES, TRANSITIONS, IllegalTransition, State
from scheduler.domain.requests import Attempt, Backend, Place, Request

REQUEST = Request(1, "m", 0.0, 1.0)
FIELDS = ("request", "state", "failed_on", "cancelled", "defers", "copies", "reason")


def queued_in(state: State, *, copies: int = 0) -> QueuedRequest:
    return QueuedRequest(REQUEST, state=state, copies=copies)


def values(queued: QueuedRequest) -> tuple[object, ...]:
    return tuple(getattr(queued, name) for name in FIELDS)


@pytest.mark.parametrize(("before", "after"), list(product(State, State)))
def test_a_transition_happens_if_the_table_has_it_and_else_changes_nothing(before: State, after: State) -> None:
    queued = queued_in(before)
    if after in TRANSITIONS[before]:
        queued.enter(after)
        assert queued.state is after
        return
    kept = values(queued)
    with pytest.raises(IllegalTransition, match=f"request 1: {before.value} -> {after.value}"):
        queued.enter(after)
    assert values(queued) == kept


def test_every_state_is_in_the_table_and_can_be_reached_and_only_the_end_is_final() -> None:
    assert set(TRANSITIONS) == set(State)
    reached = {State.NEW}
    while more := {after for state in reached for after in TRANSITIONS[state]} - reached:
        reached |= more
    assert reached == set(State)
    assert [state for state, following in TRANSITIONS.items() if not following] == [State.ENDED]


@pytest.mark.parametrize("state", [*QUEUES, State.ENDED])
def test_what_waits_or_has_ended_is_not_sent(state: State) -> None:
    queued = queued_in(state)
    kept = values(queued)
    with pytest.raises(IllegalTransition):
        queued.send(Attempt(Backend.EDGE, 1, 0.0))
    assert values(queued) == kept


def test_a_third_copy_is_refused_and_so_is_to_queue_again_while_a_copy_is_in_flight() -> None:
    queued = queued_in(State.NEW)
    for batch_id in range(MAX_COPIES):
        queued.send(Attempt(Backend.EDGE, batch_id, 0.0))
    kept = values(queued)
    with pytest.raises(IllegalTransition):
        queued.send(Attempt(Backend.FUNCTION, 9, 0.0))
    with pytest.raises(IllegalTransition):
        queued.requeue()
    assert values(queued) == kept
    for _ in range(MAX_COPIES):
        queued.come_back()
    kept = values(queued)
    with pytest.raises(IllegalTransition):
        queued.come_back()
    assert values(queued) == kept
    queued.requeue()
    assert queued.state is State.NEW


def test_an_order_that_refuses_a_request_stays_as_it_was() -> None:
    order, other = DeadlineOrder(State.EDGE_BATCH), DeadlineOrder(State.OVERDUE)
    queued = queued_in(State.NEW)
    order.add(queued)
    with pytest.raises(IllegalTransition):
        other.add(queued)
    assert (len(other), other.items, other.body_bytes) == (0, 0, 0)
    assert order.members == [queued]


def test_a_request_that_changed_sides_is_kept_from_the_side_it_left() -> None:
    queued = queued_in(State.NEW)
    queued.send(Attempt(Backend.EDGE, 1, 0.0))
    assert queued.failed_on == ()
    queued.send(Attempt(Backend.FUNCTION, 2, 1.0))
    assert queued.failed_on == (Place.edge(),)
    assert [attempt.batch_id for attempt in queued.placed().attempts] == [1, 2]


STEPS = ("queue", "leave", "send", "back", "requeue", "cancel", "end")


@given(st.lists(st.sampled_from(STEPS), max_size=30))
def test_whatever_is_asked_for_copies_and_state_agree(steps: list[str]) -> None:
    queued = queued_in(State.NEW)
    for number, step in enumerate(steps):
        kept, before = values(queued), copy(queued)
        try:
            match step:
                case "queue":
                    queued.enter(State.FUNCTION)
                case "leave":
                    queued.enter(State.NEW)
                case "send":
                    queued.send(Attempt(Backend.EDGE, number, 0.0))
                case "back":
                    queued.come_back()
                case "requeue":
                    queued.requeue()
                case "cancel":
                    queued.cancel()
                case "end":
                    queued.enter(State.ENDED)
        except IllegalTransition:
            assert values(queued) == kept
        assert 0 <= queued.copies <= MAX_COPIES
        if queued.state in QUEUES:
            assert before.state in (State.NEW, queued.state)
