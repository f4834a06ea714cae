"""A batch that was given up and came back after all is paid for, and the engine knows what it cost."""

import itertools
import math
from dataclasses import replace

import pytest

from scheduler.domain.batches import Batch
from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.messages import BatchFailed
from scheduler.domain.requests import Place, Request
from scheduler.engine import Engine
from scheduler.simulator.backends import LATE_LIMIT_S, ColdStarts, SimulatedFunctions
from scheduler.simulator.faults import Fault, Faults
from scheduler.simulator.network import AMPLE, Uplink
from scheduler.simulator.scenario import MODEL, Scenario
from scheduler.simulator.shell import Simulation

TIER = FunctionTier("t", "f", LatencyModel(0.2, 0.1, 8), Price(per_s=1.0, per_call=0.0))


def functions(start_s: float, *, faults: tuple[Fault, ...] = ()) -> SimulatedFunctions:
    return SimulatedFunctions(
        tiers={"t": TIER},
        uplink=Uplink(AMPLE, rtt_s=0.0),
        faults=Faults(faults),
        noise=itertools.repeat(1.0),
        cold_starts=ColdStarts(start_s, math.inf),
        concurrency=100,
    )


def batch(give_up_at_s: float) -> Batch:
    return Batch(1, Place.function("t"), "m", (1,), 1, 0, 0.0, 1.0, give_up_at_s, 0.0, 0.0)


def test_the_bill_of_a_batch_that_was_given_up_comes_when_its_run_ends() -> None:
    outcome = functions(20.0).send(batch(5.0), now_s=0.0)
    assert isinstance(outcome.message, BatchFailed)
    assert outcome.at_s == 5.0
    assert outcome.bill is not None
    assert outcome.bill[0] == pytest.approx(20.3)
    bill = outcome.bill[1]
    assert (bill.batch_id, bill.report.billed_duration_s, bill.report.init_s) == (1, pytest.approx(0.3), 20.0)


def test_no_bill_comes_over_a_broken_connection_or_to_a_daemon_that_no_longer_listens() -> None:
    assert functions(20.0, faults=(Fault("down", 3.0, 9.0),)).send(batch(5.0), now_s=0.0).bill is None
    assert functions(20.0, faults=(Fault("down", 7.0, 9.0),)).send(batch(5.0), now_s=0.0).bill is None
    assert functions(LATE_LIMIT_S + 6.0).send(batch(5.0), now_s=0.0).bill is None


def test_in_the_end_the_engine_has_spent_what_the_provider_bills() -> None:
    scenario = Scenario(tiers=(TIER,))
    [model] = scenario.served()
    engine = Engine(replace(scenario, models=(replace(model, edge_latency=None),)).engine_settings())
    requests = [Request(i, MODEL, at_s, at_s + 1.0) for i, at_s in enumerate((0.0, 0.01, 60.0, 61.0), start=1)]
    simulation = Simulation(engine=engine, requests=requests, edge=None, functions=functions(25.0))
    journal = simulation.run()
    late = [sent for sent in journal.batches.values() if sent.outcome.bill is not None]
    assert late
    assert engine.statistics().spent == pytest.approx(math.fsum(sent.outcome.cost for sent in journal.batches.values()))
