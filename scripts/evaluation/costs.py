"""Costs of several seeds: their mean and spread, the share in time beside them, and the cost at equal lateness."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from scripts.evaluation.case import BOUND, Row
from scripts.evaluation.equal_lateness import ALLOWED, LATEST, at_equal_lateness, multiplier
from scripts.evaluation.tables import Table, by_arrivals, cost_fraction, group, marked, number

NOISY_SUITES = ("noise", "learning")
MARKS: Mapping[str, str] = {"static": "hindsight on the same requests", "log-oracle": "looks a second ahead"}
"""What a policy knows that no policy can know, by its name."""


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean of some runs that differ only in their seeds.

    Attributes:
        cost: fraction of serving everything by function.
        cost_spread: half the distance of the dearest run from the cheapest.
        within: fraction answered within the SLO.
        least_within: the same of the worst run.
        multiplier: w*; None if there is none.
        equal: cost at equal lateness; None without w*, or where too many are late.
        equal_spread: as of the cost.
        seeds: number of runs.
    """

    cost: float
    cost_spread: float
    within: float
    least_within: float
    multiplier: float | None
    equal: float | None
    equal_spread: float
    seeds: int

    def raw(self) -> str:
        """Returns cost and share within in words."""
        return f"{self.cost:.4f}{self._spread(self.cost_spread)} @ {self.within:.4f}"

    def compared(self) -> str:
        """Returns the cost at equal lateness in words; "-" without one."""
        return "-" if self.equal is None else f"{self.equal:.4f}{self._spread(self.equal_spread)}"

    def _spread(self, half: float) -> str:
        return f" ± {half:.4f}" if self.seeds > 1 else ""


def mean_of(rows: Sequence[Row]) -> Mean:
    """Returns the mean of runs of one case by one policy."""
    first = rows[0]
    noisy = first["suite"] in NOISY_SUITES or bool(first.get("noisy"))
    price = multiplier(number(first, "slo_s"), number(first, "scale"), noisy=noisy)
    costs, shares = [cost_fraction(row) for row in rows], [number(row, "within_slo") for row in rows]
    equal = None if price is None else at_equal_lateness(_mean(costs), _mean(shares), price)
    each = [cost + (price or 0.0) * (1.0 - within) for cost, within in zip(costs, shares, strict=True)]
    return Mean(_mean(costs), _half(costs), _mean(shares), min(shares), price, equal, _half(each), seeds=len(rows))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _half(values: Sequence[float]) -> float:
    return (max(values) - min(values)) / 2


def label(policy: object) -> str:
    """Returns the name of a policy, with what it knows that no policy can know."""
    mark = MARKS.get(str(policy))
    return f"{policy} ({mark})" if mark else str(policy)


def policy_of(row: Row) -> str:
    """Returns the policy of a run with its variant: `edgeburst, spend`."""
    return ", ".join(filter(None, (str(row["policy"]), str(row["variant"]))))


def means_by_load(rows: Sequence[Row]) -> Iterator[tuple[tuple[str, float, float], dict[str, Mean], Sequence[Row]]]:
    """Yields ((traffic, SLO, factor on the rate), means by policy, runs) for each load, policies in order of rows."""
    for (slo_s,), of_slo in group(rows, "slo_s").items():
        for source, of_source in by_arrivals(of_slo).items():
            for (scale,), runs in group(of_source, "scale").items():
                named = [{**row, "name": policy_of(row)} for row in runs]
                means = {str(name): mean_of(of_policy) for (name,), of_policy in group(named, "name").items()}
                yield (source, float(str(slo_s)), float(str(scale))), means, runs


def cost_tables(rows: Sequence[Row], suite: str) -> Iterator[Table]:
    """Yields cost over load for each policy and the bound: as paid, with the share within beside it, then compared."""
    loads = list(means_by_load(rows))
    policies = list(dict.fromkeys(name for _, means, _ in loads for name in means))
    comparable = [p for p in policies if p != BOUND and any(p in m and m[p].equal is not None for _, m, _ in loads)]
    paid, compared = [], []
    for (source, slo_s, scale), means, runs in loads:
        load = (f"{slo_s:g} s", marked(source, runs), f"{scale:g}", f"{_rate_rps(runs):.0f}")
        paid.append((*load, *(_paid_cell(policy, means) for policy in policies)))
        price = next(iter(means.values())).multiplier
        cells = [means[policy].compared() if policy in means else "" for policy in comparable]
        compared.append((*load, "-" if price is None else f"{price:.2f}", *cells))
    head = ("SLO", "arrivals", "scale", "requests/s")
    noisy = "edge noise 0.1, function noise 0.25" if suite == "noise" else "no noise"
    yield Table(f"Cost over load, {noisy}", PAID, (*head, *map(label, policies)), tuple(paid))
    yield Table(
        f"Cost over load at equal lateness, {noisy}", COMPARED, (*head, "w*", *map(label, comparable)), tuple(compared)
    )


def _rate_rps(runs: Sequence[Row]) -> float:
    return sum(number(row, "rate_rps") for row in runs) / len(runs)


ESSENCE = (2.4, 4.0)
"""Factors on the rate of this repository's traffic that the short table shows."""


def essence_table(rows: Sequence[Row]) -> Iterator[Table]:
    """Yields a short table, a line a policy: cost, share within and cost at equal lateness; none without its loads."""
    loads = [(load, m, runs) for load, m, runs in means_by_load(rows) if load[0] == "bursty" and load[2] in ESSENCE]
    if not loads:
        return
    header = [f"{slo_s:g} s, {_rate_rps(runs):.0f}/s" for (_, slo_s, _), _, runs in loads]
    policies = dict.fromkeys(name for _, means, _ in loads for name in means)
    lines = tuple((label(policy), *(_both(policy, means) for _, means, _ in loads)) for policy in policies)
    note = "Cost, mean of the seeds ± half their range, @ the fraction within the SLO: the cost at equal lateness."
    yield Table("Cost with noise, bursty traffic", note, ("policy", *header), lines)


def _both(policy: str, means: Mapping[str, Mean]) -> str:
    paid = _paid_cell(policy, means)
    equal = means[policy].equal if policy in means and policy != BOUND else None
    return paid if equal is None else f"{paid}: **{equal:.4f}**"


PAID = (
    "Cost as a fraction of serving everything by function at the cheapest batch, mean of the seeds ± half their range, "
    "@ the fraction of all requests answered within the SLO. The bound knows every arrival and ignores noise."
)
COMPARED = (
    f"Cost + w* x (late - {ALLOWED:g}): what is late counts, and what is not late although it might be, too. w*, of "
    "scripts/evaluation/equal_lateness.py, is the price of one late answer fewer, in units of a request's cheapest "
    f"price by function. '-': no w*, or more than {100 * LATEST:g} % late."
)


def _paid_cell(policy: str, means: Mapping[str, Mean]) -> str:
    mean = means.get(policy)
    if mean is None:
        return ""
    return f"{mean.cost:.4f}" if policy == BOUND else mean.raw()
