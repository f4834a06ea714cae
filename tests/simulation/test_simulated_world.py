"""The simulated world against closed forms: queueing formulas, transfer times, instances, billing, faults."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.simple_engines import OneByOne, Scripted

from scheduler.domain.batches import Batch, FailureKind
from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.messages import AnswerRequest, BatchFailed, BatchFinished
from scheduler.domain.requests import Backend, Place, Request
from scheduler.simulator.backends import (
    ColdStarts,
    InstancePool,
    Outcome,
    SimulatedEdge,
    SimulatedEdges,
    SimulatedFunctions,
    noise,
)
from scheduler.simulator.faults import Fault, FaultError, Faults, parse_fault
from scheduler.simulator.network import (
    AMPLE,
    MEBIBYTE,
    Bandwidth,
    NetworkError,
    Uplink,
    constant,
    read_log,
    steps,
)
from scheduler.simulator.shell import Journal, Simulation, SimulationError
from scheduler.workloads import poisson

LATENCY = LatencyModel(0.2, 0.1, 8)
TIER = FunctionTier("t", "f", LATENCY, Price(per_s=1.27e-5, per_call=9e-7))


def make_requests(times_s: list[float], *, body_bytes: int = 0, slo_s: float = 1.0) -> list[Request]:
    return [Request(i, "m", time_s, time_s + slo_s, body_bytes=body_bytes) for i, time_s in enumerate(times_s, start=1)]


def make_batch(batch_id: int, *, sent_at_s: float, body_bytes: int = 0, items: int = 1, wait_s: float = 100) -> Batch:
    return Batch(
        batch_id=batch_id,
        place=Place.function("t"),
        model="m",
        request_ids=(batch_id,),
        items=items,
        body_bytes=body_bytes,
        sent_at_s=sent_at_s,
        deadline_s=sent_at_s + 1,
        give_up_at_s=sent_at_s + wait_s,
        predicted_finish_s=0.0,
        predicted_service_s=0.0,
    )


def functions(
    *, bandwidth: Bandwidth = AMPLE, rtt_s: float = 0.0, faults: tuple[Fault, ...] = (), **changed: object
) -> SimulatedFunctions:
    arguments: dict[str, object] = {"cold_starts": ColdStarts(), "concurrency": 1000} | changed
    return SimulatedFunctions(
        tiers={"t": TIER},
        uplink=Uplink(bandwidth, rtt_s=rtt_s),
        faults=Faults(faults),
        noise=itertools.repeat(1.0),
        **arguments,  # type: ignore[arg-type]
    )


def edge(
    latency: LatencyModel = LATENCY,
    *,
    faults: tuple[Fault, ...] = (),
    sigma: float = 0.0,
    seed: int = 1,
    parallel: int = 1,
) -> SimulatedEdge:
    return SimulatedEdge(
        latencies={"m": latency},
        faults=Faults(faults),
        noise=noise(sigma, np.random.default_rng(seed)),
        parallel=parallel,
    )


def failure_kind(outcome: Outcome) -> FailureKind:
    assert isinstance(outcome.message, BatchFailed)
    return outcome.message.failure.kind


def mean_wait_s(journal: Journal) -> float:
    waits_s = [
        journal.batches[journal.answered_by[r.request_id]].batch.sent_at_s - r.arrived_at_s for r in journal.requests
    ]
    return float(np.mean(waits_s))


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_constant_service_one_by_one_waits_as_m_d_1(load: float) -> None:
    service_s = 0.05
    times_s = poisson(load / service_s, rng=np.random.default_rng(3), requests=25_000).times_s.tolist()
    simulation = Simulation(
        engine=OneByOne(Backend.EDGE),
        requests=make_requests(times_s),
        edge=edge(LatencyModel(service_s, 0.0, 1)),
        functions=None,
    )
    # Pollaczek-Khinchine for constant service.
    assert mean_wait_s(simulation.run()) == pytest.approx(load * service_s / (2 * (1 - load)), rel=0.1)


def test_lognormal_service_one_by_one_waits_as_m_g_1() -> None:
    service_s, sigma, load = 0.05, 0.5, 0.6
    mean_s, second_moment = service_s * math.exp(sigma**2 / 2), service_s**2 * math.exp(2 * sigma**2)
    rate_rps = load / mean_s
    times_s = poisson(rate_rps, rng=np.random.default_rng(3), requests=25_000).times_s.tolist()
    simulation = Simulation(
        engine=OneByOne(Backend.EDGE),
        requests=make_requests(times_s),
        edge=edge(LatencyModel(service_s, 0.0, 1), sigma=sigma),
        functions=None,
    )
    expected_s = rate_rps * second_moment / (2 * (1 - load))
    assert mean_wait_s(simulation.run()) == pytest.approx(expected_s, rel=0.1)


@pytest.mark.parametrize("parallel", [1, 2, 3, 8])
def test_servers_of_constant_service_are_each_dealt_every_kth_batch(parallel: int) -> None:
    """First come, first served, with constant services: batch i is served by server i modulo K, each a queue alone."""
    together, alone = edge(parallel=parallel), [edge() for _ in range(parallel)]
    times_s = poisson(0.95 * parallel / LATENCY.predict_s(1), rng=np.random.default_rng(4), requests=2000).times_s
    for number, at_s in enumerate(times_s.tolist()):
        batch = make_batch(number, sent_at_s=at_s)
        expected = alone[number % parallel].send(batch, now_s=at_s)
        assert together.send(batch, now_s=at_s) == expected


def test_a_batch_travels_and_is_decoded_while_the_device_serves_another() -> None:
    law = replace(LATENCY, decode_s=0.05)
    device = SimulatedEdge(latencies={"m": law}, faults=Faults(()), noise=itertools.repeat(1.0), lan_s=0.02)
    one_s, beside_s = LATENCY.predict_s(1), 0.07
    first, ahead = (device.send(make_batch(number, sent_at_s=0.0), now_s=0.0) for number in (1, 2))
    assert [first.at_s, ahead.at_s] == pytest.approx([beside_s + one_s, beside_s + 2 * one_s])
    late = device.send(make_batch(3, sent_at_s=ahead.at_s), now_s=ahead.at_s)
    assert late.at_s == pytest.approx(ahead.at_s + beside_s + one_s)
    reports = [one.message.report for one in (first, ahead, late) if isinstance(one.message, BatchFinished)]
    assert [report.queue_s for report in reports] == pytest.approx([0.0, one_s, 0.0])
    assert [report.service_s for report in reports] == pytest.approx([0.05 + one_s] * 3)
    assert [report.elapsed_s for report in reports] == pytest.approx([0.07 + one_s, 0.07 + 2 * one_s, 0.07 + one_s])
    assert [one.busy_s for one in (first, ahead, late)] == pytest.approx([one_s] * 3)


def test_an_outage_empties_every_server() -> None:
    device = edge(faults=(Fault("down", 10.0, 20.0),), parallel=2)
    outcomes = [device.send(make_batch(number, sent_at_s=9.9), now_s=9.9) for number in range(3)]
    assert [(failure_kind(outcome), outcome.at_s) for outcome in outcomes] == [(FailureKind.BROKEN, 10.0)] * 3
    after = [device.send(make_batch(number, sent_at_s=20.0), now_s=20.0).at_s for number in range(3)]
    one_s = LATENCY.predict_s(1)
    assert after == pytest.approx([20.0 + one_s, 20.0 + one_s, 20.0 + 2 * one_s])


def test_each_edge_server_has_its_own_queue_laws_and_faults() -> None:
    slow = LatencyModel(0.4, 0.2, 8)
    laws = {"a": LATENCY, "b": slow}
    away = {"a": Faults(()), "b": Faults((Fault("down", 5.0, 6.0),))}
    servers = SimulatedEdges(
        [
            SimulatedEdge(latencies={"m": law}, faults=away[name], noise=itertools.repeat(1.0), name=name)
            for name, law in laws.items()
        ]
    )

    def sent(name: str, at_s: float) -> Outcome:
        return servers.send(replace(make_batch(1, sent_at_s=at_s), place=Place.edge(name)), now_s=at_s)

    first, second, beside = sent("a", 0.0), sent("a", 0.0), sent("b", 0.0)
    one_s = LATENCY.predict_s(1)
    assert [first.at_s, second.at_s, beside.at_s] == pytest.approx([one_s, 2 * one_s, 2 * one_s])
    assert [first.busy_s, second.busy_s, beside.busy_s] == pytest.approx([one_s, one_s, 2 * one_s])
    assert failure_kind(sent("b", 5.5)) is FailureKind.UNREACHABLE
    assert isinstance(sent("a", 5.5).message, BatchFinished)
    broken = sent("b", 4.9)
    assert (failure_kind(broken), broken.busy_s) == (FailureKind.BROKEN, pytest.approx(0.1))
    with pytest.raises(KeyError):
        sent("c", 0.0)


def test_transfers_wait_for_each_other_and_functions_do_not() -> None:
    batches = functions(bandwidth=constant(1.0), rtt_s=0.02)
    first = batches.send(make_batch(1, sent_at_s=0.0, body_bytes=MEBIBYTE // 2), now_s=0.0)
    second = batches.send(make_batch(2, sent_at_s=0.1, body_bytes=MEBIBYTE // 4), now_s=0.1)
    service_s = LATENCY.predict_s(1)
    assert first.at_s == pytest.approx(0.5 + 0.02 + service_s)
    assert second.at_s == pytest.approx(0.75 + 0.02 + service_s)
    assert isinstance(second.message, BatchFinished)
    assert second.message.report.elapsed_s == pytest.approx(0.65 + 0.02 + service_s)
    assert second.message.report.service_s == pytest.approx(service_s)


def test_bandwidth_steps_and_logs_are_integrated(tmp_path: Path) -> None:
    stepped = steps([(0.0, 2.0), (1.0, 0.0), (3.0, 1.0)])
    assert stepped.finish_s(0.0, MEBIBYTE) == pytest.approx(0.5)
    # One MB passes by 1 s, nothing until 3 s, the other half MB by 3.5 s.
    assert stepped.finish_s(0.5, 1.5 * MEBIBYTE) == pytest.approx(3.5)
    assert constant(0.0).finish_s(1.0, 1) == math.inf
    path = tmp_path / "lte.log"
    path.write_text("1 1 51.0 3.7 1000 1000\n2 2 51.0 3.7 0 500\n")
    log = read_log(path)
    assert log.finish_s(0.0, 1500) == pytest.approx(2.0)
    assert log.finish_s(1.2, 500) == pytest.approx(2.0)
    assert log.finish_s(15.0, 1000) == pytest.approx(16.0)


@settings(max_examples=100, deadline=None)
@given(
    rates=st.lists(st.floats(0.0, 50.0), min_size=1, max_size=6).filter(lambda rates: sum(rates) > 1),
    start_s=st.floats(0, 40),
    first=st.floats(0, 200),
    second=st.floats(0, 200),
)
def test_sending_in_two_parts_takes_as_long_as_sending_at_once(
    rates: list[float], start_s: float, first: float, second: float
) -> None:
    log = Bandwidth(tuple(float(i) for i in range(len(rates))), tuple(rates), period_s=float(len(rates)))
    whole_s = log.finish_s(start_s, first + second)
    parts_s = log.finish_s(log.finish_s(start_s, first), second)
    # Where nothing is left to send and the rate is 0, both ends of the pause are right.
    sent = second * 1e-9 + 1e-6
    assert log.finish_s(parts_s, sent) == pytest.approx(log.finish_s(whole_s, sent), abs=0.01)


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "is empty"), ("1 1 1 1 0 1000", "carries nothing"), ("1 2 3", "needs 6 numbers"), ("1 1 1 1 5 0", "above 0")],
)
def test_a_useless_bandwidth_log_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "lte.log"
    path.write_text(text)
    with pytest.raises(NetworkError, match=words):
        read_log(path)


def test_a_transfer_that_is_given_up_frees_the_pipe() -> None:
    batches = functions(bandwidth=steps([(0.0, 0.0), (10.0, 1.0)]))
    stuck = batches.send(make_batch(1, sent_at_s=0.0, body_bytes=1000, wait_s=5.0), now_s=0.0)
    assert (failure_kind(stuck), stuck.at_s, stuck.cost) == (FailureKind.TIMEOUT, 5.0, 0.0)
    later = batches.send(make_batch(2, sent_at_s=6.0, body_bytes=MEBIBYTE), now_s=6.0)
    assert later.at_s == pytest.approx(11.0 + LATENCY.predict_s(1))


def test_an_instance_is_reused_until_it_has_idled_too_long() -> None:
    batches = functions(cold_starts=ColdStarts(start_s=2.0, idle_s=10.0))
    service_s = LATENCY.predict_s(1)
    cold = batches.send(make_batch(1, sent_at_s=0.0), now_s=0.0)
    warm = batches.send(make_batch(2, sent_at_s=5.0), now_s=5.0)
    beside = batches.send(make_batch(3, sent_at_s=5.1), now_s=5.1)
    reclaimed = batches.send(make_batch(4, sent_at_s=30.0), now_s=30.0)
    assert [o.cold_start for o in (cold, warm, beside, reclaimed)] == [True, False, True, True]
    assert cold.at_s == pytest.approx(2.0 + service_s)
    assert warm.at_s == pytest.approx(5.0 + service_s)
    # A start is billed as a call of its own.
    assert warm.cost == pytest.approx(TIER.price.cost(service_s))
    assert cold.cost == pytest.approx(warm.cost + TIER.price.cost(2.0))


@settings(max_examples=60, deadline=None)
@given(gaps_s=st.lists(st.floats(0, 3), min_size=1, max_size=30), idle_s=st.floats(0.1, 5))
def test_instances_agree_with_a_list_of_instances(gaps_s: list[float], idle_s: float) -> None:
    """The oracle keeps every instance and looks at all of them."""
    pool, busy_s, oracle = InstancePool(ColdStarts(start_s=1.0, idle_s=idle_s)), 0.7, []
    for at_s in itertools.accumulate(gaps_s):
        assert pool.running(at_s) == sum(free_s > at_s for free_s in oracle)
        usable = [free_s for free_s in oracle if free_s <= at_s < free_s + idle_s]
        expected_s = 0.0 if usable else 1.0
        if usable:
            oracle.remove(max(usable))
        start_s = pool.start_s(at_s)
        assert start_s == expected_s
        oracle.append(at_s + start_s + busy_s)
        pool.release(at_s + start_s + busy_s)


def test_a_warming_call_starts_or_keeps_an_instance_and_costs_a_grain() -> None:
    platform = functions(cold_starts=ColdStarts(2.0, 100.0))
    calls = [
        replace(make_batch(number, sent_at_s=at_s, items=0), request_ids=()) for number, at_s in ((1, 0.0), (2, 90.0))
    ]
    first, second = (platform.send(call, now_s=call.sent_at_s) for call in calls)
    assert (first.cold_start, second.cold_start) == (True, False)
    assert second.cost == TIER.price.cost(0.001)
    assert first.cost == pytest.approx(second.cost + TIER.price.cost(2.0))
    assert not platform.send(make_batch(3, sent_at_s=180.0), now_s=180.0).cold_start


def test_calls_above_the_concurrency_are_throttled_and_free() -> None:
    batches = functions(concurrency=2, rtt_s=0.1)
    outcomes = [batches.send(make_batch(i, sent_at_s=0.0), now_s=0.0) for i in range(3)]
    assert failure_kind(outcomes[2]) is FailureKind.THROTTLED
    assert outcomes[2].at_s == pytest.approx(0.1)
    assert [o.cost > 0 for o in outcomes] == [True, True, False]


def test_faults_of_functions_have_their_kinds_and_costs() -> None:
    batches = functions(faults=(Fault("down", 10.0, 20.0), Fault("throttle", 30.0, 40.0)), rtt_s=0.1)
    broken = batches.send(make_batch(1, sent_at_s=9.9), now_s=9.9)
    away = batches.send(make_batch(2, sent_at_s=15.0), now_s=15.0)
    throttled = batches.send(make_batch(3, sent_at_s=35.0), now_s=35.0)
    fine = batches.send(make_batch(4, sent_at_s=40.0), now_s=40.0)
    assert (failure_kind(broken), broken.at_s, broken.cost > 0) == (FailureKind.BROKEN, 10.0, True)
    assert (failure_kind(away), away.at_s, away.cost) == (FailureKind.UNREACHABLE, 15.1, 0.0)
    assert (failure_kind(throttled), throttled.cost) == (FailureKind.THROTTLED, 0.0)
    assert isinstance(fine.message, BatchFinished)


def test_a_slow_edge_takes_longer_for_the_part_in_the_window() -> None:
    slow = Faults((Fault("slow", 1.0, 2.0, 2.0),))
    assert slow.finish_s(0.0, 0.5) == 0.5
    assert slow.finish_s(0.8, 0.4) == pytest.approx(1.4)
    assert slow.finish_s(1.8, 0.4) == pytest.approx(2.3)
    assert slow.finish_s(0.5, 2.0) == pytest.approx(3.0)


def test_faults_of_the_edge_have_their_kinds() -> None:
    device = edge(faults=(Fault("down", 10.0, 20.0),))
    broken = device.send(make_batch(1, sent_at_s=9.9), now_s=9.9)
    away = device.send(make_batch(2, sent_at_s=12.0), now_s=12.0)
    hung = device.send(make_batch(3, sent_at_s=30.0, wait_s=0.1), now_s=30.0)
    behind = device.send(make_batch(4, sent_at_s=30.1), now_s=30.1)
    assert (failure_kind(broken), broken.at_s) == (FailureKind.BROKEN, 10.0)
    assert failure_kind(away) is FailureKind.UNREACHABLE
    assert (failure_kind(hung), hung.at_s) == (FailureKind.TIMEOUT, 30.1)
    # The batch that was given up is still being worked on.
    assert behind.at_s == pytest.approx(30.0 + 2 * LATENCY.predict_s(1))
    assert not device.probe(now_s=15.0)[1].ok
    assert device.probe(now_s=25.0)[1].ok


def test_a_probe_of_the_functions_measures_the_pipe() -> None:
    _, found = functions(bandwidth=constant(0.5), rtt_s=0.03).probe(now_s=1.0)
    assert found.ok
    assert found.rtt_s == 0.03
    assert found.sent_bytes / (found.transfer_s or 0) == pytest.approx(0.5 * MEBIBYTE)
    lost_s, lost = functions(bandwidth=constant(0.0)).probe(now_s=1.0)
    assert not lost.ok
    assert math.isfinite(lost_s)


def test_noise_has_median_one_and_the_asked_spread() -> None:
    factors = np.array(list(itertools.islice(noise(0.25, np.random.default_rng(5)), 20_000)))
    assert np.median(factors) == pytest.approx(1.0, abs=0.01)
    assert np.log(factors).std() == pytest.approx(0.25, rel=0.02)
    assert list(itertools.islice(noise(0.0, np.random.default_rng(5)), 3)) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "text", ["slow:1,2", "down:2,1", "down:a,b", "melt:1,2", "down:-1,2", "slow:1,2,0", "", "down"]
)
def test_a_fault_that_cannot_be_read_is_refused_with_its_form(text: str) -> None:
    with pytest.raises(FaultError, match="fault"):
        parse_fault(text, ("slow", "down"))


def test_every_request_ends_once_and_the_run_ends() -> None:
    requests = make_requests([0.0, 0.0, 0.5, 3.0])
    simulation = Simulation(
        engine=OneByOne(Backend.FUNCTION, tier="t"), requests=requests, edge=None, functions=functions()
    )
    journal = simulation.run()
    assert sorted(journal.ended_at_s) == [1, 2, 3, 4]
    assert journal.ended_at_s[4] == pytest.approx(3.0 + LATENCY.predict_s(1))


def test_what_an_engine_must_not_do_is_reported() -> None:
    requests = make_requests([0.0])
    forgetful = Simulation(engine=Scripted([]), requests=requests, edge=None, functions=None)
    with pytest.raises(SimulationError, match="1 requests have not ended"):
        forgetful.run()
    twice = Scripted([[AnswerRequest(1, 1), AnswerRequest(1, 1)]])
    with pytest.raises(SimulationError, match="request 1 ends a second time"):
        Simulation(engine=twice, requests=requests, edge=None, functions=None).run()
    lost = Simulation(engine=OneByOne(Backend.EDGE), requests=requests, edge=None, functions=None)
    with pytest.raises(SimulationError, match="there is none"):
        lost.run()
    elsewhere = Simulation(engine=OneByOne(Backend.EDGE), requests=requests, edge=SimulatedEdges([]), functions=None)
    with pytest.raises(SimulationError, match="edge:main, which lacks 'main'"):
        elsewhere.run()
    restless = Simulation(engine=Scripted([], wakeup_s=0.0), requests=requests, edge=None, functions=None)
    with pytest.raises(SimulationError, match="without end"):
        restless.run()


def test_what_happens_at_one_moment_is_told_in_one_call() -> None:
    engine = OneByOne(Backend.EDGE)
    requests = make_requests([0.0, LATENCY.predict_s(1), LATENCY.predict_s(1)])
    Simulation(engine=engine, requests=requests, edge=edge(), functions=None).run()
    at_s = LATENCY.predict_s(1)
    assert [type(message).__name__ for time_s, message in engine.heard if time_s == at_s] == [
        "BatchFinished",
        "RequestArrived",
        "RequestArrived",
    ]
