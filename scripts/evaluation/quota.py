"""The suite `quota`: bursts against a provider that runs fewer calls at once than are configured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from scheduler.domain.batches import FailureKind
from scheduler.domain.messages import BatchFailed
from scheduler.simulator.report import rows
from scheduler.simulator.scenario import Scenario
from scheduler.simulator.shell import Journal, SentBatch
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import Workload, poisson, with_bursts
from scripts.evaluation.case import Result, Row
from scripts.evaluation.tables import Table

SUITE = "quota"
BURSTS, EVERY_S, BURST_S = 5, 30.0, 10.0
QUOTA, CONFIGURED = 12, 64
"""Calls that the provider runs at once, and those that the daemon is configured for."""


@dataclass(frozen=True, slots=True)
class QuotaCase:
    """Bursts of one rate above a steady one.

    Attributes:
        name: in words.
        scenario: edge, functions and the provider's limit.
        rate_rps: between the bursts.
        burst_rps: in a burst, in addition.
    """

    name: str
    scenario: Scenario
    rate_rps: float
    burst_rps: float


def cases() -> Iterator[QuotaCase]:
    """Yields the cases."""
    base = Scenario(function_noise=0.1, edge_noise=0.1, rtt_s=0.02, concurrency=QUOTA)
    base = replace(base, max_function_in_flight=CONFIGURED)
    [model] = base.served()
    alone = replace(base, models=(replace(model, edge_latency=None),))
    yield QuotaCase("edge and functions", base, 60.0, 120.0)
    yield QuotaCase("functions only", alone, 10.0, 50.0)


def workload(case: QuotaCase, seed: int) -> Workload:
    """Returns the arrivals of a case."""
    arrivals, _, _, _, extra, *_ = generators(seed)
    drawn = poisson(case.rate_rps, rng=arrivals, duration_s=BURSTS * EVERY_S)
    return with_bursts(drawn, [((i + 0.5) * EVERY_S, BURST_S, case.burst_rps) for i in range(BURSTS)], rng=extra)


def throttled(sent: SentBatch) -> bool:
    """Whether the provider refused a batch for lack of concurrency."""
    message = sent.outcome.message
    return isinstance(message, BatchFailed) and message.failure.kind is FailureKind.THROTTLED


def run_case(case: QuotaCase, seed: int) -> Result:
    """Returns the figures of a case."""
    scenario = replace(case.scenario, seed=seed)
    journal = make_simulation(scenario, make_requests(scenario, workload(case, seed))).run()
    row: Row = {"suite": SUITE, "case": case.name, "policy": scenario.policy, "variant": "", "seed": seed}
    return Result(row | figures(journal))


def figures(journal: Journal) -> Row:
    """Returns refusals and requests in time, by burst with what follows it, and the cost."""
    refusals, ended, within = ([0] * BURSTS for _ in range(3))
    for sent in journal.batches.values():
        refusals[_burst(sent.batch.sent_at_s)] += throttled(sent)
    for row in rows(journal):
        ended[_burst(row.arrived_at_s)] += 1
        within[_burst(row.arrived_at_s)] += row.within_slo
    return {
        "refusals_by_burst": refusals,
        "within_by_burst": [ours / all_of for ours, all_of in zip(within, ended, strict=True)],
        "within_slo": sum(within) / sum(ended),
        "cost_cny": sum(sent.outcome.cost for sent in journal.batches.values()),
    }


def _burst(at_s: float) -> int:
    return min(BURSTS - 1, max(0, int(at_s / EVERY_S)))


def tasks(seeds: Sequence[int]) -> Iterator[partial[Result]]:
    """Yields a task for each case and seed."""
    for case in cases():
        for seed in seeds:
            yield partial(run_case, case, seed)


def table(found: Sequence[Row]) -> Table:
    """Returns the table of the suite's rows."""
    lines = tuple(
        (
            str(row["case"]),
            str(row["seed"]),
            ", ".join(map(str, _numbers(row["refusals_by_burst"]))),
            ", ".join(f"{100 * each:.1f}" for each in _numbers(row["within_by_burst"])),
            f"{100 * float(str(row['within_slo'])):.2f} %",
            f"{float(str(row['cost_cny'])):.6f}",
        )
        for row in found
    )
    header = ("bursts", "seed", "429s by burst", "in time by burst, %", "in time", "CNY")
    note = (
        f"{BURSTS} bursts, {EVERY_S:.0f} s apart and {BURST_S:.0f} s long; the provider runs {QUOTA} calls at once, "
        f"configured are {CONFIGURED}. Asked: the later bursts do not meet the wall that the first has met."
    )
    return Table("Bursts against a quota", note, header, lines)


def _numbers(value: object) -> list[float]:
    assert isinstance(value, list)
    return value
