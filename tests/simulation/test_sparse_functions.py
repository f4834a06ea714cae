"""Functions without an edge, at traffic so sparse that most requests meet a cold start, keep their objective."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from scheduler.domain.messages import Command, Message
from scheduler.domain.plans import ServiceClass
from scheduler.engine import Engine
from scheduler.simulator.backends import ColdStarts
from scheduler.simulator.network import constant
from scheduler.simulator.report import within_slo
from scheduler.simulator.scenario import Scenario, SimulatedClass, SimulatedModel
from scheduler.simulator.shell import Journal
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import poisson

IDLE_S = 240.0
"""After which an instance is taken away; the gaps of the sparse traffic are longer more often than not."""


def sparse(policy: str, *, rate_rps: float, slo_s: float, start_s: float, requests: int, noise: float = 0.0) -> Journal:
    [served] = Scenario().served()
    classes = (SimulatedClass(ServiceClass(slo_s=slo_s, serve_late=True)),)
    model: SimulatedModel = replace(served, classes=classes, edge_latency=None)
    scenario = Scenario(
        policy=policy,
        models=(model,),
        cold_starts=ColdStarts(start_s, IDLE_S),
        bandwidth=constant(1.0),
        rtt_s=0.03,
        function_noise=noise,
    )
    arrivals = poisson(rate_rps, rng=generators(scenario.seed)[0], requests=requests)
    return make_simulation(scenario, make_requests(scenario, arrivals)).run()


@pytest.mark.parametrize(
    ("rate_rps", "slo_s", "start_s", "noise"),
    [
        (0.002, 4.0, 3.0, 0.0),
        (0.002, 8.0, 1.5, 0.0),
        (0.01, 30.0, 3.0, 0.0),
        (0.01, 4.0, 1.5, 0.1),
        (0.03, 8.0, 3.0, 0.0),
        # Held out: other starts and deadlines than the constants were looked at with.
        (0.004, 15.0, 10.0, 0.1),
        (0.02, 6.0, 4.5, 0.0),
    ],
)
def test_sparse_requests_are_in_time_where_a_rule_of_thumb_has_them_in_time(
    rate_rps: float, slo_s: float, start_s: float, noise: float
) -> None:
    given = {"rate_rps": rate_rps, "slo_s": slo_s, "start_s": start_s, "noise": noise}
    requests = 120 if rate_rps < 0.01 else 200
    ours, rule = (sparse(policy, requests=requests, **given) for policy in ("edgeburst", "function-only"))  # type: ignore[arg-type]
    assert within_slo(rule) >= 0.99
    assert within_slo(ours) >= 0.99
    assert ours.cost() <= 1.01 * rule.cost()


def test_most_of_them_did_meet_a_cold_start() -> None:
    journal = sparse("edgeburst", rate_rps=0.002, slo_s=8.0, start_s=3.0, requests=60)
    batches = [sent for sent in journal.batches.values() if not sent.batch.warming]
    assert sum(sent.outcome.cold_start for sent in batches) > 0.5 * len(batches)


def test_silence_is_little_work_for_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    times_s: list[float] = []
    handle = Engine.handle

    def counted(self: Engine, messages: Sequence[Message], now_s: float) -> list[Command]:
        times_s.append(now_s)
        return handle(self, messages, now_s)

    monkeypatch.setattr(Engine, "handle", counted)
    journal = sparse("edgeburst", rate_rps=0.002, slo_s=8.0, start_s=3.0, requests=100)
    assert len(times_s) <= 7.5 * 100
    assert len(journal.plans) <= 40
