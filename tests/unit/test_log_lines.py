"""A line of the log has time, level, event and fields, as text or as JSON; the journal adds the time of text itself."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator

import pytest

from scheduler.daemon import logs

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("edgeburst")
    handlers, levels = root.handlers[:], (root.level, own.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    own.setLevel(levels[1])


def written(capsys: pytest.CaptureFixture[str], form: str, environ: dict[str, str] | None = None) -> str:
    logs.set_up("info", form, environ)
    logs.log(logging.DEBUG, "hidden")
    logs.log(logging.WARNING, "cap_reached", window="hour", cap=0.123456789, message="less is left", left=None)
    return capsys.readouterr().err


def test_text_begins_with_the_time_unless_the_journal_adds_it(capsys: pytest.CaptureFixture[str]) -> None:
    rest = 'warning cap_reached window=hour cap=0.123457 message="less is left" left=None\n'
    assert re.fullmatch(f"{TIME} {re.escape(rest)}", written(capsys, "text"))
    assert written(capsys, "text", {"JOURNAL_STREAM": "8:12345"}) == rest


def test_json_is_one_object_a_line_with_the_values_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    [line] = written(capsys, "json", {"JOURNAL_STREAM": "8:12345"}).splitlines()
    found = json.loads(line)
    assert re.fullmatch(TIME, found.pop("time"))
    assert found == {
        "level": "warning",
        "event": "cap_reached",
        "window": "hour",
        "cap": 0.123456789,
        "message": "less is left",
        "left": None,
    }


def test_json_has_what_it_cannot_hold_as_text_and_a_traceback_in_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "json")
    try:
        raise ValueError("a bug\nof two lines")
    except ValueError:
        logging.getLogger("edgeburst").exception("test_event", extra=logs.fields(at=float("inf"), where=(1, 2)))
    [line] = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert (found["event"], found["at"], found["where"]) == ("test_event", "inf", "(1, 2)")
    assert "ValueError: a bug" in found["traceback"]
