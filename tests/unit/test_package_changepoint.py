"""Changes found by the densities of bayesian-changepoint-detection: as soon as by ours, and only where asked for."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from support.engine_kit import settings

from scheduler.domain.errors import EdgeburstError
from scheduler.estimates import Estimates
from scheduler.estimators.bandwidth import Bandwidth
from scheduler.estimators.changepoint import Change, Detector
from scheduler.estimators.package_changepoint import MODULE, anscombe, package_detectors
from scripts.changepoint_figures import kinds_of_detectors, step_figures, step_kinds


def changes(detector: Detector, values: list[float]) -> list[Change]:
    return [change for value in values if (change := detector.update(value)) is not None]


@pytest.mark.parametrize("rate", [4.0, 12.0, 50.0, 500.0])
def test_a_transformed_poisson_count_has_a_variance_of_one(rate: float) -> None:
    counts = np.random.default_rng(3).poisson(rate, 20_000).tolist()
    assert np.var([anscombe(count) for count in counts]) == pytest.approx(1.0, abs=0.06)


def test_a_step_of_counts_is_found_soon_and_told_in_counts() -> None:
    counts = np.random.default_rng(7).poisson(np.repeat([12.0, 18.0], 200)).tolist()
    [change] = changes(package_detectors().counts(), counts)
    assert 200 <= change.index <= 215
    assert abs(change.index - change.run_length - 199) <= 5
    assert (change.before_mean, change.after_mean) == (pytest.approx(12.0, abs=0.8), pytest.approx(18.0, abs=5.0))


@pytest.mark.parametrize("rate", [0.0, 2.5, 50.0])
def test_steady_counts_are_no_change(rate: float) -> None:
    assert changes(package_detectors().counts(), np.random.default_rng(2).poisson(rate, 1500).tolist()) == []


def test_an_idle_host_that_wakes_is_a_change() -> None:
    counts = [0.0] * 200 + np.random.default_rng(4).poisson(50.0, 20).tolist()
    assert len(changes(package_detectors().counts(), counts)) == 1


def test_every_kind_of_step_is_found_as_soon_as_by_our_densities() -> None:
    """Within three observations at the median: both run behind the same recursion, with the same hazard."""
    kinds = kinds_of_detectors()
    assert list(kinds) == ["native", "package"]
    for number in (2, 9, 11):  # rate 46 x 1.5, bandwidth / 2 with noise 0.3, service x 1.5 with noise 0.25
        (native, _, found, _), (package, _, found_too, _) = (
            step_figures(step_kinds(detectors)[number], 8) for detectors in kinds.values()
        )
        assert abs(package - native) <= 3
        assert found == found_too == 1.0


def test_a_level_falls_and_the_bandwidth_is_measured_afresh() -> None:
    bandwidth = Bandwidth(package_detectors())
    bandwidth.watch()
    found = [
        bandwidth.update(sent_at_s=float(i), upload_end_s=i + 1e5 / speed, sent_bytes=100_000)
        for i, speed in enumerate([1e6] * 40 + [5e5] * 12)
    ]
    assert len([change for change in found if change]) == 1
    assert bandwidth.bytes_per_s == pytest.approx(5e5)


def test_the_setting_chooses_the_densities_of_every_estimator() -> None:
    ours, theirs = (
        Estimates(replace(settings(), changepoint_package=package)).models["m"].rate_changes
        for package in (False, True)
    )
    assert ours._transform is None
    assert theirs._transform is anscombe


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, MODULE, None)
    with pytest.raises(EdgeburstError, match=r"needs the Python package .* '\.\[client,bcd\]'"):
        package_detectors()
    assert list(kinds_of_detectors()) == ["native"]


def test_the_package_is_imported_only_when_it_is_asked_for() -> None:
    heavy = "{'bayesian_changepoint_detection', 'scipy', 'torch'}"
    code = (
        f"import sys, scheduler.daemon.assembly, scheduler.simulator.command; print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
