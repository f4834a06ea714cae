"""The ring of decisions: bounded whatever comes, and what it keeps is what was said."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.explained import a_batch, a_decision, a_request

from scheduler.dispatch.decision_ring import (
    ANSWERED,
    CANCELLED,
    DECISIONS_KEPT,
    SENDINGS_KEPT,
    DecisionRing,
    Explanation,
    Sending,
)
from scheduler.domain.batches import Batch, BatchReport, FailureKind
from scheduler.domain.decisions import Decision
from scheduler.domain.requests import Attempt, Backend

REQUESTS = st.integers(1, 12)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("note"), REQUESTS),
        st.tuples(st.just("sent"), st.lists(REQUESTS, min_size=1, max_size=5, unique=True)),
        st.tuples(st.just("settled"), st.integers(1, 40)),
        st.tuples(st.just("ended"), REQUESTS),
    ),
    max_size=120,
)


@dataclass
class Ledger:
    """The same, kept without bounds and looked up by reading all of it."""

    size: int
    heard: list[int] = field(default_factory=list)
    """Requests as they became known; those that were pushed out become known again when they are heard of again."""
    decisions: dict[int, list[Decision]] = field(default_factory=dict)
    batches: dict[int, list[int]] = field(default_factory=dict)
    outcomes: dict[int, Sending] = field(default_factory=dict)
    ends: dict[int, float] = field(default_factory=dict)

    def hear(self, request_id: int) -> None:
        if request_id not in self.heard[-self.size :]:
            if request_id in self.heard:
                self.heard.remove(request_id)
            self.heard.append(request_id)
            self.decisions[request_id], self.batches[request_id] = [], []
            self.ends.pop(request_id, None)

    def known(self) -> list[int]:
        return self.heard[-self.size :]

    def explain(self, request_id: int) -> Explanation:
        decisions, batches = self.decisions[request_id], self.batches[request_id]
        return Explanation(
            a_request(request_id=request_id),
            tuple(decisions[:1] + decisions[1:][-(DECISIONS_KEPT - 1) :]),
            max(0, len(decisions) - DECISIONS_KEPT),
            tuple(self.outcomes[batch_id] for batch_id in batches[-SENDINGS_KEPT:]),
            self.ends.get(request_id),
            ANSWERED if request_id in self.ends else "",
        )

    def kept_batches(self) -> set[int]:
        return {batch_id for request_id in self.known() for batch_id in self.batches[request_id][-SENDINGS_KEPT:]}


def play(steps: list[tuple[str, object]], ring: DecisionRing, ledger: Ledger) -> None:
    for at, (what, value) in enumerate(steps):
        at_s = float(at)
        if what == "note":
            decision = a_decision(request_id=value, at_s=at_s)
            ring.note(decision)
            ledger.hear(decision.request.request_id)
            ledger.decisions[decision.request.request_id].append(decision)
        elif what == "sent":
            send(a_batch(len(ledger.outcomes) + 1, value), ring, ledger)  # type: ignore[arg-type]
        elif what == "settled":
            settle(int(value), at_s, ring, ledger)  # type: ignore[call-overload]
        else:
            ring.ended(a_request(request_id=value), at_s, ANSWERED)
            ledger.hear(int(value))  # type: ignore[call-overload]
            ledger.ends[int(value)] = at_s  # type: ignore[call-overload]


def send(batch: Batch, ring: DecisionRing, ledger: Ledger) -> None:
    ring.sent(batch)
    ledger.outcomes[batch.batch_id] = Sending(batch)
    for request_id in set(batch.request_ids) & set(ledger.known()):
        ledger.batches[request_id].append(batch.batch_id)


def settle(batch_id: int, at_s: float, ring: DecisionRing, ledger: Ledger) -> None:
    report, kind = BatchReport(at_s), FailureKind.TIMEOUT if batch_id % 2 else None
    ring.settled(batch_id, report, kind, cost=0.5, at_s=at_s)
    if batch_id in ledger.outcomes:
        ledger.outcomes[batch_id] = Sending(ledger.outcomes[batch_id].batch, at_s, report, kind, 0.5)


@given(STEPS, st.integers(1, 6))
def test_it_keeps_the_newest_requests_as_they_were_told_and_no_batch_without_a_request(
    steps: list[tuple[str, object]], size: int
) -> None:
    ring, ledger = DecisionRing(size), Ledger(size)
    play(steps, ring, ledger)
    known = ledger.known()
    assert len(ring) == len(known) <= size
    for request_id in range(14):
        expected = ledger.explain(request_id) if request_id in known else None
        assert ring.explain(request_id) == expected
    assert ring.batches == len(ledger.kept_batches())


def test_of_many_decisions_the_first_and_the_last_stay_and_the_others_are_counted() -> None:
    ring = DecisionRing(2)
    for at in range(20):
        ring.note(a_decision(at_s=float(at)))
    found = ring.explain(1)
    assert found is not None
    assert [decision.at_s for decision in found.decisions] == [0.0, *(float(at) for at in range(13, 20))]
    assert found.left_out == 12


def test_a_ring_may_keep_all_decisions_and_sendings_of_a_request() -> None:
    ring = DecisionRing(1, whole=True)
    for at in range(100):
        ring.note(a_decision(at_s=float(at)))
        ring.sent(a_batch(at, (1,)))
    found = ring.explain(1)
    assert found is not None
    assert [decision.at_s for decision in found.decisions] == [float(at) for at in range(100)]
    assert [sending.batch.batch_id for sending in found.sendings] == list(range(100))
    assert found.left_out == 0


def test_a_request_is_known_as_it_arrived_whether_anything_was_decided_about_it_or_not() -> None:
    ring, sent = DecisionRing(2), Attempt(Backend.EDGE, 7, 100.5)
    ring.ended(a_request(tenant="x", attempts=(sent,)), 101.0, "queue_full")
    ring.note(a_decision(request=a_request(request_id=2, class_name="low")))
    ring.ended(a_request(request_id=2, class_name="low", attempts=(sent,)), 101.0, ANSWERED)
    undecided, decided = ring.explain(1), ring.explain(2)
    assert undecided is not None
    assert decided is not None
    assert (undecided.request, undecided.decisions) == (a_request(tenant="x"), ())
    assert decided.request == a_request(request_id=2, class_name="low")


def test_a_batch_is_shared_by_its_requests_and_goes_with_the_last_of_them() -> None:
    ring = DecisionRing(2)
    for request_id in (1, 2):
        ring.note(a_decision(request_id=request_id))
    ring.sent(a_batch(7, (1, 2)))
    ring.settled(7, BatchReport(0.2), None, cost=0.25, at_s=1.0)
    first, second = ring.explain(1), ring.explain(2)
    assert first is not None
    assert second is not None
    assert first.sendings == second.sendings == (Sending(a_batch(7, (1, 2)), 1.0, BatchReport(0.2), None, 0.25),)
    ring.note(a_decision(request_id=3))
    assert (ring.explain(1), ring.batches) == (None, 1)
    ring.note(a_decision(request_id=4))
    assert ring.batches == 0


def test_of_many_batches_the_last_stay_and_the_others_are_forgotten() -> None:
    ring = DecisionRing(1)
    ring.note(a_decision())
    for batch_id in range(1, 8):
        ring.sent(a_batch(batch_id, (1,)))
    found = ring.explain(1)
    assert found is not None
    assert [sending.batch.batch_id for sending in found.sendings] == [5, 6, 7]
    assert ring.batches == SENDINGS_KEPT


def test_a_late_bill_takes_the_place_of_the_first_word() -> None:
    ring = DecisionRing(1)
    ring.note(a_decision())
    ring.sent(a_batch(7, (1,)))
    ring.settled(7, BatchReport(0.2), FailureKind.TIMEOUT, cost=0.5, at_s=1.0)
    ring.settled(7, BatchReport(0.2), FailureKind.TIMEOUT, cost=0.75, at_s=2.0)
    found = ring.explain(1)
    assert found is not None
    assert (found.sendings[0].cost, found.sendings[0].settled_at_s) == (0.75, 2.0)


@pytest.mark.parametrize("batch_id", [7, 8])
def test_what_is_not_kept_may_come_back_without_harm(batch_id: int) -> None:
    ring = DecisionRing(1)
    ring.sent(a_batch(7, (1,)))
    ring.settled(batch_id, BatchReport(0.2), None, cost=0.5, at_s=1.0)
    assert (len(ring), ring.batches, ring.explain(1)) == (0, 0, None)


def test_the_newest_come_first_and_those_that_missed_alone_where_these_are_wanted() -> None:
    ring = DecisionRing(6)
    for number in range(1, 7):
        ring.note(a_decision(request_id=number))
    deadline_s = a_decision(request_id=2).request.deadline_s
    ring.ended(a_request(request_id=2), deadline_s + 0.5, ANSWERED)
    ring.ended(a_request(request_id=3), deadline_s, ANSWERED)
    ring.ended(a_request(request_id=4), deadline_s + 1.0, CANCELLED)
    ring.ended(a_request(request_id=5), deadline_s - 0.5, "no_capacity")
    ring.ended(a_request(request_id=7), deadline_s - 0.5, "queue_full")
    assert list(ring.newest()) == [7, 6, 5, 4, 3, 2]
    assert list(ring.newest(missed=True)) == [7, 5, 2]
