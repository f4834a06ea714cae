"""Requests of several shapes: they share no batch, and still keep their SLO; a rare shape is served like the others."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from scheduler.domain.messages import SendBatch
from scheduler.domain.requests import Request
from scheduler.simulator.report import rows
from scheduler.simulator.scenario import Scenario
from scheduler.simulator.shell import Journal
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import poisson

NOISY = Scenario(edge_noise=0.1, function_noise=0.25)


def run(scenario: Scenario, rate_rps: float, requests: int = 2000) -> tuple[Sequence[Request], Journal]:
    workload = poisson(rate_rps, rng=generators(scenario.seed)[0], requests=requests)
    made = make_requests(scenario, workload)
    return made, make_simulation(scenario, made, keep_commands=True).run()


def in_time(requests: Sequence[Request], journal: Journal) -> dict[int, float]:
    """Share of the requests in time, by shape."""
    shape_of = {request.request_id: request.shape_id for request in requests}
    found: dict[int, list[bool]] = {}
    for row in rows(journal):
        found.setdefault(shape_of[row.request_id], []).append(row.within_slo)
    return {shape_id: sum(good) / len(good) for shape_id, good in found.items()}


@pytest.mark.parametrize(
    ("scenario", "rate_rps"),
    [
        (replace(NOISY, shapes=(1.0, 1.0)), 60.0),
        (replace(NOISY, shapes=(0.97, 0.03), seed=1), 80.0),
        (replace(NOISY, shapes=(4.0, 2.0, 1.0, 1.0), seed=2), 60.0),
        (replace(NOISY, shapes=(0.95, 0.05), tiers=(), seed=3), 60.0),
    ],
    ids=["two alike", "one rare", "four", "one rare, without functions"],
)
def test_shapes_share_no_batch_and_keep_their_slo(scenario: Scenario, rate_rps: float) -> None:
    requests, journal = run(scenario, rate_rps)
    shape_of = {request.request_id: request.shape_id for request in requests}
    batches = [command.batch for _, command in journal.commands if isinstance(command, SendBatch)]
    assert all(len({shape_of[i] for i in batch.request_ids}) <= 1 for batch in batches)
    assert len(journal.ended_at_s) == len(requests)
    assert min(in_time(requests, journal).values()) >= 0.98, in_time(requests, journal)


def test_a_rare_shape_is_not_starved_under_overload() -> None:
    scenario = replace(NOISY, shapes=(0.95, 0.05), tiers=(), seed=4)
    requests, journal = run(scenario, 130.0)
    share = in_time(requests, journal)
    assert share[1] >= 0.7 * share[0], share


def test_one_shape_decides_as_no_shape() -> None:
    one = run(replace(NOISY, seed=5), 130.0, 1000)[1]
    same = run(replace(NOISY, shapes=(7.0,), seed=5), 130.0, 1000)[1]
    assert [command for _, command in one.commands] == [command for _, command in same.commands]
