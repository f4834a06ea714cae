"""Clients that each wait for their answer get what the edge can give; requests that follow no answer lose nothing."""

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from scheduler import cli
from scheduler.dispatch.returning import Returning
from scheduler.domain.requests import Backend
from scheduler.simulator.clients import ClosedLoop
from scheduler.simulator.report import answered_rps
from scheduler.simulator.scenario import ORIN_LATENCY, Scenario
from scheduler.simulator.shell import Journal
from scheduler.simulator.world import make_clients, make_requests, make_simulation
from scheduler.workloads import poisson

SITES: Mapping[str, Scenario] = {"edge only": Scenario(tiers=()), "edge and functions": Scenario()}


def closed(scenario: Scenario, loop: ClosedLoop) -> Journal:
    return make_simulation(scenario, (), clients=make_clients(scenario, loop)).run()


@pytest.mark.parametrize("clients", [8, 32])
@pytest.mark.parametrize("site", SITES)
def test_clients_that_wait_get_the_best_of_the_edge(site: str, clients: int) -> None:
    journal = closed(SITES[site], ClosedLoop(clients, requests=3_000))
    best_rps = clients / ORIN_LATENCY.predict_s(clients)
    assert answered_rps(journal) >= 0.95 * best_rps
    assert not journal.refusals
    assert all(journal.ended_at_s[request.request_id] <= request.deadline_s for request in journal.requests)
    assert journal.cost() == 0.0


def test_one_client_is_never_held() -> None:
    journal = closed(Scenario(), ClosedLoop(1, requests=200))
    by_id = {request.request_id: request for request in journal.requests}
    for sent in journal.batches.values():
        assert sent.batch.sent_at_s == by_id[sent.batch.request_ids[0]].arrived_at_s


@pytest.mark.parametrize("rate_rps", [5.0, 20.0, 100.0])
def test_arrivals_that_follow_no_answer_are_decided_as_without(
    rate_rps: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = Scenario(edge_noise=0.1, function_noise=0.1)
    requests = make_requests(scenario, poisson(rate_rps, rng=np.random.default_rng(3), requests=1_500))
    ended = make_simulation(scenario, requests).run().ended_at_s
    monkeypatch.setattr(Returning, "answered", lambda *_: None)
    assert ended == make_simulation(scenario, requests).run().ended_at_s


def test_a_closed_loop_beside_other_requests_keeps_every_deadline() -> None:
    scenario = Scenario()
    requests = make_requests(scenario, poisson(20.0, rng=np.random.default_rng(3), duration_s=30.0))
    clients = make_clients(scenario, ClosedLoop(8, requests=None, duration_s=30.0), first_id=len(requests) + 1)
    journal = make_simulation(scenario, requests, clients=clients).run()
    assert len(journal.requests) > len(requests)
    assert all(journal.ended_at_s[request.request_id] <= request.deadline_s for request in journal.requests)


def test_a_client_sends_after_its_answer_until_the_limit() -> None:
    journal = closed(Scenario(), ClosedLoop(3, think_s=0.01, requests=40))
    assert [request.request_id for request in journal.requests] == list(range(1, 41))
    events = [(request.arrived_at_s, 1) for request in journal.requests]
    events += [(at_s, -1) for at_s in journal.ended_at_s.values()]
    in_hand = np.cumsum([change for _, change in sorted(events)])
    assert in_hand.max() <= 3


def test_the_seed_decides_a_closed_loop() -> None:
    loop = ClosedLoop(4, requests=300)
    runs = [closed(replace(Scenario(), seed=seed), loop).ended_at_s for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_the_command_runs_a_closed_loop(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["simulate", "--clients", "8", "--requests", "800", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["requests"] == summary["answered"] == 800
    assert summary["answered_rps"] > 65


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--clients", "0"], "--clients must be"),
        (["--clients", "8", "--requests", "0"], "--requests must be"),
        (["--clients", "8", "--think-s", "0"], "--think-s must be"),
        (["--clients", "8", "--bound"], "--bound needs arrivals"),
        (["--clients", "8", "--limit"], "--limit needs arrivals"),
        (["--clients", "8", "--explain", "1"], "--explain with --clients needs --requests"),
        (["--clients", "8", "--policy", "static"], "use --policy edgeburst"),
    ],
)
def test_what_a_closed_loop_cannot_do_is_said(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["simulate", *flags]) != 0
    assert said in capsys.readouterr().err


def test_edge_batches_hold_nearly_all_clients() -> None:
    journal = closed(Scenario(), ClosedLoop(8, requests=3_000))
    sizes = [sent.batch.items for sent in journal.batches.values() if sent.batch.backend is Backend.EDGE]
    assert sum(sizes) / len(sizes) >= 0.95 * 8
