"""The daemon's estimate of a real, shaped uplink is the shaper's under every load, whatever becomes of the batches."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support.shaped_link import missing
from testbed.runs import OUTCOMES, Outcome, Run, perform

from scheduler.simulator.network import Bandwidth, read_log

pytestmark = pytest.mark.timeout(900)

TRACES = os.environ.get("EDGEBURST_TRACES")
AT_ONE_TIME = 3
"""Runs beside each other: each sleeps most of the time, and all have namespaces of their own."""
MBIT = 1e6 / 8
LTE_PART = 0.25
"""Of the bandwidth of the logs: 36 Mbit/s of small pictures would measure this machine's processor."""
LTE_S = 60
CONSTANT = [
    Run(f"{mbits} Mbit/s", ((0.0, mbits * MBIT),), load, seconds=30.0 if load < 1.0 else 60.0)
    for mbits in (2, 8, 20)
    for load in (0.3, 0.9, 2.0)
]
LATE = Run("8 Mbit/s, served late", ((0.0, 8 * MBIT),), 1.5, late="serve")
STEPS = Run("8, 3, 8 Mbit/s", ((0.0, 8 * MBIT), (20.0, 3 * MBIT), (40.0, 8 * MBIT)), 1.5)


def lte_logs() -> dict[str, Bandwidth]:
    """Two logs of mobile links; without the traces, two that are drawn to look like them."""
    if TRACES:
        folder = Path(TRACES) / "bandwidth"
        return {name: read_log(folder / f"{name}.log") for name in ("lte-car-0002", "lte-car-0005")}
    drawn = {}
    for seed in (1, 2):
        steps = np.random.default_rng(seed).normal(0.0, 0.25, LTE_S).cumsum()
        rates = 3.8e6 * np.exp(np.clip(steps - steps.mean(), -1.5, 1.0))
        drawn[f"drawn-{seed}"] = Bandwidth(tuple(map(float, range(LTE_S))), tuple(rates.tolist()), float(LTE_S))
    return drawn


LTE = [
    Run(
        f"{name} / {1 / LTE_PART:.0f}",
        tuple((float(s), max(1.0, LTE_PART * log.rate_at(s))) for s in range(LTE_S)),
        1.5,
    )
    for name, log in lte_logs().items()
]
RUNS = [STEPS, LATE, *LTE, *sorted(CONSTANT, key=lambda run: -run.seconds)]
"""The longest first."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[Run, Outcome]:
    """All runs, several at a time."""
    if reason := missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("testbed")
    with ThreadPoolExecutor(AT_ONE_TIME) as pool:
        done = list(pool.map(lambda n: perform(RUNS[n], folder / str(n), n), range(len(RUNS))))
    request.config.stash[OUTCOMES] = done
    return dict(zip(RUNS, done, strict=True))


@pytest.mark.parametrize("run", [*CONSTANT, LATE, STEPS], ids=str)
def test_the_estimate_of_an_uplink_is_within_15_percent_of_its_shaper(outcomes: dict[Run, Outcome], run: Run) -> None:
    assert outcomes[run].median_error <= 0.15


@pytest.mark.parametrize("run", LTE, ids=str)
def test_a_mobile_link_that_changes_each_second_is_followed(outcomes: dict[Run, Outcome], run: Run) -> None:
    assert outcomes[run].median_error <= 0.25


def test_a_link_under_load_is_used(outcomes: dict[Run, Outcome]) -> None:
    late = outcomes[LATE]
    assert late.answered_bytes_per_s >= 0.7 * LATE.mean_bytes_per_s
