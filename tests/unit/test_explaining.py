"""An explanation in words and as JSON: every queue, cause, reason and end has its words, and nothing is lost."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.explained import (
    FUNCTION,
    a_batch,
    a_decision,
    a_function_offer,
    a_move,
    a_request,
    an_explanation,
    an_offer,
)
from support.explained import (
    GATES as IMPOSSIBLE,
)

from scheduler.dispatch.decision_ring import CANCELLED, Explanation, Sending
from scheduler.domain.batches import Batch, BatchReport, FailureKind
from scheduler.domain.decisions import NO_CHOICE, Cause, Decision, Offer, Reason, impossible
from scheduler.domain.errors import RefusalKind
from scheduler.domain.lifecycle import QUEUES as ALL_QUEUES
from scheduler.domain.lifecycle import State
from scheduler.domain.requests import Attempt, Backend, Place, Request
from scheduler.explain.json_lines import from_json, from_values, to_json, to_values
from scheduler.explain.text import Context, describe
from scheduler.explain.words import CAUSES, GATES, MOVES, OUTCOMES, QUEUES, REASONS, REFUSED

NEVER = math.inf
EDGE = Place.edge()


def line_with(text: str, words: str) -> str:
    """The one line in which the words are, without its indentation."""
    [line] = [line.strip() for line in text.splitlines() if words in line]
    return line


def figures(text: str, term: str, nth: int = 0) -> list[str]:
    """The figures behind a term, as they stand in the nth table that has it; a blank one is left out."""
    rows = [line.strip() for line in text.splitlines() if line.strip().startswith(f"{term}  ")]
    return [figure.strip() for figure in rows[nth].removeprefix(term).split("  ") if figure]


def told_of(**changes: Any) -> str:
    """The text about a request with one such decision and no sending."""
    return describe(an_explanation(decisions=(a_decision(**changes),), sendings=()))


class TestText:
    def test_an_answered_request_is_told_from_its_arrival_to_its_answer(self) -> None:
        text = describe(an_explanation(), Context("abc", "2026-05-04T10:11:12.123Z", "CNY"))
        first, second, third, *events = text.splitlines()
        assert first == "request 1 (its client calls it 'abc'), first decided about at 2026-05-04T10:11:12.123Z"
        assert second == "model 'digits', class 'default'"
        assert third.endswith("its deadline is +1.000 s")
        told = [line for line in events if line.startswith("  +")]
        assert told == [
            "  +0.000 s  on arrival, it was put into the edge's next batch (plan 3)",
            "  +0.125 s  sent to edge:main in batch 7, with 1 other request: 2 items, 48000 B",
            "  +0.250 s  batch 7 on edge:main came back",
            "  +0.250 s  answered, 0.750 s before its deadline",
        ]

    def test_the_offers_stand_side_by_side_with_their_units(self) -> None:
        text = told_of()
        assert line_with(text, "priced at") == "an answer after the deadline was priced at 1e-05 CNY"
        assert figures(text, "offer") == ["edge:main", "function:1gb"]
        assert figures(text, "queue") == ["edge-batch", "function"]
        assert figures(text, "start") == ["+0.125 s", "+0.050 s"]
        assert figures(text, "answer") == ["+0.250 s", "+0.625 s"]
        assert figures(text, "items in the batch") == ["8", "3"]
        assert figures(text, "risk of being late") == ["0.4 %", "1 %"]
        assert figures(text, "money") == ["nothing", "2.5e-06 CNY"]
        assert figures(text, "cost to others") == ["1.5e-07 CNY", "nothing"]
        assert figures(text, "total") == ["1.9e-07 CNY", "2.6e-06 CNY"]
        assert figures(text, "result") == ["chosen", "not chosen"]
        assert line_with(text, "decided by") == "decided by money: function:1gb would have cost more money"

    def test_the_figures_of_an_offer_end_in_one_column(self) -> None:
        terms = ("offer", "queue", "start", "answer", "risk of being late", "total", "result")
        rows = [line for line in told_of().splitlines() if line.strip().startswith(terms)]
        assert len(rows) == len(terms)
        assert len({len(row) for row in rows}) == 1

    def test_an_impossible_offer_says_why_and_shows_only_what_was_worked_out(self) -> None:
        full = impossible(EDGE, State.EDGE_BATCH, Reason.BATCH_FULL, start_s=100.5, items=9)
        text = told_of(offers=(full, a_function_offer()), chosen=1)
        assert figures(text, "start") == ["+0.500 s", "+0.050 s"]
        assert figures(text, "answer") == ["+0.625 s"]
        assert figures(text, "risk of being late") == ["1 %"]
        assert figures(text, "money") == ["2.5e-06 CNY"]
        assert figures(text, "total") == ["2.6e-06 CNY"]
        assert figures(text, "result") == ["batch full", "chosen"]
        assert line_with(text, "decided") == (
            "decided by batch-full: the next batch of edge:main had as many items as it may"
        )
        assert "inf" not in text
        assert "nan" not in text

    def test_what_a_gate_stopped_shows_its_risk_and_money_where_they_were_worked_out(self) -> None:
        risky = a_function_offer(reason=Reason.TOO_RISKY, late_probability=0.9, total=NEVER)
        text = told_of(offers=(an_offer(), risky))
        assert figures(text, "risk of being late") == ["0.4 %", "90 %"]
        assert figures(text, "money") == ["nothing", "2.5e-06 CNY"]
        assert figures(text, "result") == ["chosen", "too risky"]
        assert "decided by least-total: no other offer was possible or asked for" in text

    def test_an_offer_in_the_place_of_another_request_names_it(self) -> None:
        text = told_of(offers=(an_offer(), an_offer(displaces=77)))
        assert figures(text, "in place of request") == ["77"]
        assert "in place of request" not in told_of()

    def test_what_costs_next_to_nothing_has_no_long_figure(self) -> None:
        assert figures(told_of(offers=(an_offer(cost_to_others=4e-200, late_probability=0.0),)), "total") == [
            "below 1e-12 CNY"
        ]

    def test_a_refusal_names_the_nearest_miss(self) -> None:
        late = impossible(EDGE, State.EDGE_LATER, Reason.LATE, start_s=101.0, finish_s=101.25, items=1)
        function = a_function_offer(reason=Reason.LATE, finish_s=101.125, late_probability=1.0, total=NEVER)
        text = told_of(offers=(late, function), chosen=-1)
        assert "on arrival, it was refused (plan 3)" in text
        assert figures(text, "result") == ["late", "late"]
        assert line_with(text, "decided by") == (
            "decided by late: at function:1gb it was expected to be answered after its deadline"
        )
        assert line_with(text, "nearest miss") == (
            "nearest miss: function:1gb (function): late, answer +1.125 s, 0.125 s after its deadline"
        )

    def test_a_refusal_of_edge_only_data_says_that_it_was_the_class(self) -> None:
        late = impossible(EDGE, State.EDGE_LATER, Reason.LATE, finish_s=101.25)
        text = told_of(offers=(late, impossible(FUNCTION, State.FUNCTION, Reason.CLASS)), chosen=-1)
        assert "decided by class: its class is edge-only, so no function was asked" in text
        assert line_with(text, "nearest miss").startswith("nearest miss: edge:main (edge-later): late, answer +1.250 s")

    def test_a_refusal_without_offers_has_no_nearest_miss(self) -> None:
        text = told_of(offers=(), chosen=-1)
        assert "decided by no-backend: nothing served its model at any place" in text
        assert "nearest miss" not in text

    def test_a_refusal_where_no_answer_was_expected_says_never(self) -> None:
        text = told_of(offers=(impossible(EDGE, State.EDGE_BATCH, Reason.CIRCUIT_OPEN),), chosen=-1)
        assert line_with(text, "nearest") == "nearest miss: edge:main (edge-batch): does not answer, answer never"

    @pytest.mark.parametrize("cause", sorted(NO_CHOICE))
    def test_a_move_says_that_no_offers_were_compared(self, cause: Cause) -> None:
        text = describe(an_explanation(decisions=(a_move(cause, FUNCTION, State.FUNCTION),), sendings=()))
        assert f"{CAUSES[cause]}, {MOVES[cause].format(place=FUNCTION)} (plan 3)" in text
        assert "no offers were compared" in text
        assert "decided by" not in text
        assert "total" not in text

    def test_a_trial_shows_the_offers_of_which_none_was_possible(self) -> None:
        late = a_function_offer(reason=Reason.LATE, total=NEVER)
        full = impossible(EDGE, State.EDGE_BATCH, Reason.BATCH_FULL)
        text = told_of(cause=Cause.TRIAL, compared=False, offers=(full, late), chosen=1)
        assert figures(text, "result") == ["batch full", "chosen"]
        assert "no offers were compared" in text

    @pytest.mark.parametrize("outcome", OUTCOMES)
    def test_every_end_has_its_sentence(self, outcome: str) -> None:
        text = describe(an_explanation(outcome=outcome, sendings=()))
        assert text.splitlines()[-1] == f"  +0.250 s  {OUTCOMES[outcome]}"

    def test_a_request_that_ended_before_any_decision_is_told_with_its_class(self) -> None:
        request = a_request(class_name="low", tenant="a'b")
        text = describe(an_explanation(request=request, decisions=(), sendings=(), outcome="queue_full"))
        assert text.splitlines() == [
            "request 1",
            "model 'digits', class 'low', tenant \"a'b\"",
            "no decision about it is kept",
            "  +0.000 s  refused: the queue was full",
        ]

    @pytest.mark.parametrize(
        ("tenant", "counts_as", "words"),
        [
            ("lab", "lab", ", tenant 'lab' (share 0.6)"),
            ("elsewhere", "other", ", tenant 'elsewhere' (counts as 'other', share 0.6)"),
            ("", "other", ", no tenant (counts as 'other', share 0.6)"),
            ("lab", "", ", tenant 'lab'"),
            ("", "", ""),
        ],
    )
    def test_a_tenants_share_is_told_and_what_it_counts_as(self, tenant: str, counts_as: str, words: str) -> None:
        context = Context(counts_as=counts_as, tenant_share=0.6 if counts_as else 0.0)
        text = describe(an_explanation(request=a_request(tenant=tenant)), context)
        assert text.splitlines()[1] == f"model 'digits', class 'default'{words}"

    def test_decisions_that_are_not_kept_are_counted_where_they_are_missing(self) -> None:
        text = describe(an_explanation(decisions=(a_decision(), a_decision(at_s=100.5, cause=Cause.PLAN)), left_out=4))
        assert "under a new plan" in line_with(text, "(4 decisions before this one are not kept)")

    def test_what_is_still_under_way_is_said_to_be(self) -> None:
        text = describe(an_explanation(sendings=(Sending(a_batch(7, (1,))),), ended_at_s=None, outcome=""))
        assert text.splitlines()[-2:] == ["  batch 7 on edge:main is not back yet", "  it has not ended yet"]

    def test_what_a_client_sent_cannot_write_on_the_terminal(self) -> None:
        request = a_request(tenant="\x1b[2J", class_name="\x1b[2J", model="\x1b[2J")
        assert "\x1b" not in describe(an_explanation(request=request), Context("\x1b[2J"))


def function_batch(batch_id: int = 9, **changes: Any) -> Batch:
    fields = {"place": FUNCTION, "sent_at_s": 100.25, "predicted_finish_s": 100.75, "expected_cost": 4e-6, **changes}
    return a_batch(batch_id, (1, 2, 3), **fields)


class TestSendings:
    def test_what_was_predicted_stands_beside_what_came_on_the_edge(self) -> None:
        text = describe(an_explanation())
        assert figures(text, "start", 1) == ["+0.125 s", "+0.125 s"]
        assert figures(text, "items in the batch", 1) == ["8", "2"]
        assert figures(text, "service") == ["0.062 s", "0.070 s"]
        assert figures(text, "path there and back, waiting") == ["0.062 s", "0.055 s"]
        assert figures(text, "answer", 1) == ["+0.250 s", "+0.250 s"]
        assert figures(text, "cost of the batch") == ["nothing", "nothing"]

    def test_the_wait_behind_other_daemons_is_apart_from_the_service_and_the_wait_for_own_batches(self) -> None:
        # 0.0625 s of service, 0.05 s behind others, 0.0125 s behind an own one.
        batch = a_batch(7, (1, 2), predicted_service_s=0.1125, predicted_others_s=0.05)
        report = BatchReport(0.14, service_s=0.07, queue_s=0.06, others_s=0.045)
        told = an_explanation(sendings=(Sending(batch, 100.515, report, None, 0.0),))
        text = describe(told)
        assert figures(text, "service") == ["0.062 s", "0.070 s"]
        assert figures(text, "of it for the device") == ["0.062 s", "0.060 s"]
        assert figures(text, "of it behind other daemons") == ["0.050 s", "0.045 s"]
        assert "other daemons" not in describe(an_explanation())
        values = to_values(told)
        assert values["version"] == 2
        assert values["sendings"][0]["predicted_others_s"] == 0.05
        del values["sendings"][0]["predicted_others_s"], values["sendings"][0]["report"]["others_s"]
        earlier, _ = from_values(values)
        assert (earlier.sendings[0].batch.predicted_others_s, earlier.sendings[0].report.others_s) == (0.0, None)

    def test_a_function_batch_tells_its_place_path_cold_start_and_cost(self) -> None:
        report = BatchReport(0.5, service_s=0.375, rtt_s=0.02, cold_start=True)
        sending = Sending(function_batch(), 100.75, report, None, 5e-6)
        decision = a_decision(offers=(impossible(EDGE, State.EDGE_BATCH, Reason.LATE), a_function_offer()), chosen=1)
        text = describe(an_explanation(decisions=(decision,), sendings=(sending,), ended_at_s=101.25))
        assert line_with(text, "sent to").endswith(
            "sent to function:1gb in batch 9, with 2 other requests: 3 items, 72000 B"
        )
        assert figures(text, "items in the batch", 1) == ["3", "3"]
        assert figures(text, "path there and back, waiting") == ["0.438 s", "0.125 s"]
        assert figures(text, "of it round trip") == ["0.020 s"]
        assert figures(text, "cold start") == ["yes"]
        assert figures(text, "cost of the batch") == ["4e-06 CNY", "5e-06 CNY"]
        assert line_with(text, "answered, ").endswith("answered, 0.250 s after its deadline")

    def test_a_hedge_shows_both_sendings_and_what_the_loser_cost(self) -> None:
        hedged = a_move(Cause.HEDGE, FUNCTION, State.FUNCTION, at_s=100.25)
        lost = Sending(function_batch(), 100.875, BatchReport(0.625, service_s=0.375), None, 5e-6)
        won = Sending(a_batch(7, (1,)), 100.5, BatchReport(0.375, service_s=0.3), None, 0.0)
        text = describe(an_explanation(decisions=(a_decision(), hedged), sendings=(won, lost), ended_at_s=100.5))
        told = [line.split("  ")[-1] for line in text.splitlines() if line.startswith("  +")]
        assert told == [
            "on arrival, it was put into the edge's next batch (plan 3)",
            "sent to edge:main in batch 7, alone: 1 item, 24000 B",
            "because its batch was overdue, a second copy was sent to function:1gb (plan 3)",
            "sent to function:1gb in batch 9, with 2 other requests: 3 items, 72000 B",
            "batch 7 on edge:main came back",
            "answered, 0.500 s before its deadline",
            "batch 9 on function:1gb came back, after the request had ended; what it cost counts all the same",
        ]

    def test_a_decision_after_a_batch_that_failed_at_once_stands_behind_it(self) -> None:
        after = a_request(attempts=(Attempt(Backend.FUNCTION, 9, 100.25),))
        again = a_decision(request=after, at_s=100.25, cause=Cause.FAILURE)
        failed = Sending(function_batch(), 100.25, BatchReport(0.0), FailureKind.THROTTLED, 0.0)
        sent = Sending(a_batch(10, (1,), sent_at_s=100.25), 100.5, BatchReport(0.25), None, 0.0)
        text = describe(an_explanation(decisions=(a_decision(), again), sendings=(failed, sent), ended_at_s=100.5))
        told = [line.split("  ")[-1].partition(",")[0] for line in text.splitlines() if line.startswith("  +")]
        assert told == [
            "on arrival",
            "sent to function:1gb in batch 9",
            "batch 9 on function:1gb failed (throttled)",
            "after a backend had failed",
            "sent to edge:main in batch 10",
            "batch 10 on edge:main came back",
            "answered",
        ]

    def test_a_failed_batch_says_how_and_what_is_not_known(self) -> None:
        sending = Sending(a_batch(7, (1,)), 100.5, BatchReport(0.375), FailureKind.TIMEOUT, 0.0)
        text = describe(an_explanation(sendings=(sending,)))
        assert "batch 7 on edge:main failed (timeout)" in text
        assert figures(text, "service") == ["0.062 s", "not known"]

    def test_a_batch_that_is_never_expected_back_has_no_figure(self) -> None:
        sending = Sending(a_batch(7, (1,), predicted_finish_s=NEVER), 100.5, BatchReport(0.375), None, 0.0)
        text = describe(an_explanation(decisions=(), sendings=(sending,)))
        assert figures(text, "answer") == ["never", "+0.375 s"]


class TestWords:
    def test_every_member_of_every_list_has_its_words(self) -> None:
        assert set(CAUSES) == set(Cause)
        assert set(REASONS) == set(Reason)
        assert set(GATES) == IMPOSSIBLE
        assert set(MOVES) == NO_CHOICE
        # A half of a refused batch is put into its queue without a decision.
        assert set(QUEUES) == {queue.value for queue in ALL_QUEUES if queue is not State.BISECTED} | {REFUSED}
        assert set(OUTCOMES) == {CANCELLED, *(kind.value for kind in RefusalKind)}

    @pytest.mark.parametrize("words", [CAUSES, REASONS, GATES, MOVES, QUEUES, OUTCOMES])
    def test_no_two_say_the_same(self, words: dict[Any, str]) -> None:
        same = 1 if words is MOVES else 0  # to be taken along to an edge or to a function
        assert len(set(words.values())) == len(words) - same

    @pytest.mark.parametrize("cause", sorted(set(Cause) - NO_CHOICE))
    @pytest.mark.parametrize("queue", [queue for queue in ALL_QUEUES if queue is not State.BISECTED])
    def test_every_cause_and_every_queue_of_a_choice_is_worded(self, cause: Cause, queue: State) -> None:
        text = told_of(cause=cause, offers=(an_offer(queue=queue),))
        assert f"{CAUSES[cause]}, {QUEUES[queue.value]} (plan 3)" in text

    @pytest.mark.parametrize("gate", sorted(IMPOSSIBLE))
    def test_every_gate_is_worded_as_the_reason_of_a_choice_and_of_a_refusal(self, gate: Reason) -> None:
        gated = impossible(EDGE, State.EDGE_BATCH, gate)
        sentence = f"decided by {gate.value}: {REASONS[gate].format(place=EDGE)}"
        for text in (told_of(offers=(gated, a_function_offer()), chosen=1), told_of(offers=(gated,), chosen=-1)):
            assert sentence in text
            assert GATES[gate] in figures(text, "result")

    @pytest.mark.parametrize(
        ("reason", "dearer"),
        [
            (Reason.MONEY, {"money": 1e-3}),
            (Reason.LATENESS, {"late_probability": 1.0, "money": 0.0}),
            (Reason.COST_TO_OTHERS, {"cost_to_others": 1e-3}),
        ],
    )
    def test_every_comparison_is_worded(self, reason: Reason, dearer: dict[str, float]) -> None:
        text = told_of(offers=(an_offer(), a_function_offer(**dearer)))
        assert f"decided by {reason.value}: {REASONS[reason].format(place=FUNCTION)}" in text

    def test_an_outcome_without_words_is_told_as_it_is(self) -> None:
        assert "refused: spend cap" in describe(an_explanation(outcome="spend_cap"))


TEXTS = st.text(max_size=20)
PLACES = st.sampled_from([EDGE, Place.edge("room-2"), FUNCTION, Place.function("a:b"), Place.function("")])
TIMES_S = st.floats(0, 1e9)
MONEY = st.floats(0, 1e9)
POSSIBLE = st.builds(
    Offer,
    PLACES,
    st.sampled_from(ALL_QUEUES),
    st.none(),
    st.floats(0),
    st.floats(0),
    st.integers(0, 64),
    st.floats(0, 1),
    MONEY,
    MONEY,
    st.floats(0),
    st.integers(0),
)
OFFERS = POSSIBLE | st.builds(
    lambda offer, reason: offer._replace(reason=reason, total=NEVER), POSSIBLE, st.sampled_from(sorted(IMPOSSIBLE))
)
ATTEMPTS = st.lists(st.builds(Attempt, st.sampled_from(Backend), st.integers(1), TIMES_S), max_size=3).map(tuple)
REQUESTS = st.builds(
    Request,
    st.just(1),
    TEXTS,
    TIMES_S,
    TIMES_S,
    items=st.integers(1, 64),
    body_bytes=st.integers(0),
    class_name=TEXTS,
    priority=st.integers(1, 9),
    tenant=TEXTS,
)


@st.composite
def decisions(draw: st.DrawFn, request: Request) -> Decision:
    """Any decision about a request, made after any sendings of it."""
    offers = tuple(draw(st.lists(OFFERS, max_size=5)))
    return Decision(
        replace(request, attempts=draw(ATTEMPTS), deadline_s=draw(TIMES_S)),
        draw(TIMES_S),
        draw(st.sampled_from(Cause)),
        draw(st.integers(0)),
        draw(MONEY),
        draw(st.booleans()),
        offers,
        draw(st.integers(-1, len(offers) - 1)),
    )


MAYBE_S = st.none() | st.floats(0, 1e6)
REPORTS = st.builds(
    BatchReport,
    elapsed_s=st.floats(0, 1e6),
    service_s=MAYBE_S,
    billed_duration_s=MAYBE_S,
    rtt_s=MAYBE_S,
    cold_start=st.none() | st.booleans(),
    instance_id=TEXTS,
    memory_bytes=st.none() | st.integers(0),
)
BATCHES = st.lists(st.tuples(st.integers(1), st.sampled_from(Reason)), min_size=1, max_size=4).flatmap(
    lambda members: st.builds(
        a_batch,
        st.integers(1),
        st.just([request_id for request_id, _ in members]),
        reasons=st.just(tuple(reason for _, reason in members)),
        place=PLACES,
        predicted_finish_s=st.floats(0),
        expected_cost=st.floats(0, 1e9),
    )
)
SENDINGS = BATCHES.map(Sending) | st.builds(
    Sending, BATCHES, TIMES_S, REPORTS, st.none() | st.sampled_from(FailureKind), st.floats(0, 1e9)
)
EXPLANATIONS = REQUESTS.flatmap(
    lambda request: st.builds(
        Explanation,
        st.just(request),
        st.lists(decisions(request), max_size=3).map(tuple),
        st.integers(0),
        st.lists(SENDINGS, max_size=3).map(tuple),
        st.none() | TIMES_S,
        TEXTS,
    )
)


class TestJson:
    @given(REQUESTS.flatmap(decisions))
    def test_any_decision_survives(self, decision: Decision) -> None:
        explanation = Explanation(replace(decision.request, attempts=()), (decision,))
        assert from_json(to_json(explanation))[0].decisions == (decision,)

    @given(EXPLANATIONS, st.builds(Context, TEXTS, TEXTS, TEXTS))
    def test_one_line_brings_back_what_it_was_made_from(self, explanation: Explanation, context: Context) -> None:
        line = to_json(explanation, context)
        assert "\n" not in line
        assert from_json(line) == (explanation, context)

    @given(EXPLANATIONS)
    def test_whatever_the_numbers_are_they_can_be_worded(self, explanation: Explanation) -> None:
        assert describe(explanation).startswith("request 1")

    def test_the_keys_of_a_decision_and_its_offers_are_public(self) -> None:
        full = impossible(EDGE, State.EDGE_BATCH, Reason.BATCH_FULL, start_s=100.5, items=9)
        decision = a_decision(offers=(full, a_function_offer()), chosen=1)
        [told] = to_values(an_explanation(decisions=(decision,)))["decisions"]
        where = {"place": "function:1gb", "tier": "1gb", "queue": "function"}
        assert told == {
            "at_s": 100.0,
            "cause": "arrival",
            "plan_id": 3,
            "deadline_s": 101.0,
            "lateness_price": 1e-5,
            "compared": True,
            "chosen": where,
            "chosen_offer": 1,
            "reason": "batch-full",
            "nearest_miss": None,
            "attempts": [],
            "offers": [
                {
                    **{"place": "edge:main", "tier": "", "queue": "edge-batch", "possible": False},
                    **{"reason": "batch-full", "start_s": 100.5, "finish_s": None, "items": 9, "late_probability": 1.0},
                    **{"money": 0.0, "cost_to_others": 0.0, "total": None, "displaces": 0},
                },
                {
                    **{**where, "possible": True, "reason": None, "start_s": 100.05, "finish_s": 100.625, "items": 3},
                    **{"late_probability": 0.01, "money": 2.5e-6, "cost_to_others": 0.0, "displaces": 0},
                    "total": 2.5e-6 + 1e-5 * 0.01,
                },
            ],
        }

    def test_a_refusal_names_no_place_and_its_nearest_miss(self) -> None:
        offers = (
            impossible(EDGE, State.EDGE_BATCH, Reason.BATCH_FULL),
            impossible(EDGE, State.EDGE_LATER, Reason.LATE, finish_s=101.5),
        )
        [told] = to_values(an_explanation(decisions=(a_decision(offers=offers, chosen=-1),)))["decisions"]
        assert told["chosen"] == {"place": "", "tier": "", "queue": "refused"}
        assert told["nearest_miss"] == {"place": "edge:main", "tier": "", "queue": "edge-later", "reason": "late"}
        assert (told["reason"], told["chosen_offer"]) == ("late", None)

    def test_the_explanation_names_model_class_and_tenant_and_a_sending_its_place(self) -> None:
        request = a_request(class_name="low", tenant="x")
        values = to_values(an_explanation(request=request), Context("abc"))
        assert (values["version"], values["client_id"]) == (2, "abc")
        assert (values["model"], values["class_name"], values["tenant"]) == ("digits", "low", "x")
        assert (values["counts_as"], values["tenant_share"]) == ("", 0.0)
        context = Context("abc", counts_as="other", tenant_share=0.25)
        told = to_values(an_explanation(request=request), context)
        assert from_values(told)[1] == context
        assert from_values({key: told[key] for key in told.keys() - {"counts_as", "tenant_share"}})[1] == Context("abc")
        [sending] = values["sendings"]
        assert (sending["place"], sending["reasons"]) == ("edge:main", ["money", "money"])
        assert not {"backend", "tier"} & sending.keys()
        assert sending["report"]["elapsed_s"] == 0.125

    @pytest.mark.parametrize(
        ("line", "sentence"),
        [
            ("[]", "is a JSON object"),
            ('{"version": 1}', "it is of version 1 and only version 2 can be read here; use the release"),
            ('{"version": 3}', "it is of version 3 and only version 2 can be read here; use the release"),
            ('{"request_id": 1}', "it is of version None"),
            ('{"version": 2, "request_id": 1}', "lacks or misstates 'model'"),
            ("{", "Expecting property name"),
        ],
    )
    def test_a_line_that_is_no_explanation_is_refused_with_a_reason(self, line: str, sentence: str) -> None:
        with pytest.raises(ValueError, match=sentence):
            from_json(line)

    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({"cause": "moon"}, "'moon' is not a valid Cause"),
            ({"chosen_offer": 7}, "lacks or misstates tuple index out of range"),
            ({"chosen_offer": 1}, "misstates which of 2 offers was chosen"),
            ({"offers": [3]}, "lacks or misstates"),
        ],
    )
    def test_a_decision_that_cannot_be_is_refused_with_a_reason(self, changes: dict[str, Any], sentence: str) -> None:
        values = to_values(an_explanation())
        values["decisions"][0] |= changes
        with pytest.raises(ValueError, match=sentence):
            from_json(json.dumps(values))

    def test_a_line_is_json_that_every_program_reads(self) -> None:
        def refuse(constant: str) -> None:
            raise AssertionError(constant)

        line = to_json(an_explanation(decisions=(a_decision(offers=(an_offer(finish_s=NEVER),)),)))
        assert json.loads(line, parse_constant=refuse)["decisions"][0]["offers"][0]["finish_s"] is None
