"""An explanation in words and as JSON: every place, cause and end has its sentence, and nothing is lost on the way."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.explained import a_batch, a_decision, an_explanation

from scheduler.dispatch.decision_ring import CANCELLED, Explanation, Sending
from scheduler.domain.batches import Batch, BatchReport, FailureKind
from scheduler.domain.decisions import Decision
from scheduler.domain.errors import RefusalKind
from scheduler.domain.requests import Backend
from scheduler.explain.json_lines import from_json, to_json, to_values
from scheduler.explain.text import CAUSES, OUTCOMES, PLACES, Context, describe

NEVER = math.inf


def line_with(text: str, words: str) -> str:
    """The one line in which the words are, without its indentation."""
    [line] = [line.strip() for line in text.splitlines() if words in line]
    return line


def figures(text: str, term: str, nth: int = 0) -> list[str]:
    """The figures behind a term, as they stand in the nth table that has it; a blank one is left out."""
    rows = [line.strip() for line in text.splitlines() if line.strip().startswith(f"{term}  ")]
    return [figure.strip() for figure in rows[nth].removeprefix(term).split("  ") if figure]


def test_an_answered_request_is_told_from_its_arrival_to_its_answer() -> None:
    text = describe(an_explanation(), Context("abc", "2026-05-04T10:11:12.123Z", "CNY"))
    first, second, *events = text.splitlines()
    assert first == "request 1 (its client calls it 'abc'), first decided about at 2026-05-04T10:11:12.123Z"
    assert second.endswith("its deadline is +1.000 s")
    told = [line for line in events if line.startswith("  +")]
    assert told == [
        "  +0.000 s  on arrival, it was put into the edge's next batch (plan 3)",
        "  +0.125 s  sent to the edge in batch 7, with 1 other request: 2 items, 48000 B",
        "  +0.250 s  batch 7 on the edge came back",
        "  +0.250 s  answered, 0.750 s before its deadline",
    ]


def test_the_terms_of_both_sides_stand_beside_each_other_with_their_units() -> None:
    text = describe(an_explanation())
    assert figures(text, "start") == ["+0.125 s"]
    assert figures(text, "slot, uplink, round trip") == ["0.050 s"]
    assert figures(text, "of it a possible cold start") == ["0.010 s"]
    assert figures(text, "gathering and service") == ["0.125 s", "0.575 s"]
    assert figures(text, "items in the batch") == ["8", "3"]
    assert figures(text, "answer") == ["+0.250 s", "+0.625 s"]
    assert figures(text, "risk of being late") == ["0.4 %", "1 %"]
    assert figures(text, "cost of this request") == ["nothing", "2.5e-06 CNY"]


def test_what_was_predicted_stands_beside_what_came_on_the_edge() -> None:
    text = describe(an_explanation())
    assert figures(text, "start", 1) == ["+0.125 s", "+0.125 s"]
    assert figures(text, "items in the batch", 1) == ["8", "2"]
    assert figures(text, "service") == ["0.062 s", "0.070 s"]
    assert figures(text, "way there and back, waiting") == ["0.062 s", "0.055 s"]
    assert figures(text, "answer", 1) == ["+0.250 s", "+0.250 s"]
    assert figures(text, "cost of the batch") == ["nothing", "nothing"]


def function_batch(batch_id: int = 9, **changes: Any) -> Batch:
    fields = {"tier": "1gb", "sent_at_s": 100.25, "predicted_finish_s": 100.75, "expected_cost": 4e-6, **changes}
    return a_batch(batch_id, (1, 2, 3), backend=Backend.FUNCTION, **fields)


def test_a_function_batch_tells_its_tier_way_cold_start_and_cost() -> None:
    report = BatchReport(0.5, service_s=0.375, rtt_s=0.02, cold_start=True)
    sending = Sending(function_batch(), 100.75, report, None, 5e-6)
    text = describe(an_explanation(decisions=(a_decision(place="function"),), sendings=(sending,), ended_at_s=101.25))
    assert line_with(text, "sent to").endswith(
        "sent to the function tier 1gb in batch 9, with 2 other requests: 3 items, 72000 B"
    )
    assert figures(text, "items in the batch", 1) == ["3", "3"]
    assert figures(text, "way there and back, waiting") == ["0.438 s", "0.125 s"]
    assert figures(text, "of it round trip") == ["0.020 s"]
    assert figures(text, "cold start") == ["0.010 s", "yes"]
    assert figures(text, "cost of the batch") == ["4e-06 CNY", "5e-06 CNY"]
    assert line_with(text, "answered").endswith("answered, 0.250 s after its deadline")


@pytest.mark.parametrize("place", ["edge", "waiting"])
def test_where_the_edge_was_taken_the_function_is_the_alternative_with_what_it_would_have_cost(place: str) -> None:
    text = describe(an_explanation(decisions=(a_decision(place=place),)))
    assert (
        line_with(text, "not taken")
        == "not taken: the function, at 2.5e-06 CNY more and a risk of 1 % instead of 0.4 %"
    )


def test_where_the_function_was_taken_the_edge_is_the_alternative_with_what_it_would_have_saved() -> None:
    text = describe(an_explanation(decisions=(a_decision(place="function", edge_late=0.9),)))
    assert line_with(text, "not taken") == "not taken: the edge, at 2.5e-06 CNY less and a risk of 90 % instead of 1 %"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"function_finish_s": NEVER}, "there was no alternative: the function could not take it"),
        ({"place": "function", "edge_finish_s": NEVER}, "there was no alternative: the edge could not take it"),
        (
            {"place": "refused", "edge_finish_s": NEVER, "function_finish_s": NEVER},
            "there was no alternative: no place could take it",
        ),
        (
            {"place": "late", "edge_finish_s": 102.0, "function_finish_s": NEVER},
            "there was no alternative: each place that could take it was expected to be late",
        ),
        (
            {"place": "refused", "edge_late": 0.75, "function_late": 0.5},
            "not taken: to risk it (50 % of being late)",
        ),
    ],
)
def test_where_there_was_no_alternative_it_says_why(changes: dict[str, Any], sentence: str) -> None:
    text = describe(an_explanation(decisions=(a_decision(**changes),)))
    assert line_with(text, sentence) == sentence


def test_a_side_that_cannot_take_it_shows_no_figures() -> None:
    text = describe(an_explanation(decisions=(a_decision(function_finish_s=NEVER),), sendings=()))
    assert figures(text, "answer") == ["+0.250 s", "cannot take it"]
    assert figures(text, "cost of this request") == ["nothing"]
    assert "inf" not in text
    assert "nan" not in text


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("cause", CAUSES)
def test_every_place_and_every_cause_has_its_words(place: str, cause: str) -> None:
    text = describe(an_explanation(decisions=(a_decision(place=place, cause=cause),)))
    assert f"{CAUSES[cause]}, {PLACES[place]} (plan 3)" in text


def test_the_words_cover_what_a_decision_may_say() -> None:
    documented = {name: Decision.__annotations__[name] for name in ("place", "cause")}
    assert documented == {"place": str, "cause": str}
    assert set(PLACES) == {"edge", "waiting", "function", "deferred", "late", "refused"}
    assert set(OUTCOMES) == {CANCELLED, *(kind.value for kind in RefusalKind)}


def test_words_that_nobody_knows_yet_are_told_as_they_are() -> None:
    decision = a_decision(place="moon", cause="spend")
    text = describe(an_explanation(decisions=(decision,), outcome="spend_cap"))
    assert "because of spend, it was put to moon (plan 3)" in text
    assert "refused: spend cap" in text


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_end_has_its_sentence(outcome: str) -> None:
    text = describe(an_explanation(outcome=outcome, sendings=()))
    assert text.splitlines()[-1] == f"  +0.250 s  {OUTCOMES[outcome]}"


def test_a_rescue_shows_both_sendings_and_what_the_loser_cost() -> None:
    hedged = a_decision(place="function", cause="hedging", at_s=100.25)
    lost = Sending(function_batch(), 100.875, BatchReport(0.625, service_s=0.375), None, 5e-6)
    won = Sending(a_batch(7, (1,)), 100.5, BatchReport(0.375, service_s=0.3), None, 0.0)
    text = describe(an_explanation(decisions=(a_decision(), hedged), sendings=(won, lost), ended_at_s=100.5))
    told = [line.split("  ")[-1] for line in text.splitlines() if line.startswith("  +")]
    assert told == [
        "on arrival, it was put into the edge's next batch (plan 3)",
        "sent to the edge in batch 7, alone: 1 item, 24000 B",
        "to save its deadline, it was put into the function batch that was being gathered (plan 3)",
        "sent to the function tier 1gb in batch 9, with 2 other requests: 3 items, 72000 B",
        "batch 7 on the edge came back",
        "answered, 0.500 s before its deadline",
        "batch 9 on the function tier 1gb came back, after the request had ended; what it cost counts all the same",
    ]


def test_a_failed_batch_says_how_and_what_is_not_known() -> None:
    sending = Sending(a_batch(7, (1,)), 100.5, BatchReport(0.375), FailureKind.TIMEOUT, 0.0)
    text = describe(an_explanation(sendings=(sending,)))
    assert "batch 7 on the edge failed (timeout)" in text
    assert figures(text, "service") == ["0.062 s", "not known"]


def test_what_is_still_under_way_is_said_to_be() -> None:
    text = describe(an_explanation(sendings=(Sending(a_batch(7, (1,))),), ended_at_s=None, outcome=""))
    assert text.splitlines()[-2:] == ["  batch 7 on the edge is not back yet", "  it has not ended yet"]


def test_decisions_that_are_not_kept_are_counted_where_they_are_missing() -> None:
    text = describe(an_explanation(decisions=(a_decision(), a_decision(at_s=100.5, cause="plan")), left_out=4))
    assert "under a new plan" in line_with(text, "(4 decisions before this one are not kept)")


def test_a_batch_that_is_never_expected_back_has_no_figure() -> None:
    sending = Sending(a_batch(7, (1,), predicted_finish_s=NEVER), 100.5, BatchReport(0.375), None, 0.0)
    text = describe(an_explanation(decisions=(), sendings=(sending,)))
    assert figures(text, "answer") == ["never", "+0.375 s"]


def test_a_clients_id_cannot_write_on_the_terminal() -> None:
    assert "\x1b" not in describe(an_explanation(), Context("\x1b[2J"))


TEXTS = st.text(max_size=20)
DECISIONS = st.builds(
    Decision,
    request_id=st.just(1),
    at_s=st.floats(0, 1e9),
    place=st.sampled_from(sorted(PLACES)),
    cause=st.sampled_from(sorted(CAUSES)),
    plan_id=st.integers(0),
    deadline_s=st.floats(0, 1e9),
    edge_start_s=st.floats(0),
    edge_items=st.integers(0, 64),
    edge_finish_s=st.floats(0),
    edge_late=st.floats(0, 1),
    function_path_s=st.floats(0),
    function_cold_s=st.floats(0),
    function_items=st.integers(0, 64),
    function_finish_s=st.floats(0),
    function_late=st.floats(0, 1),
    function_cost=st.floats(0),
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
BATCHES = st.builds(
    a_batch,
    st.integers(1),
    st.lists(st.integers(1), min_size=1, max_size=4),
    backend=st.sampled_from(Backend),
    tier=TEXTS,
    predicted_finish_s=st.floats(0),
    expected_cost=st.floats(0, 1e9),
)
SENDINGS = BATCHES.map(Sending) | st.builds(
    Sending, BATCHES, st.floats(0, 1e9), REPORTS, st.none() | st.sampled_from(FailureKind), st.floats(0, 1e9)
)
EXPLANATIONS = st.builds(
    Explanation,
    st.just(1),
    st.lists(DECISIONS, max_size=3).map(tuple),
    st.integers(0),
    st.lists(SENDINGS, max_size=3).map(tuple),
    st.none() | st.floats(0, 1e9),
    TEXTS,
)


@given(EXPLANATIONS, st.builds(Context, TEXTS, TEXTS, TEXTS))
def test_one_line_of_json_brings_back_what_it_was_made_from(explanation: Explanation, context: Context) -> None:
    line = to_json(explanation, context)
    assert "\n" not in line
    assert from_json(line) == (explanation, context)


@given(EXPLANATIONS)
def test_whatever_the_numbers_are_they_can_be_worded(explanation: Explanation) -> None:
    assert describe(explanation).startswith("request 1")


def test_the_keys_are_the_fields_with_their_units() -> None:
    values = to_values(an_explanation(), Context("abc"))
    assert values["version"] == 1
    assert values["client_id"] == "abc"
    [decision], [sending] = values["decisions"], values["sendings"]
    assert (decision["edge_late_probability"], decision["function_late_probability"]) == (0.004, 0.01)
    assert len(decision) == len(Decision._fields) - 1
    assert (sending["backend"], sending["report"]["elapsed_s"]) == ("edge", 0.125)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("[]", "is a JSON object"),
        ('{"version": 2}', "version 2 of explanations cannot be read here"),
        ('{"version": 1, "request_id": 1}', "lacks or misstates 'decisions'"),
        ('{"version": 1, "request_id": 1, "decisions": [3]}', "lacks or misstates"),
        ("{", "Expecting property name"),
    ],
)
def test_a_line_that_is_no_explanation_is_refused_with_a_reason(line: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        from_json(line)


def test_a_line_is_json_that_everybody_reads() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    line = to_json(an_explanation(decisions=(a_decision(edge_finish_s=NEVER),)))
    assert json.loads(line, parse_constant=refuse)["decisions"][0]["edge_finish_s"] is None
