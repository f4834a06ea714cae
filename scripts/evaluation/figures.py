"""Required figures beside measured ones: `--suite figures`."""

from collections.abc import Callable, Iterator, Sequence

from scripts.changepoint_figures import TRACE_RPS
from scripts.evaluation import cost_figures, edges
from scripts.evaluation.case import Figure, Row
from scripts.evaluation.options import OURS
from scripts.evaluation.tables import (
    GOOD,
    ORACLE,
    RULE,
    Table,
    group,
    number,
    outside,
    percent,
    sparse_pairs,
    sparse_times,
    total,
)


def figures_of(rows: Sequence[Row]) -> Iterator[Figure]:
    """Yields all figures that the rows contain."""
    return (figure for judge in JUDGES for figure in judge(rows))


def figures_table(rows: Sequence[Row]) -> Table:
    """Returns the table of all figures that the rows contain."""
    lines = tuple(figure.line() for figure in figures_of(rows))
    note = "Costs are fractions of serving everything by function at the cheapest batch."
    return Table("Figures, asked and measured", note, ("asked", "measured", ""), lines)


def _ours(rows: Sequence[Row], suite: str) -> list[Row]:
    return [row for row in rows if row["suite"] == suite and row["policy"] == OURS]


def on_the_link(rows: Sequence[Row]) -> Iterator[Figure]:
    """Yields the figures of the varying uplink: lateness, refusals and edge batches, all seeds together."""
    of_suite = [row for row in rows if row["suite"] == "lte" and row["on_trace"]]
    pooled = [_pooled(runs) for runs in group(of_suite, "case", "policy").values()]
    ample = {_arrivals_and_size(row): row for row in _ours(pooled, "lte") if ", ample," in str(row["case"])}
    oracles = {row["case"]: row for row in pooled if row["policy"] == ORACLE}
    for row in _ours(pooled, "lte"):
        if ", ample," not in str(row["case"]):
            yield _link_figure(row, ample.get(_arrivals_and_size(row)), oracles.get(row["case"]))


def _pooled(runs: Sequence[Row]) -> Row:
    """Returns the sums of the counts of runs, and the mean of their edge batches."""
    counts = ("requests", "answered", "late", "refused", "late_by_link_unexcused")
    return {
        **runs[0],
        **{column: total(runs, column) for column in counts},
        "mean_edge_batch": total(runs, "mean_edge_batch") / len(runs),
    }


def _arrivals_and_size(row: Row) -> tuple[str, str]:
    words = str(row["case"]).split(", ")
    return words[0], words[-1]


def _link_figure(row: Row, ample: Row | None, oracle: Row | None) -> Figure:
    asked = (
        f"{row['case']}: 99 % of answered within SLO, refused at most {ORACLE} + 2 points, edge batch at least "
        "0.9 x ample, none late by the link without excuse"
    )
    within = (number(row, "answered") - number(row, "late")) / max(1.0, number(row, "answered"))
    refused, unexcused = number(row, "refused") / number(row, "requests"), number(row, "late_by_link_unexcused")
    measured = f"{percent(within, 1)}; {percent(refused, 1)} refused; batch {number(row, 'mean_edge_batch'):.1f}"
    if ample is None or oracle is None:
        return Figure(asked, f"{measured}; {unexcused:.0f} late", None)
    refused_oracle = number(oracle, "refused") / number(oracle, "requests")
    batch = number(ample, "mean_edge_batch")
    ok = (
        within >= GOOD
        and refused <= refused_oracle + 0.02
        and number(row, "mean_edge_batch") >= 0.9 * batch
        and unexcused == 0
    )
    return Figure(
        asked, f"{measured} (oracle {percent(refused_oracle, 1)}, ample {batch:.1f}); {unexcused:.0f} late", ok
    )


def around_changes(rows: Sequence[Row]) -> Iterator[Figure]:
    """Yields the fractions of requests outside the SLO shortly after a change and later."""
    of_suite = [row for row in rows if row["suite"] == "steps"]
    for (name,), runs in group(of_suite, "case").items():
        ours, oracle = ([row for row in runs if row["policy"] == policy] for policy in (OURS, ORACLE))
        if not ours:
            continue
        hit = outside(ours, oracle, "hit") / max(1.0, total(ours, "hit_requests"))
        settled = outside(ours, oracle, "settled") / max(1.0, total(ours, "settled_requests"))
        lost = total(ours, "lost")
        yield Figure(
            f"{name}: at most 2 % outside in the first 10 s, 1 % from 5 s on, none lost",
            f"{percent(hit, 1)}, {percent(settled, 1)}, {lost:.0f} lost"
            + ("" if oracle else f" ({ORACLE} did not run)"),
            hit <= 0.02 and settled <= 0.01 and lost == 0,
        )


def under_caps(rows: Sequence[Row]) -> Iterator[Figure]:
    """Yields by how much the spend cap was exceeded."""
    ours = _ours(rows, "caps")
    if ours:
        worst = max(number(row, "over_cap_batches") for row in ours)
        yield Figure("spend cap exceeded by at most one batch", f"{worst:.2f} batches", worst <= 1)


def sparse_functions(rows: Sequence[Row]) -> Iterator[Figure]:
    """Yields lateness and money of sparse functions against the rule of thumb, and what they take to simulate."""
    asked = f"99 % within SLO where {RULE} has them, at most 1.01 x its money"
    pairs = sparse_pairs(rows)
    for ours, rule in pairs:
        within, whole = number(ours, "within_slo"), number(rule, "within_slo")
        part = number(ours, "cost_cny") / max(number(rule, "cost_cny"), 1e-12)
        yield Figure(
            f"sparse, {ours['case']}: {asked}",
            f"{percent(within, 1)} ({percent(whole, 1)}), {part:.3f} x",
            (within >= GOOD or whole < GOOD) and part <= 1.01,
        )
    of_all = zip(pairs, sparse_times(pairs), strict=True)
    times = [time for (ours, _), time in of_all if str(ours["case"]).startswith("0.002/s")]
    if times:
        asked = "300 requests at 0.002/s take at most 3 x the processor time of 300 at 2/s"
        yield Figure(asked, f"{max(times):.1f} x", max(times) <= 3.0)


def tenants_share(rows: Sequence[Row]) -> Iterator[Figure]:
    """Yields how far the service of tenants is from weighted fairness."""
    of_suite = [row for row in rows if row["suite"] == "tenants"]
    for (name,), runs in group(of_suite, "case").items():
        worst = max(number(row, "worst_difference") for row in runs)
        yield Figure(f"tenants, {name}: within 5 % of fair", f"{100 * worst:.1f} %", worst <= 0.05)


def detectors(rows: Sequence[Row]) -> Iterator[Figure]:
    """Yields detection delays and false alarms."""
    asked = (f"rate {TRACE_RPS:g} rps x 1.5", "bandwidth / 2", "service time x 1.5")
    for row in (row for row in rows if row["suite"] == "changepoints"):
        name = str(row["case"])
        if name.startswith(asked):
            delay, found = number(row, "delay_median"), number(row, "found")
            measured = f"{delay:g}, {percent(found, 1)}"
            yield Figure(f"{name}: median delay at most 12, 98 % found", measured, delay <= 12 and found >= 0.98)
        elif name.startswith(f"Poisson {TRACE_RPS:g}"):
            alarms = number(row, "alarms_per_hour")
            yield Figure(f"{name}: at most one false alarm an hour", f"{alarms:g}", alarms <= 1)
        elif row["on_trace"]:
            yield Figure(f"{name}: at most one alarm", f"{number(row, 'alarms'):g}", number(row, "alarms") <= 1)


def ablations(rows: Sequence[Row]) -> Iterator[Figure]:
    """Yields comparisons of re-planning on changes with a timer, with no re-planning, and with known change times."""
    of_suite = [row for row in rows if row["suite"] == "ablation"]
    variants = {str(name): runs for (name,), runs in group(of_suite, "variant").items()}
    changepoints, timer = variants.get("changepoints"), variants.get("5 s timer")
    if not changepoints or not timer:
        return
    ratio = total(timer, "plans") / total(changepoints, "plans")
    yield Figure(
        "against the 5 s timer: at least 10 times fewer plans at no worse cost and attainment",
        f"{ratio:.1f} times fewer; {_compared(changepoints, timer)}",
        ratio >= 10 and _cost(changepoints) <= _cost(timer) and _within(changepoints) >= _within(timer),
    )
    stepped, never = (
        [row for row in runs if not str(row["case"]).startswith("steady")]
        for runs in (changepoints, variants.get("never re-planned", []))
    )
    if never:
        better = _cost(stepped) < _cost(never) or _within(stepped) > _within(never)
        yield Figure(
            "against never re-planning, on steps: better cost or attainment", _compared(stepped, never), better
        )
    told = variants.get("told")
    asked = "within 1 % of true change times known"
    if told is None:
        yield Figure(asked, "", None)
        return
    near = _cost(changepoints) <= 1.01 * _cost(told) and _within(changepoints) >= _within(told) - 0.01
    yield Figure(asked, _compared(changepoints, told), near)


def _cost(rows: Sequence[Row]) -> float:
    return total(rows, "cost_cny") / total(rows, "all_function_cny")


def _within(rows: Sequence[Row]) -> float:
    return total(rows, "within_slo") / len(rows)


def _compared(rows: Sequence[Row], others: Sequence[Row]) -> str:
    cost = f"cost {_cost(rows):.4f} against {_cost(others):.4f}"
    return f"{cost}, within SLO {_within(rows):.4f} against {_within(others):.4f}"


def engine_cost(rows: Sequence[Row]) -> Iterator[Figure]:
    """Yields the processor times of the engine and the detectors."""
    for row in (row for row in rows if row["suite"] == "engine"):
        if "engine_us_median" in row:
            cost_us = number(row, "engine_us_median")
            yield Figure(f"{row['case']}: median at most 30 us a request", f"{cost_us:.1f} us", cost_us <= 30)
        else:
            cost_us = number(row, "update_us_median")
            yield Figure(f"{row['case']}: at most 150 us at 200 run lengths", f"{cost_us:.0f} us", cost_us <= 150)


JUDGES: tuple[Callable[[Sequence[Row]], Iterator[Figure]], ...] = (
    *cost_figures.JUDGES,
    edges.edge_figures,
    on_the_link,
    around_changes,
    under_caps,
    sparse_functions,
    tenants_share,
    detectors,
    ablations,
    engine_cost,
)
