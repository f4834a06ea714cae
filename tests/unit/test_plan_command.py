"""`edgeburst plan`: the plan of a configuration at a rate, as a table and as JSON."""

import json
from pathlib import Path

import pytest

from scheduler import cli

EXAMPLE = Path(__file__).parents[2] / "scripts" / "edgeburst.example.toml"


def plan(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str]:
    status = cli.main(["plan", "--config", str(EXAMPLE), *flags])
    return status, capsys.readouterr().out


def test_json_is_the_plan_itself(capsys: pytest.CaptureFixture[str]) -> None:
    status, text = plan(capsys, "--rps", "40", "--json")
    found = json.loads(text)
    assert status == 0
    assert found["cause"] == "asked"
    group = found["groups"][0]
    assert group["edge_batch_cap"] > 1
    assert group["buffers"][0]["tier"]
    assert group["feasible"]


def test_more_traffic_costs_more_and_less_uplink_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    def group(*flags: str) -> dict[str, float]:
        return json.loads(plan(capsys, *flags, "--json")[1])["groups"][0]  # type: ignore[no-any-return]

    calm, busy = group("--rps", "40"), group("--rps", "150")
    assert calm["expected_cost_per_s"] < 1e-6 < busy["expected_cost_per_s"]
    status, text = plan(capsys, "--rps", "150", "--bandwidth-mbytes-per-s", "0.1", "--request-bytes", "200000")
    assert status == 1
    assert "not feasible" in text


def test_the_table_names_what_a_person_asks_for(capsys: pytest.CaptureFixture[str]) -> None:
    status, text = plan(capsys, "--rps", "40")
    assert status == 0
    for word in ("edge batch cap", "function tier", "function batch", "longest wait", "within SLO", "cost"):
        assert word in text


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--rps", "-1"], "--rps and --request-bytes must be at least 0"),
        (["--rps", "1", "--bandwidth-mbytes-per-s", "-1"], "--bandwidth-mbytes-per-s must be at least 0"),
    ],
)
def test_wrong_flags_are_refused(flags: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--config", str(EXAMPLE), *flags]) == 2
    assert words in capsys.readouterr().err


def test_a_missing_configuration_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--config", "absent.toml", "--rps", "1"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
