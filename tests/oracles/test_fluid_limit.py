"""The edge's share against the fluid limit in closed form and against what simulated dispatchers were seen to spill."""

import pytest

from scheduler.domain.latency import LatencyModel
from scheduler.planner.site.edge_capacity import edge_share, fluid_batch, largest_in_time, tabulate

ALPHA_S, BETA_S = 0.04234, 0.008165
ORIN_S = tabulate(LatencyModel(ALPHA_S, BETA_S, 200), max_batch=200)


@pytest.mark.parametrize("rate_rps", [112.0, 140.0, 187.0, 500.0])
@pytest.mark.parametrize("slo_s", [0.6, 1.0])
def test_fluid_batch_is_the_closed_form_of_a_linear_latency(rate_rps: float, slo_s: float) -> None:
    expected = (slo_s - ALPHA_S) / (BETA_S + 1 / rate_rps)
    assert fluid_batch(ORIN_S, rate_rps=rate_rps, slo_s=slo_s, margin=1.0) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("rate_rps", "throughput_rps"), [(140.0, 107.2), (187.0, 108.8)])
def test_throughput_in_overload_is_that_of_the_newest_requests(rate_rps: float, throughput_rps: float) -> None:
    share = edge_share(ORIN_S, rate_rps=rate_rps, dispersion=1.0, slo_s=0.6, margin=1.0)
    assert share.capacity_rps == pytest.approx(throughput_rps, abs=0.06)


# Fraction of the money of serving everything by function that a dispatcher spent which admits to the next batch only,
# on 20,000 requests of the Twitter trace: (slo_s, rate_rps, fraction). Money is 1 to 2 points above the fraction of
# requests, because the last function batch of a run is not full.
SEEN = [
    (0.6, 94.0, 0.0023),
    (0.6, 103.0, 0.0250),
    (0.6, 112.0, 0.0800),
    (0.6, 140.0, 0.2555),
    (0.6, 187.0, 0.4409),
    (1.0, 103.0, 0.0010),
    (1.0, 112.0, 0.0259),
    (1.0, 140.0, 0.2067),
    (1.0, 187.0, 0.4027),
]


@pytest.mark.parametrize(("slo_s", "rate_rps", "fraction"), SEEN)
def test_spill_is_near_what_was_seen_on_a_real_trace(slo_s: float, rate_rps: float, fraction: float) -> None:
    share = edge_share(ORIN_S, rate_rps=rate_rps, dispersion=1.0, slo_s=slo_s, margin=1.0)
    assert share.spill_fraction == pytest.approx(fraction, abs=0.025)


def test_calm_batch_is_what_gathers_while_one_is_served() -> None:
    # b = rate (alpha + beta b) has the solution rate alpha / (1 - rate beta).
    share = edge_share(ORIN_S, rate_rps=60.0, dispersion=1.0, slo_s=1.0, margin=1.0)
    assert share.batch == pytest.approx(60 * ALPHA_S / (1 - 60 * BETA_S), abs=1.0)
    assert share.spill_fraction < 1e-6


def test_largest_in_time_inverts_the_latency() -> None:
    assert largest_in_time(ORIN_S, slo_s=ALPHA_S + 20 * BETA_S + 1e-9, margin=1.0) == 20
    assert largest_in_time(ORIN_S, slo_s=0.01, margin=1.0) == 0
    assert largest_in_time(ORIN_S, slo_s=1.3 * (ALPHA_S + 20 * BETA_S) + 1e-9, margin=1.3) == 20
