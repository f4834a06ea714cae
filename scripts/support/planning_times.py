"""Processor time of planning in a checkout, for `scripts.planner_figures --against`, which runs it there.

python scripts/support/planning_times.py     # in the checkout, with it as PYTHONPATH

Prints a JSON object: by what is planned, seconds (the least of a few) and the answer. It uses what the script of that
checkout has, and knows its earlier names.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts import planner_figures as figures


def main() -> None:
    """Prints the times of the checkout, in which it runs."""
    if Path(figures.__file__).resolve().parents[1] != Path.cwd():
        sys.exit("it has no scripts/planner_figures.py")
    answers: list[float] = []
    names: dict[str, Any] = vars(figures)
    plan, grid = names["plan_functions"], names["buffer_grid"]

    def planned(question: Any) -> Any:
        found = plan(question)
        answers.append(float(found.total_cost_per_request))
        return found

    def gridded(*args: Any, **named: Any) -> Any:
        found = grid(*args, **named)
        answers.append(float(found.mean_sizes.sum()))
        return found

    names.update(plan_functions=planned, buffer_grid=gridded)
    profile = names["parse_profile"](names.get("INVENTED") or names["MADE_UP"], of="the invented profile")
    measured: dict[str, Callable[[], Any]] = {
        "12 applications, percentile": lambda: figures._timed(profile, 12, "percentile")[0],
        "12 applications, worst-case": lambda: figures._timed(profile, 12, "worst-case")[0],
        "one bursty application": lambda: figures._bursty_s(profile),
        "grid of 4 phases": figures._grid_s,
    }
    found = {}
    for name, measure in measured.items():
        answers.clear()
        seconds = float(measure())
        found[name] = [seconds, answers[-1]]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
