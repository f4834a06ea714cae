"""The extra `edge` asks for nothing that a board brings itself, and constraints keep what JetPack's builds need."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
BROUGHT = ("numpy", "torch", "torchvision", "opencv-python", "opencv-python-headless", "onnxruntime")
NUMPY_OF = {"6": "1.21.5", "7": "1.26.4"}
"""By JetPack: numpy of Ubuntu 22.04 and 24.04, which it is made of."""


def requirements(text: str) -> dict[str, Requirement]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return {requirement.name: requirement for requirement in map(Requirement, filter(None, lines))}


def settings() -> ConfigParser:
    found = ConfigParser()
    found.read(ROOT / "setup.cfg", encoding="utf-8")
    return found


def test_the_edge_asks_for_nothing_that_a_board_brings() -> None:
    assert set(requirements(settings()["options.extras_require"]["edge"])) & set(BROUGHT) == set()
    base = requirements(settings()["options"]["install_requires"])
    assert set(base) & set(BROUGHT) == {"numpy"}
    for version in NUMPY_OF.values():
        assert base["numpy"].specifier.contains(version)


@pytest.mark.parametrize("jetpack", sorted(NUMPY_OF))
def test_the_constraints_of_a_jetpack_allow_its_numpy_and_no_other_that_breaks_its_builds(jetpack: str) -> None:
    text = (ROOT / "scripts" / "requirements" / f"jetpack-{jetpack}.txt").read_text(encoding="utf-8")
    found = requirements(text)
    assert found["numpy"].specifier.contains(NUMPY_OF[jetpack])
    assert not found["numpy"].specifier.contains("2.0.0")
    # The first of these that asks for numpy 2.
    assert not found["opencv-python-headless"].specifier.contains("4.12.0.88")
    assert found["opencv-python-headless"].specifier.contains("4.11.0.86")
