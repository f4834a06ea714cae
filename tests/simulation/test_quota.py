"""The wall that a burst has met is not met by the next ones: 429s, requests in time, and what the plan knows."""

import pytest

from scripts.evaluation.quota import CONFIGURED, QUOTA, cases, run_case


@pytest.mark.slow
@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
def test_later_bursts_do_not_meet_the_wall_of_the_first(case: object) -> None:
    row = run_case(case, 0).row  # type: ignore[arg-type]
    refusals, within = row["refusals_by_burst"], row["within_by_burst"]
    print(case.name, refusals, [round(each, 4) for each in within], row["within_slo"], row["cost_cny"])  # type: ignore[attr-defined, union-attr]
    assert isinstance(refusals, list)
    assert refusals[0] >= 1
    assert QUOTA < CONFIGURED
    assert max(refusals[1:]) <= 2
