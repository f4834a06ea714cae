"""Choices replayed from the JSON of their records alone, over all seeded simulations; and a check of the check."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from support.explained import FUNCTION, GATES, a_batch, a_decision, a_function_offer, a_move, an_explanation, an_offer

from scheduler.dispatch.decision_ring import Sending
from scheduler.domain.decisions import NO_CHOICE, Cause, Reason, impossible
from scheduler.domain.lifecycle import State
from scheduler.domain.requests import Place
from scheduler.explain.json_lines import to_json
from scheduler.simulator.scenario import Scenario
from scripts import contradictions
from scripts.command_hash import scenarios
from scripts.support import replay_records
from scripts.support.replay_records import Replay

SCENARIOS = list(scenarios())


@pytest.mark.parametrize(("name", "scenario", "rate_rps"), SCENARIOS, ids=[name for name, _, _ in SCENARIOS])
def test_every_choice_follows_from_its_record(name: str, scenario: Scenario, rate_rps: float) -> None:
    replayed = contradictions.replay(name, scenario, rate_rps)
    assert replayed.contradictions == []
    assert replayed.compared > 0.9 * replayed.decisions
    assert replayed.decisions >= (200 if rate_rps < 1.0 else 3_000)


def test_the_check_knows_the_words_of_the_record() -> None:
    assert {gate.value for gate in GATES} == replay_records.GATES
    assert {cause.value for cause in NO_CHOICE} == replay_records.NO_CHOICE
    words = {*replay_records.GATES, *replay_records.TERMS, replay_records.LEAST_TOTAL}
    assert {reason.value for reason in Reason} == words


FULL = impossible(Place.edge(), State.EDGE_BATCH, Reason.BATCH_FULL)
LATE = impossible(Place.edge(), State.EDGE_LATER, Reason.LATE, finish_s=101.5)
CONSISTENT = {
    "the edge": a_decision(),
    "the function": a_decision(offers=(FULL, a_function_offer()), chosen=1),
    "a refusal": a_decision(offers=(FULL, LATE), chosen=-1),
    "nothing offered": a_decision(offers=(), chosen=-1),
    "a move": a_move(Cause.HEDGE, FUNCTION, State.FUNCTION),
    "a tie": a_decision(offers=(an_offer(), an_offer(place=Place.edge("other")))),
}


def values_of(name: str) -> dict[str, Any]:
    """The JSON of a request about which this was decided."""
    values: dict[str, Any] = json.loads(to_json(an_explanation(decisions=(CONSISTENT[name],), sendings=())))
    return values


@pytest.mark.parametrize("name", CONSISTENT)
def test_a_consistent_record_is_not_complained_of(name: str) -> None:
    replayed = Replay()
    replayed.add([values_of(name)])
    assert (replayed.decisions, replayed.compared) == (1, name != "a move")
    assert replayed.contradictions == []


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("the edge", lambda d: d["offers"][1].update(total=1e-9), "add up to"),
        ("the edge", lambda d: d["offers"][0].update(money=1e-9), "add up to"),
        ("the edge", lambda d: d.update(lateness_price=2e-5), "add up to"),
        ("the edge", lambda d: d["offers"][0].update(total=None), "add up to"),
        ("the edge", lambda d: d["offers"][0].update(reason="late"), "possible in spite of late"),
        ("the edge", lambda d: d.update(reason="lateness"), "lateness is said to have decided, but it was money"),
        ("the edge", lambda d: d.update(reason="least-total"), "least-total is said to have decided"),
        ("the edge", lambda d: d.update(chosen_offer=1), "but offer 0 has the least total"),
        ("the edge", lambda d: d["chosen"].update(tier="1gb"), "but offer 0 has the least total"),
        ("the edge", lambda d: d.update(nearest_miss={}), "a nearest miss, though it was not refused"),
        ("the edge", lambda d: d.update(cause="hedge"), "compared is True with the cause hedge"),
        ("the function", lambda d: d["offers"][0].update(total=0.0), "impossible by batch-full, total 0.0"),
        ("the function", lambda d: d["offers"][0].update(reason="money"), "impossible by money"),
        ("the function", lambda d: d["offers"][1].update(possible=False), "no offer is possible, but"),
        ("the function", lambda d: d.update(reason="money"), "money is said to have decided, but it was batch-full"),
        ("a refusal", lambda d: d.update(nearest_miss=None), "the nearest miss is said to be None"),
        ("a refusal", lambda d: d["nearest_miss"].update(reason="batch-full"), "would have answered first"),
        ("a refusal", lambda d: d.update(reason="class"), "refused for class, but the nearest miss"),
        ("a refusal", lambda d: d["offers"][0].update(possible=True, reason=None, total=1e-5), "has the least total"),
        ("nothing offered", lambda d: d.update(reason="late"), "nothing was offered, but late decided"),
        ("a move", lambda d: d.update(cause="arrival"), "compared is False with the cause arrival"),
        ("a move", lambda d: d.update(reason="money"), "nothing was compared, but money decided"),
        ("a tie", lambda d: d.update(chosen_offer=1), "but offer 0 has the least total"),
    ],
)
def test_a_record_that_contradicts_itself_is_found(name: str, change: Change, sentence: str) -> None:
    values = copy.deepcopy(values_of(name))
    change(values["decisions"][0])
    assert sentence in "; ".join(replay_records.contradictions(values))


def test_a_batch_that_left_for_another_place_or_reason_is_found() -> None:
    sent = Sending(a_batch(7, (1, 2), place=FUNCTION, reasons=(Reason.LATE, Reason.MONEY)))
    values = json.loads(to_json(an_explanation(sendings=(sent,))))
    assert list(replay_records.contradictions(values)) == [
        "request 1: sent to function:1gb, but put into the queue edge-batch of edge:main",
        "request 1: sent for late, but decided by money",
    ]


def test_the_command_prints_the_counts_and_fails_if_there_is_a_contradiction(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(contradictions, "scenarios", lambda: iter(SCENARIOS[11:12]))
    assert contradictions.main([]) == 0
    heading, scenario, total = capsys.readouterr().out.splitlines()
    assert heading.split() == ["scenario", "decisions", "compared", "contradictions"]
    assert scenario.split()[-3:] == total.split()[-3:]
    assert total.split()[-1] == "0"
    monkeypatch.setattr(contradictions, "replay", lambda *_: Replay(3, 2, ["request 1: wrong"]))
    assert contradictions.main([]) == 1
    assert capsys.readouterr().out.splitlines()[2:] == [
        "  request 1: wrong",
        f"{'all':28} {3:9} {2:9} {1:14}",
    ]
