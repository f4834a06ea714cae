"""The figures of two runs of the evaluation stand side by side; sparse functions and tenants have figures too."""

from pathlib import Path

import pytest

from scripts.evaluation.beside import beside_table, read_rows
from scripts.evaluation.case import Row
from scripts.evaluation.command import main, options_of, parse, tasks_of
from scripts.evaluation.figures import figures_of
from scripts.evaluation.options import Options
from scripts.evaluation.runs import run_case
from scripts.evaluation.tables import sparse_table, write_csv


def caps(over: float) -> Row:
    return {"suite": "caps", "case": "c", "policy": "edgeburst", "on_trace": False, "over_cap_batches": over}


def sparse(rate_rps: float, policy: str = "edgeburst", **figures: object) -> Row:
    case = f"{rate_rps:g}/s, SLO 8 s, start 3 s, gone after 240 s"
    usual = {"within_slo": 1.0, "cost_cny": 1.0, "cpu_us_per_request": 100.0, "on_trace": False}
    return {"suite": "sparse", "case": case, "policy": policy, "rate_rps": rate_rps, **usual, **figures}


def test_what_was_written_is_read_again_and_stands_beside_what_is_measured(tmp_path: Path) -> None:
    write_csv([caps(0.5)], tmp_path / "evaluation.csv")
    table = beside_table(read_rows(tmp_path), [caps(1.5)], name="old")
    assert table.header == ("asked", "old", "now")
    assert table.lines == (("spend cap exceeded by at most one batch", "0.50 batches", "1.50 batches **missed**"),)
    assert beside_table(read_rows(tmp_path), [], name="old").lines[0][2] == "not measured"


@pytest.mark.parametrize("content", [None, "", "a,b\n1,2\n"])
def test_a_folder_without_an_evaluation_is_named(
    tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "evaluation.csv").write_text(content)
    assert main(["--suite", "figures", "--beside", str(tmp_path), "--out", str(tmp_path / "new")]) == 2
    told = capsys.readouterr().err
    assert str(tmp_path / "evaluation.csv") in told
    assert "name the --out folder of an earlier run" in told
    assert not (tmp_path / "new").exists()


def test_only_figures_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--suite", "load", "--beside", "old"])
    assert "--suite figures" in capsys.readouterr().err


def test_fewer_requests_and_seeds_can_be_asked_for() -> None:
    options = options_of(parse(["--requests", "500", "--seeds", "2"]))
    assert (options.requests, options.seeds) == (500, (0, 1))
    assert options_of(parse([])).seeds == Options().seeds


def test_figures_run_no_policy_that_no_figure_is_about() -> None:
    tasks = tasks_of(("figures",), Options(seeds=(0,)), quick=True)
    cases = [task.args[0] for task in tasks if task.func is run_case]  # type: ignore[attr-defined]
    assert {case.scenario.policy for case in cases if case.suite == "steps"} == {"edgeburst", "oracle-laws"}
    alone = tasks_of(("steps",), Options(seeds=(0,)), quick=True)
    assert len({task.args[0].scenario.policy for task in alone}) > 2  # type: ignore[attr-defined]


def verdicts(rows: list[Row]) -> list[bool | None]:
    return [figure.ok for figure in figures_of(rows)]


def test_sparse_functions_are_judged_against_the_rule_of_thumb_and_the_dense_case() -> None:
    rule, dense = sparse(0.002, "function-only"), [sparse(2.0, cpu_us_per_request=50.0), sparse(2.0, "function-only")]
    assert verdicts([sparse(0.002), rule, *dense]) == [True, True, True]
    assert verdicts([sparse(0.002, within_slo=0.98), rule, *dense]) == [False, True, True]
    assert verdicts([sparse(0.002, cost_cny=1.02), rule, *dense]) == [False, True, True]
    assert verdicts([sparse(0.002, cpu_us_per_request=151.0), rule, *dense]) == [True, True, False]
    hopeless = sparse(0.002, "function-only", within_slo=0.5)
    assert verdicts([sparse(0.002, within_slo=0.6), hopeless, *dense]) == [True, True, True]


def test_the_table_compares_processor_time_whatever_the_order_of_the_cases() -> None:
    rows = [
        sparse(2.0, cpu_us_per_request=50.0),
        sparse(2.0, "function-only"),
        sparse(0.002),
        sparse(0.002, "function-only"),
    ]
    [table] = sparse_table([*rows[2:], *rows[:2]])
    assert [(line[0][:7], line[-1]) for line in table.lines] == [("0.002/s", "2.0"), ("2/s, SL", "1.0")]
    assert table.header[-1] == "processor time"


def test_tenants_are_judged_by_the_worst_seed() -> None:
    rows: list[Row] = [
        {"suite": "tenants", "case": "t", "policy": "edgeburst", "worst_difference": w} for w in (0.01, 0.06)
    ]
    assert verdicts([{**row, "on_trace": False} for row in rows]) == [False]
