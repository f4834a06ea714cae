"""The suite `learning`: the engine that is told one learned quantity at a time, between itself and `oracle-laws`.

What the engine pays more than the oracle is the price of learning. The variant that is told a quantity and closes the
gap says which estimate costs it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from scheduler.simulator.scenario import TOLD
from scripts.evaluation import varied
from scripts.evaluation.case import Case, Row
from scripts.evaluation.costs import mean_of
from scripts.evaluation.options import NOISY, OURS, Options, with_slo
from scripts.evaluation.tables import ORACLE, Table, group, marked
from scripts.evaluation.traffic import Bursty

SUITE = "learning"
LOADS = ((1.0, 4.0), (1.0, 3.0), (0.6, 4.0), (1.0, 2.0))
"""(SLO in s, factor on the rate) of the bursty traffic."""
VARIED = ("bursts", "LTE, drawn", "cold starts", "no edge, groups")
"""How the names of cases of the suite `varied` begin that are run here too."""


def cases(options: Options) -> Iterator[Case]:
    """Yields each case as the engine learns, with one quantity told, and with all of them told."""
    for slo_s, scale in LOADS:
        name, traffic = f"bursty, rate x {scale:g}, SLO {slo_s:g} s", Bursty(scale, options.requests)
        for seed in options.repeats:
            yield from _told(Case(SUITE, name, traffic, replace(with_slo(NOISY, slo_s), seed=seed)))
    for case in varied.cases(replace(options, policies=(OURS,), traces=None)):
        if case.name.startswith(VARIED):
            yield from _told(replace(case, suite=SUITE))


def _told(case: Case) -> Iterator[Case]:
    ours = replace(case.scenario, policy=OURS)
    yield replace(case, scenario=ours)
    for what in TOLD:
        yield replace(case, variant=what, scenario=replace(ours, told=(what,)))
    yield replace(case, scenario=replace(case.scenario, policy=ORACLE))


def learning_table(rows: Sequence[Row]) -> Iterator[Table]:
    """Yields the cost of learning everything, everything but one quantity, and nothing, a line a case."""
    names = {(OURS, ""): "learned", **{(OURS, what): f"{what} told" for what in TOLD}, (ORACLE, ""): "all told"}
    lines = []
    for (name,), of_case in group(rows, "case").items():
        means = {key: mean_of(runs) for key, runs in group(of_case, "policy", "variant").items()}
        cells = []
        for key in names:
            mean = means.get(key)
            equal = "" if mean is None or mean.equal is None else f": {mean.equal:.4f}"
            cells.append("" if mean is None else f"{mean.cost:.4f} @ {mean.within:.4f}{equal}")
        lines.append((marked(name, of_case), *cells))
    note = (
        "Cost as a fraction of serving everything by function, mean of the seeds, @ the fraction within the SLO: the "
        "cost at equal lateness where there is a w*. A gap is due to the quantities that close it when they are told."
    )
    yield Table("What learning costs", note, ("case", *names.values()), tuple(lines))
