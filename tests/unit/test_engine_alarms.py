"""A reached cap and an open circuit have one log line each when they begin, and one when they end."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from scheduler.daemon.engine_alarms import EngineAlarms
from scheduler.domain.statistics import CapStatistics, Changes, EdgeStatistics, EngineStatistics, ModelUp

WELL = EngineStatistics(
    queued_requests=0,
    unanswered_bytes=0,
    requests_in_flight=0,
    edge_batches_in_flight=0,
    function_batches_in_flight=0,
    warming_calls=0,
    rate_rps=0.0,
    uplink_bytes_per_s=None,
    uplink_rtt_s=0.02,
    edge_up=True,
    function_up=True,
    spent=0.0,
    leased=None,
    expected_drain_s=0.0,
    draining=False,
    changes=Changes(),
    plan=None,
    edges=(EdgeStatistics("main", True, 0, 1), EdgeStatistics("far", True, 0, 1)),
    models_up=(ModelUp("digits", True, True, (("main", True), ("far", True))),),
    caps=(CapStatistics("hour", 2.0, 1.0),),
    closed_by="",
)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.INFO, "edgeburst")

    def lines() -> list[tuple[str, str, dict[str, object]]]:
        found = [(each.levelname, each.getMessage(), vars(each)["fields"]) for each in caplog.records]
        caplog.clear()
        return found

    return lines


def test_a_cap_is_told_once_with_what_is_left_and_once_when_it_reopens(told: Any) -> None:
    alarms = EngineAlarms()
    reached = replace(WELL, closed_by="hour", caps=(CapStatistics("hour", 2.0, 1.99),), opens_in_s=300.0)
    for seen in (WELL, reached, reached):
        assert alarms.look(seen) is seen
    [(level, event, fields)] = told()
    assert (level, event) == ("WARNING", "cap_reached")
    assert (fields["window"], fields["cap"], fields["spent"], fields["opens_in_s"]) == ("hour", 2.0, 1.99, 300.0)
    assert "`per_hour` in [spend]" in str(fields["message"])
    alarms.look(WELL)
    assert [(event, fields) for _, event, fields in told()] == [("cap_reopened", {"window": "hour"})]
    # A state folder that leases nothing has lines of its own.
    alarms.look(replace(WELL, closed_by="state"))
    assert told() == []


def test_a_circuit_is_told_of_the_place_or_of_the_model_alone(told: Any) -> None:
    alarms = EngineAlarms()
    model = ModelUp("digits", True, False, (("main", False), ("far", False)))
    far_down = (WELL.edges[0], replace(WELL.edges[1], up=False))
    alarms.look(replace(WELL, edges=far_down, models_up=(model,)))
    opened = [(level, event, fields["place"], fields.get("model", "")) for level, event, fields in told()]
    assert opened == [
        ("WARNING", "circuit_open", "edge:far", ""),
        ("WARNING", "circuit_open", "edge:main", "digits"),
        ("WARNING", "circuit_open", "functions", "digits"),
    ]
    alarms.look(replace(WELL, function_up=False))
    events = [(event, fields["place"], fields.get("model", "")) for _, event, fields in told()]
    assert ("circuit_open", "functions", "") in events
    assert ("circuit_closed", "edge:far", "") in events
    alarms.look(WELL)
    assert [event for _, event, _ in told()] == ["circuit_closed"]


def test_without_functions_nothing_is_said_of_them(told: Any) -> None:
    EngineAlarms().look(replace(WELL, function_up=False, models_up=(ModelUp("digits", True, None, (("main", True),)),)))
    assert told() == []


def test_openings_are_counted_for_each_place_and_model_and_shown_before_there_are_any() -> None:
    alarms = EngineAlarms()
    away = replace(WELL, function_up=False)
    for seen in (WELL, away, away, WELL, away):
        alarms.look(seen)
    assert alarms.opened[("functions", "")] == 2
    others = {circuit for circuit in alarms.opened if circuit != ("functions", "")}
    assert others == {(place, model) for place in ("edge:main", "edge:far") for model in ("", "digits")} | {
        ("functions", "digits")
    }
    assert not any(alarms.opened[circuit] for circuit in others)
