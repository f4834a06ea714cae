"""The suite of what learning costs: which quantities are told in its cases, and its table."""

from dataclasses import replace

from scheduler.simulator.scenario import TOLD
from scripts.evaluation.learning import learning_table
from scripts.evaluation.options import Options
from scripts.evaluation.runs import run_case
from scripts.evaluation.suites import SUITES
from scripts.evaluation.traffic import Phases

TINY = Options(requests=200, repeats=(0, 1))


def test_the_suite_of_learning_tells_one_quantity_at_a_time_between_nothing_and_all() -> None:
    by_case: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for case in SUITES["learning"](TINY):
        by_case.setdefault(case.name, []).append((case.scenario.policy, case.scenario.told))
        assert case.variant == "".join(case.scenario.told)
    assert len(by_case) == 8
    told = [("edgeburst", ()), *(("edgeburst", (what,)) for what in TOLD), ("oracle-laws", ())]
    assert all(runs == told * len(TINY.repeats) for runs in by_case.values())


def test_the_table_of_learning_has_a_line_a_case_and_a_column_a_quantity() -> None:
    short = [replace(case, traffic=Phases(((2.0, 60.0),), 4.0)) for case in list(SUITES["learning"](TINY))[:7]]
    [table] = learning_table([run_case(case).row for case in short])
    assert table.header == ("case", "learned", *(f"{what} told" for what in TOLD), "all told")
    [line] = table.lines
    assert line[0] == "bursty, rate x 4, SLO 1 s"
    assert all(" @ " in cell for cell in line[1:])
