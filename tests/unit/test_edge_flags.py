"""The flags that describe edge servers: one without a name, or several with their own laws and faults."""

import argparse

import pytest

from scheduler.domain.latency import LatencyModel
from scheduler.domain.plans import EdgeSettings
from scheduler.simulator.edge_flags import DescribedEdges, add_edge_flags, described_edges
from scheduler.simulator.faults import Fault
from scheduler.simulator.scenario import ORIN_LATENCY, EdgeServer, Scenario, ScenarioError

DOWN, SLOW = Fault("down", 30.0, 90.0), Fault("slow", 1.0, 2.0, 3.0)


def described(*flags: str, slo_s: float = 1.0) -> DescribedEdges:
    parser = argparse.ArgumentParser()
    add_edge_flags(parser.add_argument_group("edges"))
    return described_edges(argparse.Namespace(slo_s=slo_s, **vars(parser.parse_args(flags))))


def test_without_flags_there_is_one_orin_without_a_name() -> None:
    found = described()
    assert (found.servers, found.faults) == ((), ())
    assert [(law.alpha_s, law.beta_s) for law in found.laws] == [(ORIN_LATENCY.alpha_s, ORIN_LATENCY.beta_s)]


def test_named_ones_have_their_laws_and_the_faults_of_all_and_their_own() -> None:
    edges, faults = ("--edge", "a:0.1,0.01", "--edge", "b:0.2,0.02"), ("slow:1,2,3", "b:down:30,90")
    found = described(*edges, "--edge-parallel", "2", *(f"--edge-fault={fault}" for fault in faults))
    a, b = (LatencyModel(0.1, 0.01, 91), LatencyModel(0.2, 0.02, 91))
    assert found.servers == (
        EdgeServer("a", a, parallel=2, faults=(SLOW,)),
        EdgeServer("b", b, parallel=2, faults=(SLOW, DOWN)),
    )


def test_the_way_decoding_and_what_is_sent_ahead_are_those_of_all() -> None:
    flags = ("--edge-decode-s", "0.03", "--edge-lan-s", "0.01")
    for more, ahead in (((), None), (("--edge-ahead", "0"), 0), (("--edge-ahead", "1"), 1)):
        [server] = described("--edge", "a:0.1,0.01", *flags, *more).servers
        assert (server.decode_s, server.lan_s, server.ahead) == (0.03, 0.01, ahead)
        settings = Scenario(edges=(server,)).engine_settings()
        assert settings.edges == (EdgeSettings("a", 1, ahead),)
        assert settings.edge_overhead_s == 0.01
        latency = settings.models[0].edge_latency
        assert latency is not None
        assert latency.decode_s == 0.03
    assert Scenario(edge_ahead=1).engine_settings().edges == (EdgeSettings("main", 1, 1),)
    for flag in ("--edge-decode-s", "--edge-lan-s"):
        with pytest.raises(ScenarioError, match=f"{flag} must be a finite number of at least 0, not nan"):
            described(flag, "nan")


def test_the_engine_may_have_to_learn_how_many_batches_are_served_at_once() -> None:
    [server] = described("--edge", "a:0.1,0.01", "--edge-parallel", "3", "--edge-parallel-learned").servers
    assert (server.parallel, server.told) == (3, False)
    assert Scenario(edges=(server,)).engine_settings().edges == (EdgeSettings("a", None),)
    assert Scenario(edge_parallel=3, edge_told=False).engine_settings().edges == (EdgeSettings("main", None),)


def test_the_largest_batch_is_what_the_fastest_can_do_within_the_slo() -> None:
    assert [described("--edge", f"0.1,{beta_s}").max_items for beta_s in (0.01, 0.1, 1e-4, 0.0)] == [91, 64, 1024, 1024]


@pytest.mark.parametrize("value", ["", "1", "1,2,3", "a:b:", "x,y"])
def test_what_is_no_law_is_refused(value: str) -> None:
    with pytest.raises(SystemExit):
        described("--edge", value)


@pytest.mark.parametrize("value", ["nan,1", "-1,1", "a:1,inf"])
def test_what_is_no_time_is_refused(value: str) -> None:
    with pytest.raises(ScenarioError, match="--edge must be a finite number of at least 0"):
        described(f"--edge={value}")
