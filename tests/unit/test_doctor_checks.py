"""The doctor's checks are pure: facts in, rows out. Clocks, units and folders that no test host has."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from scheduler.doctor.facts import Calls, HostFacts, StateFacts, UnitFacts
from scheduler.doctor.host_checks import host_rows
from scheduler.doctor.host_facts import state_facts, unit_facts
from scheduler.doctor.model_checks import clock_rows, served_files, speed
from scheduler.doctor.rows import Level
from scheduler.doctor.wanted import Wanted, WantedModel

UNITS = Path(__file__).parents[2] / "scripts" / "systemd"
UNIT = UnitFacts(
    "/etc/x.service", 65536, ("/var/lib/edgeburst",), "/bin/sh", True, "/etc/edgeburst/edgeburst.toml", True
)
HOST = HostFacts("1", "3.12", 4096, "", StateFacts("/var/lib/edgeburst", "", 2**40), UNIT, "")
WANTED = Wanted("/etc/edgeburst/edgeburst.toml", {}, "sheet", date(2026, 1, 1))
MODEL = WantedModel("net", (), "sha256:a", "/m/net", {"model.toml": "1", "w": "2"}, {}, {}, {}, 1.0, ())


def found(host: HostFacts, *, today: date = date(2026, 6, 1), wanted: Wanted = WANTED) -> dict[str, str]:
    rows = host_rows(host, wanted, host="h", today=today)
    return {row.check: row.sentence for row in rows if row.level is Level.FINDING}


def test_a_healthy_host_has_no_finding() -> None:
    assert found(HOST) == {}


def test_a_state_folder_that_only_the_units_user_may_look_into_is_no_finding() -> None:
    closed = StateFacts("/var/lib/edgeburst", "Permission denied", None)
    assert found(replace(HOST, state=closed)) == {}
    assert set(found(replace(HOST, state=closed, unit=None))) == {"state"}


@pytest.mark.parametrize(
    ("host", "check", "words"),
    [
        (replace(HOST, unit=replace(UNIT, open_files=64)), "ulimits", "set it to 65536"),
        (replace(HOST, unit=None, open_files=64), "ulimits", "ulimit -n"),
        (replace(HOST, state=StateFacts("/srv/state", "", 2**40)), "state", "use /var/lib/edgeburst as `state`"),
        (replace(HOST, state=StateFacts("/var/lib/edgeburst", "", 1)), "state", "make room"),
        (replace(HOST, unit=replace(UNIT, program_is_there=False)), "unit", "scripts/install.sh client"),
        (replace(HOST, unit=replace(UNIT, config="/etc/other.toml")), "unit", "/etc/other.toml"),
        (replace(HOST, proxy="HTTPS_PROXY"), "proxy", "unset HTTPS_PROXY"),
    ],
)
def test_one_fault_of_the_host_is_one_finding(host: HostFacts, check: str, words: str) -> None:
    sentences = found(host)
    assert list(sentences) == [check]
    assert words in sentences[check]


def test_a_sheet_is_old_after_a_year() -> None:
    assert found(HOST, today=date(2027, 1, 1)) == {}
    assert list(found(HOST, today=date(2027, 1, 2))) == ["prices"]


def test_what_check_config_warns_of_is_a_finding_each() -> None:
    warned = replace(WANTED, warnings=("a is b; do c", "d is e; do f"))
    rows = [row for row in host_rows(HOST, warned, host="", today=date(2026, 1, 1)) if row.level is Level.FINDING]
    assert [row.sentence for row in rows] == ["a is b; do c", "d is e; do f"]


@pytest.mark.parametrize(
    ("ahead_s", "authority", "where"),
    [
        ({"functions": 3600.0, "edge host": 3600.0}, "functions", ["client host"]),
        ({"functions": 3600.0, "edge host": 0.1}, "functions", ["client host"]),
        ({"functions": 0.1, "edge host": -3600.0}, "functions", ["edge host"]),
        ({"edge host": 3600.0}, "", ["edge host"]),
        ({"edge a": 60.0, "edge b": 61.0}, "", ["client host"]),
        ({"edge a": 60.0, "edge b": -61.0}, "", ["edge a", "edge b"]),
        ({"functions": 1.0, "edge host": -1.0}, "functions", []),
    ],
)
def test_the_clock_that_is_wrong_is_named(ahead_s: dict[str, float], authority: str, where: list[str]) -> None:
    rows = [row for row in clock_rows(ahead_s, authority=authority) if row.level is Level.FINDING]
    assert [row.where for row in rows] == where
    assert all("timedatectl" in row.sentence for row in rows)


def test_a_profile_is_measured_anew_where_it_is_far_off() -> None:
    def level(took_s: float, predicted_s: float | None) -> Level:
        return speed("e", "net", Calls((took_s,) * 3), predicted_s=predicted_s, profile="p", measure="m").level

    assert level(0.1, 0.1) is level(0.12, 0.1) is level(0.1, None) is Level.OK
    assert level(0.2, 0.1) is level(0.05, 0.1) is Level.FINDING
    # Milliseconds say nothing.
    assert level(0.004, 0.001) is Level.OK
    assert speed("e", "net", Calls(), predicted_s=0.1, profile="p", measure="m").level is Level.SKIPPED


@pytest.mark.parametrize(
    ("identity", "files", "words"),
    [
        ("sha256:b", {"model.toml": "1", "w": "3"}, "other weights or files (w)"),
        ("sha256:b", {"model.toml": "0", "w": "2"}, "another card (model.toml)"),
        ("sha256:b", {"model.toml": "0", "w": "3"}, "another card and other files (model.toml, w)"),
        ("sha256:b", {}, "another card or other files"),
    ],
)
def test_what_differs_is_named(identity: str, files: dict[str, str], words: str) -> None:
    row = served_files("e", MODEL, identity, files, there="copy")
    assert row.level is Level.FINDING
    assert words in row.sentence
    assert "/m/net" in row.sentence


def test_where_nothing_is_expected_or_reported_nothing_is_compared() -> None:
    assert served_files("e", MODEL, "", {}, there="").level is Level.SKIPPED
    assert served_files("e", replace(MODEL, identity=""), "sha256:b", {}, there="").level is Level.SKIPPED
    assert served_files("e", MODEL, "sha256:a", {}, there="").level is Level.OK


def test_the_shipped_unit_and_its_drop_ins_are_read(tmp_path: Path) -> None:
    unit = tmp_path / "edgeburst.service"
    unit.write_text((UNITS / "edgeburst.service").read_text())
    facts = unit_facts(unit)
    assert facts is not None
    assert (facts.open_files, facts.state_folders, facts.confined) == (65536, ("/var/lib/edgeburst",), True)
    assert (facts.program, facts.config) == ("/opt/edgeburst/bin/edgeburst", "/etc/edgeburst/edgeburst.toml")
    (tmp_path / "edgeburst.service.d").mkdir()
    (tmp_path / "edgeburst.service.d" / "a.conf").write_text("[Service]\nLimitNOFILE=64\nReadWritePaths=/srv/state\n")
    changed = unit_facts(unit)
    assert changed is not None
    assert (changed.open_files, changed.state_folders) == (64, ("/var/lib/edgeburst", "/srv/state"))
    assert unit_facts(tmp_path / "none.service") is None


def test_a_folder_that_is_not_there_yet_is_judged_by_the_one_above(tmp_path: Path) -> None:
    assert state_facts(tmp_path / "a" / "b").problem == ""
    assert list(tmp_path.iterdir()) == []
    assert state_facts(Path("/sys/kernel/none")).problem
