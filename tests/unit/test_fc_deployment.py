"""The deployment file keeps within the provider's limits, and its images run what the Dockerfile installs."""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import Any

import pytest

from serverless_fn.local_fc.function_spec import read_spec

yaml = pytest.importorskip("yaml", reason="PyYAML (extra 'dev') reads s.yaml")
ROOT = Path(__file__).parents[2]
DEPLOYMENT = yaml.safe_load((ROOT / "serverless_fn" / "s.yaml").read_text(encoding="utf-8"))
TIERS = sorted(DEPLOYMENT["resources"])


def props(tier: str) -> dict[str, Any]:
    found: dict[str, Any] = DEPLOYMENT["resources"][tier]["props"]
    return found


def test_there_is_a_cpu_and_a_gpu_tier() -> None:
    assert sorted("gpuConfig" in props(tier) for tier in TIERS) == [False, True]


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_is_a_function_that_the_provider_would_take(tier: str) -> None:
    spec = read_spec(props(tier))
    assert spec.concurrency == 1, "one batch an instance"
    assert spec.initializer is not None
    assert spec.health is not None
    assert spec.health.path == "/healthz"
    assert DEPLOYMENT["resources"][tier]["component"] == "fc3"


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_spends_no_more_than_its_ceiling_and_nothing_while_idle(tier: str) -> None:
    assert 0 < props(tier)["concurrencyConfig"]["reservedConcurrency"] <= 100
    assert props(tier)["provisionConfig"]["defaultTarget"] == 0
    assert "role" not in props(tier)


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_runs_the_program_that_its_image_installs(tier: str) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    programs = [line.split("=")[0].strip() for line in setup["options.entry_points"]["console_scripts"].splitlines()]
    (program,) = props(tier)["customContainerConfig"]["command"]
    assert program in programs
    assert f'CMD ["{program}"]' in (ROOT / "serverless_fn" / "Dockerfile").read_text(encoding="utf-8")
