"""Profiles: written and read back whole, impossible ones refused by the field's name, fits against scipy."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from models.latency_fit import fit_latency
from models.profile import Profile, ProfileError, ProfileRow, load_profile, save_profile, shipped_profiles

ROW = ProfileRow(batch=1, p50_s=0.05, p95_s=0.06, items_per_s=20.0, samples=30, p99_s=0.07)
PROFILE = Profile(
    name="bench",
    backend="edge",
    model="digits",
    device="a test",
    source="this test",
    date="2024-05-01",
    note="",
    rows=(ROW, replace(ROW, batch=4, p99_s=None)),
    alpha_s=0.04,
    beta_s=0.01,
    alpha_stderr_s=0.001,
    beta_stderr_s=None,
    max_batch=4,
    environment={"power_mode": "MAXN"},
)


def rows_of(medians_s: dict[int, float]) -> list[ProfileRow]:
    return [ProfileRow(batch, median_s, median_s, 0.0, 1) for batch, median_s in medians_s.items()]


def damaged(tmp_path: Path, damage: Callable[[dict[str, Any]], object]) -> Path:
    path = tmp_path / "damaged.json"
    save_profile(PROFILE, path)
    document = json.loads(path.read_text())
    damage(document)
    path.write_text(json.dumps(document))
    return path


def test_the_shipped_profiles_hold_the_published_laws_with_source_and_date() -> None:
    orin, function = load_profile("orin-resnet50"), load_profile("fc-resnet50-1gb")

    assert shipped_profiles() == ("fc-resnet50-1gb", "orin-resnet50")
    assert (orin.backend, orin.alpha_s, orin.beta_s, orin.max_batch) == ("edge", 0.04234, 0.008165, 64)
    assert (function.backend, function.alpha_s, function.beta_s, function.max_batch) == ("function", 0.216, 0.141, 5)
    assert "below batches of 8" in orin.note
    assert all(profile.source and profile.date for profile in (orin, function))
    assert orin.predict_s(10) == pytest.approx(0.12399)


def test_a_saved_profile_is_read_back_equal_and_nothing_else_is_left_behind(tmp_path: Path) -> None:
    save_profile(PROFILE, tmp_path / "mine.json")

    assert load_profile(tmp_path / "mine.json") == PROFILE
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]


def test_a_profile_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot be written"):
        save_profile(PROFILE, tmp_path / "nowhere" / "mine.json")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d.update(alpha_s=-0.1), "field alpha_s is -0.1"),
        (lambda d: d.update(beta_s=-1e-9), "field beta_s is -1e-09"),
        (lambda d: d.update(alpha_stderr_s=-1), "field alpha_stderr_s is -1"),
        (lambda d: d.update(alpha_s="fast"), "field alpha_s is 'fast'; it must be a number"),
        (lambda d: d.update(alpha_s=True), "field alpha_s is True; it must be a number"),
        (lambda d: d.update(max_batch=0), "field max_batch is 0; it must be at least 1"),
        (lambda d: d.update(max_batch=2.5), "field max_batch is 2.5; it must be a whole number"),
        (lambda d: d.update(backend="moon"), "field backend is 'moon'"),
        (lambda d: d.update(date="yesterday"), "field date is 'yesterday'"),
        (lambda d: d.update(source=""), "field source must be a text"),
        (lambda d: d.update(environment={"clock": 3}), "field environment must be an object of texts"),
        (lambda d: d.update(rows={}), "field rows must be a list"),
        (lambda d: d.update(rows=[7]), r"rows\[0\]: the row must be a JSON object"),
        (lambda d: d.update(alpha=1), "key 'alpha' is not known; did you mean 'alpha_s'"),
        (lambda d: d.pop("source"), "key source is missing"),
        (lambda d: d["rows"][1].update(p50_s=-0.05), r"rows\[1\]: field p50_s is -0.05"),
        (lambda d: d["rows"][1].update(p95_s=0.01), r"rows\[1\]: field p95_s is 0.01 and below p50_s"),
        (lambda d: d["rows"][0].update(p99_s=0.01), r"rows\[0\]: field p99_s is 0.01 and below p95_s"),
        (lambda d: d["rows"][0].update(batch=0), r"rows\[0\]: field batch is 0"),
        (lambda d: d["rows"][0].update(samples=0), r"rows\[0\]: field samples is 0"),
        (lambda d: d["rows"][0].pop("items_per_s"), r"rows\[0\]: key items_per_s is missing"),
        (lambda d: d["rows"].reverse(), r"field rows has the batch sizes \[4, 1\]"),
    ],
)
def test_an_impossible_profile_is_refused_in_one_line_with_file_and_field(
    tmp_path: Path, damage: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = damaged(tmp_path, damage)

    with pytest.raises(ProfileError, match=message) as refused:
        load_profile(path)

    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "this is not JSON"),
        (b"alpha = 1", "this is not JSON"),
        (b"\xff\xfe", "this is not JSON"),
        (b"[" * 100_000, "this is not JSON"),
        (b'{"alpha_s": NaN}', "NaN is not a number of JSON"),
        (b'{"alpha_s": ' + b"1" * 5000 + b"}", "this is not JSON"),
        (b"[]", "the profile must be a JSON object"),
        (b" " * 1_000_001, "over 1000000 bytes"),
    ],
)
def test_a_file_that_is_no_json_object_is_refused_with_its_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "odd.json"
    path.write_bytes(content)

    with pytest.raises(ProfileError, match=message) as refused:
        load_profile(path)

    assert str(path) in str(refused.value)


def test_a_number_too_large_for_a_float_is_refused(tmp_path: Path) -> None:
    path = damaged(tmp_path, lambda d: d.update(alpha_s=10**400))

    with pytest.raises(ProfileError, match="field alpha_s"):
        load_profile(path)


def test_a_name_that_is_neither_shipped_nor_a_file_gets_the_nearest() -> None:
    with pytest.raises(ProfileError, match="there is no profile or file 'orin-resnet': did you mean 'orin-resnet50'"):
        load_profile("orin-resnet")


@given(
    st.dictionaries(st.integers(1, 128), st.floats(0, 10), min_size=3, max_size=12),
)
def test_the_law_is_the_best_non_negative_line(medians_s: dict[int, float]) -> None:
    rows = rows_of(medians_s)
    design = np.array([[1.0, row.batch] for row in rows])
    medians = np.array([row.p50_s for row in rows])

    fit = fit_latency(rows)
    _, least = optimize.nnls(design, medians)

    assert fit.alpha_s >= 0
    assert fit.beta_s >= 0
    assert np.linalg.norm(design @ [fit.alpha_s, fit.beta_s] - medians) == pytest.approx(least, abs=1e-9)


@given(
    st.lists(st.floats(-0.01, 0.01), min_size=3, max_size=10),
)
def test_where_the_line_is_positive_law_and_errors_are_those_of_linear_regression(noise_s: list[float]) -> None:
    medians_s = {batch: 0.5 + 0.1 * batch + wobble for batch, wobble in enumerate(noise_s, start=1)}

    fit = fit_latency(rows_of(medians_s))
    oracle = stats.linregress(list(medians_s), list(medians_s.values()))

    assert fit.alpha_s == pytest.approx(oracle.intercept)
    assert fit.beta_s == pytest.approx(oracle.slope)
    assert fit.alpha_stderr_s == pytest.approx(oracle.intercept_stderr, abs=1e-8)
    assert fit.beta_stderr_s == pytest.approx(oracle.stderr, abs=1e-8)


def test_two_rows_fix_the_law_and_leave_its_error_unknown() -> None:
    fit = fit_latency(rows_of({1: 0.05, 5: 0.09}))

    assert fit.alpha_s == pytest.approx(0.04)
    assert fit.beta_s == pytest.approx(0.01)
    assert fit.alpha_stderr_s is None


@pytest.mark.parametrize("medians_s", [{}, {4: 0.1}])
def test_one_batch_size_makes_no_law(medians_s: dict[int, float]) -> None:
    with pytest.raises(ProfileError, match="at least two batch sizes"):
        fit_latency(rows_of(medians_s))
