"""Latency models of functions: time slicing against a simulation of it, bills, ways to the function."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.planner.catalogue.function_path import AT_ONCE, FunctionPath
from scheduler.planner.catalogue.latency_models import (
    ExponentialLatency,
    PolynomialLatency,
    Resources,
    ServiceTable,
    SliceLatency,
    TableLatency,
    deterministic,
    rounded_up_s,
)

GPU = SliceLatency(slope_s=0.0017, constant_s=0.0021, slice_s=0.002, card_gb=24)


def resources(gpu_gb: float) -> Resources:
    return Resources(np.array([gpu_gb / 3]), np.array([0.5]), np.array([gpu_gb]))


def sliced(work_s: float, *, slice_s: float, period_s: float, phase_s: float) -> float:
    """Walks through the slices: at `phase_s` into a period of which the first `slice_s` are ours."""
    elapsed_s, into_s = (period_s - phase_s, 0.0) if phase_s >= slice_s else (0.0, phase_s)
    while work_s > slice_s - into_s:
        work_s -= slice_s - into_s
        elapsed_s, into_s = elapsed_s + period_s - into_s, 0.0
    return elapsed_s + work_s


@pytest.mark.parametrize(("gpu_gb", "batch"), [(2, 1), (2, 13), (5, 4), (23, 32)])
def test_time_slicing_has_the_distribution_of_slices_walked_through_from_random_phases(gpu_gb: int, batch: int) -> None:
    table = GPU.table(resources(gpu_gb), max_batch=batch, grain_s=0.05)
    work_s, slice_s, period_s = 0.0017 * batch + 0.0021, gpu_gb * 0.002, 0.048
    phases = (np.arange(4000) + 0.5) / 4000 * period_s
    walked_s = np.array([sliced(work_s, slice_s=slice_s, period_s=period_s, phase_s=p) for p in phases])
    assert table.mean_s[0, -1] == pytest.approx(walked_s.mean(), rel=1e-3)
    assert table.worst_s[0, -1] == pytest.approx(walked_s.max(), rel=1e-3)
    assert table.billed_s[0, -1] == pytest.approx(rounded_up_s(walked_s, 0.05).mean(), abs=2e-4)
    atoms_s, weights = table.atoms_s[0, -1], table.weights[0, -1]
    for quantile in (0.1, 0.5, 0.9, 0.99):
        at = atoms_s[np.searchsorted(np.cumsum(weights), quantile - 1e-9)]
        truth = np.quantile(walked_s, quantile)
        assert truth - 1e-4 <= at <= truth + (period_s - slice_s) / 8 + 1e-4


def test_the_whole_card_knows_no_pauses_and_no_margin() -> None:
    latency = SliceLatency(slope_s=0.01, constant_s=0.02, slice_s=0.002, card_gb=24, worst_factor=1.2)
    table = latency.table(resources(24), max_batch=3, grain_s=1.0)
    assert table.worst_s[0] == pytest.approx([0.03, 0.04, 0.05])
    assert table.mean_s[0] == pytest.approx(table.worst_s[0])


@given(gpu_gb=st.integers(1, 24), slope_s=st.floats(1e-4, 0.05), constant_s=st.floats(0, 0.3))
def test_a_distribution_is_one_and_ends_at_the_worst_case(gpu_gb: int, slope_s: float, constant_s: float) -> None:
    latency = SliceLatency(slope_s=slope_s, constant_s=constant_s, slice_s=0.002, card_gb=24)
    table = latency.table(resources(gpu_gb), max_batch=16, grain_s=0.001)
    assert table.weights.sum(axis=2) == pytest.approx(1)
    assert (table.weights >= -1e-12).all()
    assert (np.diff(table.atoms_s, axis=2) >= -1e-12).all()
    assert table.atoms_s[:, :, -1] == pytest.approx(table.worst_s)
    assert (table.billed_s >= table.mean_s - 1e-9).all()


@given(gpu_gb=st.integers(1, 24), slope_s=st.floats(1e-3, 0.05))
def test_services_never_get_shorter_with_the_batch_as_distributions(gpu_gb: int, slope_s: float) -> None:
    latency = SliceLatency(slope_s=slope_s, constant_s=0.01, slice_s=0.002, card_gb=24)
    table = latency.table(resources(gpu_gb), max_batch=12, grain_s=0.001)
    marks_s = np.sort(table.atoms_s.ravel())
    longer = np.array(
        [[(table.weights[0, b] * (table.atoms_s[0, b] > mark + 1e-9)).sum() for mark in marks_s] for b in range(12)]
    )
    assert (np.diff(longer, axis=0) >= -1e-9).all()


def test_a_polynomial_takes_its_coefficients_by_rising_degree() -> None:
    # 1; k, m; k^2, k m, m^2 with k = 3 and m = 2048 MB.
    table = PolynomialLatency((4.0, 2.0, -0.001, 0.5, -0.0001, 1e-7)).table(
        Resources(np.ones(1), np.array([2.0]), np.zeros(1)), max_batch=3, grain_s=1e-9
    )
    by_hand = 4.0 + 2.0 * 3 - 0.001 * 2048 + 0.5 * 9 - 0.0001 * 3 * 2048 + 1e-7 * 2048**2
    assert table.mean_s[0, 2] == pytest.approx(by_hand)


def test_the_fluid_mean_is_harmonybatchs() -> None:
    fluid = SliceLatency(
        slope_s=0.001, constant_s=0.002, slice_s=0.002, card_gb=24, on_gpu=0.43, on_cpu=0.57, fluid=True
    )
    table = fluid.table(resources(3), max_batch=2, grain_s=1.0)
    assert table.mean_s[0, 1] == pytest.approx(8 * 0.43 * 0.004 + 0.57 * 0.004)
    assert table.billed_s[0, 1] == 1.0


def test_cpu_functions_go_by_the_worst_case_and_pay_by_the_mean() -> None:
    latency = ExponentialLatency(mean=((1.0, 0.5, 0.2), (2.0, 0.5, 0.3)), worst=((1.5, 0.5, 0.3), (2.5, 0.5, 0.4)))
    table = latency.table(Resources(np.array([1.0]), np.ones(1), np.zeros(1)), max_batch=2, grain_s=0.1)
    assert table.mean_s[0, 0] == pytest.approx(np.exp(-2) + 0.2)
    assert table.atoms_s[0, :, 0] == pytest.approx(table.worst_s[0])
    assert table.worst_s[0, 0] == pytest.approx(1.5 * np.exp(-2) + 0.3)
    assert table.billed_s[0, 0] == pytest.approx(0.4)


def test_a_spread_is_billed_above_its_mean_and_ends_late() -> None:
    table = TableLatency(((0.1, 0.2),), sigma=0.2).table(
        Resources(np.ones(1), np.ones(1), np.zeros(1)), max_batch=2, grain_s=0.001
    )
    mean_s = 0.1 * np.exp(0.02)
    assert mean_s < table.billed_s[0, 0] < mean_s + 0.001
    assert (table.weights[0, 0] * table.atoms_s[0, 0]).sum() > mean_s
    assert table.atoms_s[0, 0, -1] > table.worst_s[0, 0] > table.atoms_s[0, 0, 4] > 0.1


def plain(*seconds: float) -> ServiceTable:
    return deterministic(np.array([seconds]), grain_s=0.001)


def test_the_path_to_a_function_is_waited_for_and_not_billed() -> None:
    path = FunctionPath(bytes_per_s=1e6, rtt_s=0.02, busy=0.5, item_bytes=1e5)
    table = path.lengthened(plain(0.1, 0.2))
    assert table.worst_s[0] == pytest.approx([0.1 + 0.02 + 0.15, 0.2 + 0.02 + 0.3])
    assert table.billed_s[0] == pytest.approx([0.1, 0.2])


def test_a_round_trip_counts_without_a_bandwidth_and_nothing_passes_an_uplink_of_none() -> None:
    assert FunctionPath(rtt_s=0.02, item_bytes=1e5).takes_s(3) == 0.02
    assert FunctionPath(bytes_per_s=0.0, item_bytes=1e5).takes_s(1) == math.inf
    assert AT_ONCE.lengthened(plain(0.1)).mean_s[0, 0] == 0.1


def test_a_cold_start_splits_the_distribution() -> None:
    table = plain(0.1, 0.2).with_cold_starts(probability=0.25, seconds=2.0)
    assert table.atoms_s[0, 0] == pytest.approx([0.1, 2.1])
    assert table.weights[0, 0] == pytest.approx([0.75, 0.25])
    assert table.mean_s[0, 1] == pytest.approx(0.7)
    assert table.worst_s[0, 1] == pytest.approx(2.2)
    twice = table.with_cold_starts(probability=0.5, seconds=0.5)
    assert twice.atoms_s[0, 0] == pytest.approx([0.1, 0.6, 2.1, 2.6])
    assert twice.weights[0, 0] == pytest.approx([0.375, 0.375, 0.125, 0.125])
    assert plain(0.1).with_cold_starts(probability=0.0, seconds=2.0).atoms_s.shape == (1, 1, 1)
