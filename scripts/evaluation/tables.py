"""Rows as a CSV file and as Markdown tables; one function for each suite."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.evaluation.case import Row

COLUMNS = (
    *("suite", "case", "policy", "variant", "on_trace", "seed", "slo_s", "scale", "rate_rps", "request_bytes"),
    *("requests", "answered", "refused", "late", "within_slo", "edge", "function", "edge_batches", "function_batches"),
    *("cost_cny", "bound_cny", "all_function_cny", "latency_p50_s", "latency_p95_s", "latency_p99_s", "plans"),
    *("replan_causes", "wall_s", "cpu_us_per_request", "lost", "mean_edge_batch", "mean_function_batch"),
    *("edge_late", "function_late", "refused_at_once", "change_at_s", "hit_requests", "hit_outside"),
    *("hit_refused_at_once", "settled_requests", "settled_outside", "settled_refused_at_once", "late_by_link"),
    *("late_by_link_unexcused", "over_cap_batches", "class_margin", "edge_busy", "edges"),
)
"""Columns of the CSV file; further entries of a policy follow. A figure that a run does not have stays empty."""

GOOD = 0.99
"""Fraction within the SLO below which the cost of a policy is not compared."""
ORACLE = "oracle-laws"
"""The reference: it knows the laws and the true rate, and no arrival."""
OURS, RULE = "edgeburst", "function-only"


@dataclass(frozen=True, slots=True)
class Table:
    """Table with a title and a note."""

    title: str
    note: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Returns the table in Markdown, its title above and its note below."""
        head = f"| {' | '.join(self.header)} |\n|{'---|' * len(self.header)}"
        body = "\n".join(f"| {' | '.join(line)} |" for line in self.lines)
        return f"### {self.title}\n\n{head}\n{body}\n\n{self.note}\n"


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Writes one line for each run."""
    extra = sorted({key for row in rows for key in row} - set(COLUMNS))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, (*COLUMNS, *extra), restval="")
        writer.writeheader()
        writer.writerows(rows)


def number(row: Row, column: str) -> float:
    """Returns a figure of a run; 0 if it has none."""
    value = row.get(column)
    return float(value) if isinstance(value, (int, float)) else 0.0


def cost_fraction(row: Row, column: str = "cost_cny") -> float:
    """Returns a cost as a fraction of serving everything by function at the cheapest batch."""
    whole_cny = number(row, "all_function_cny")
    return number(row, column) / whole_cny if whole_cny else 0.0


def group(rows: Iterable[Row], *columns: str) -> dict[tuple[object, ...], list[Row]]:
    """Returns rows by the values of columns, in the order of first occurrence."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[column] for column in columns), []).append(row)
    return groups


def arrivals_of(row: Row) -> str:
    """Returns the name of the traffic of a run: the beginning of the name of its case."""
    return str(row["case"]).partition(",")[0]


def by_arrivals(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Returns rows by the name of their traffic."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(arrivals_of(row), []).append(row)
    return groups


def total(rows: Iterable[Row], column: str) -> float:
    """Returns the sum of a figure over runs."""
    return sum(number(row, column) for row in rows)


def percent(part: float, whole: float) -> str:
    """Returns a fraction as a percentage."""
    return f"{100 * part / whole:.2f} %" if whole else "none"


def marked(name: object, rows: Sequence[Row]) -> str:
    """Returns a name, with a mark where the traffic or the link of its runs is real."""
    return f"{name} (real trace)" if rows[0]["on_trace"] else str(name)


def link_table(rows: Sequence[Row]) -> Iterator[Table]:
    """Yields the table of the varying uplink, all seeds together."""
    lines = []
    for (name,), of_case in group(rows, "case").items():
        for (policy,), runs in group(of_case, "policy").items():
            answered = total(runs, "answered")
            lines.append(
                (
                    marked(name, of_case),
                    str(policy),
                    percent(answered - total(runs, "late"), answered),
                    percent(total(runs, "refused"), total(runs, "requests")),
                    f"{total(runs, 'mean_edge_batch') / len(runs):.1f}",
                    f"{total(runs, 'late_by_link'):.0f}",
                    f"{total(runs, 'late_by_link_unexcused'):.0f}",
                    f"{total(runs, 'cost_cny') / total(runs, 'all_function_cny'):.3f}",
                )
            )
    header = (
        "case",
        "policy",
        "answered within SLO",
        "refused",
        "mean edge batch",
        "late by link",
        "unexcused",
        "cost",
    )
    note = (
        "SLO 1 s, rate x 3, noise, cold start 2 s after 240 s. Unexcused: answered by the edge, or arrived later than "
        "1 s after the link could carry a request within the SLO again. Cost as above."
    )
    yield Table("A varying uplink", note, header, tuple(lines))


def outside(rows: Sequence[Row], oracle: Sequence[Row], part: str) -> float:
    """Returns the requests outside the SLO, minus those immediate refusals that the oracle could not avoid either.

    Args:
        rows: runs of one policy, one for each seed.
        oracle: runs of the oracle with the same seeds; empty if it did not run.
        part: "hit" or "settled".
    """
    refused = min(total(rows, f"{part}_refused_at_once"), total(oracle, f"{part}_refused_at_once"))
    return total(rows, f"{part}_outside") - refused


def change_table(rows: Sequence[Row]) -> Iterator[Table]:
    """Yields the table of requests around each change, summed over the seeds."""
    lines = []
    for (name,), of_case in group(rows, "case").items():
        policies = group(of_case, "policy")
        oracle = policies.get((ORACLE,), [])
        for (policy,), runs in policies.items():
            lines.append(
                (
                    str(name),
                    str(policy),
                    percent(outside(runs, oracle, "hit"), total(runs, "hit_requests")),
                    percent(outside(runs, oracle, "settled"), total(runs, "settled_requests")),
                    f"{total(runs, 'lost'):.0f}",
                    f"{total(runs, 'plans') / len(runs):.1f}",
                    f"{total(runs, 'cost_cny') / total(runs, 'all_function_cny'):.3f}",
                )
            )
    header = ("change", "policy", "outside, first 10 s", "outside, from 5 s on", "lost", "plans a run", "cost")
    note = (
        "SLO 1 s, 24 KB, noise, warm functions, 4 MB/s, a minute without change before. Outside: late or refused, "
        f"minus the immediate refusals that {ORACLE} makes too. Cost as above, over the whole run."
    )
    yield Table("Around a change", note, header, tuple(lines))


def ablation_table(rows: Sequence[Row]) -> Iterator[Table]:
    """Yields the table of the ways to decide on a new plan, summed over the seeds."""
    lines = []
    for (name,), of_case in group(rows, "case").items():
        for (variant,), runs in group(of_case, "variant").items():
            within = total(runs, "within_slo") / len(runs)
            cost = total(runs, "cost_cny") / total(runs, "all_function_cny")
            plans = total(runs, "plans") / len(runs)
            lines.append((str(name), str(variant), f"{within:.4f}", f"{cost:.4f}", f"{plans:.1f}"))
    header = ("case", "plans are made", "within SLO", "cost", "plans a run")
    yield Table("Ablation: when a new plan is made", "SLO 1 s, noise. Cost as above.", header, tuple(lines))


def cap_table(rows: Sequence[Row]) -> Iterator[Table]:
    """Yields the table of the excess over a spend cap."""
    lines = [
        (
            *(str(row["case"]), str(row["policy"]), f"{number(row, 'over_cap_batches'):.2f}"),
            *(f"{number(row, 'within_slo'):.3f}", f"{number(row, 'cost_cny'):.5f}"),
        )
        for row in rows
    ]
    header = ("case", "policy", "over the cap, batches", "within SLO", "cost, CNY")
    yield Table(
        "Spend cap",
        "Highest cost in any hour minus the cap, in units of the most expensive batch.",
        header,
        tuple(lines),
    )


def sparse_pairs(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Returns for each case of the suite `sparse` our run and that of the rule of thumb; the dense case last."""
    of_suite = [row for row in rows if row["suite"] == "sparse"]
    groups = [group(of_case, "policy") for of_case in group(of_suite, "case").values()]
    pairs = [(ours[0], rule[0]) for of in groups if (ours := of.get((OURS,))) and (rule := of.get((RULE,)))]
    return sorted(pairs, key=lambda pair: number(pair[0], "rate_rps") > 1.0)


def sparse_times(pairs: Sequence[tuple[Row, Row]]) -> list[float]:
    """Returns the processor time a request of our runs, as multiples of the last one's; 0 where it is not known."""
    times_us = [number(ours, "cpu_us_per_request") for ours, _ in pairs]
    return [time_us / times_us[-1] if times_us[-1] else 0.0 for time_us in times_us]


def sparse_table(rows: Sequence[Row]) -> Iterator[Table]:
    """Yields the table of sparse functions: ours against a rule of thumb, and the time to simulate the last case."""
    pairs = sparse_pairs(rows)
    lines = [
        (
            str(ours["case"]),
            *(percent(number(row, "within_slo"), 1.0) for row in (ours, rule)),
            f"{number(ours, 'cost_cny') / number(rule, 'cost_cny'):.4f}" if number(rule, "cost_cny") else "none",
            *(f"{number(row, 'function_batches'):.0f}" for row in (ours, rule)),
            f"{time:.1f}" if time else "none",
        )
        for (ours, rule), time in zip(pairs, sparse_times(pairs), strict=True)
    ]
    header = ("case", "within SLO", f"{RULE}'s", "money, of its", "batches", f"{RULE}'s", "processor time")
    note = (
        f"No edge, 1 MB/s. Money as a part of what {RULE} costs. Processor time of our simulation, a request, as a "
        "multiple of the last case's."
    )
    yield Table("Sparse functions and cold starts", note, header, tuple(lines))
