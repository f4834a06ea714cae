"""What services are installed from is locked: one release each, with hashes, and the one that the tests ran with."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.audit import SERVICES, told

ROOT = Path(__file__).parents[2]
EXTRAS = {
    "client": ("client", "grpc", "otel"),
    "edge": ("edge",),
    "function": ("function", "onnx"),
    "ray": ("edge", "opencv", "onnx", "ray"),
}
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def entries(service: str) -> list[tuple[Requirement, int]]:
    """The requirements of a lock, each with the number of its hashes."""
    text = (ROOT / "scripts" / "requirements" / f"{service}.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(Requirement(line.partition(" --hash")[0].strip()), len(_HASH.findall(line))) for line in lines]


def ran_with() -> dict[str, set[str]]:
    """By name: the pinned releases that the tests ran with."""
    text = (ROOT / "scripts" / "requirements" / "test.txt").read_text(encoding="utf-8")
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            found.setdefault(canonicalize_name(requirement.name), set()).add(str(requirement.specifier))
    return found


def applies(requirement: Requirement, python: str) -> bool:
    where = {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": "linux"}
    return requirement.marker is None or requirement.marker.evaluate(where)


def asked(service: str) -> list[Requirement]:
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    wanted = [settings["options"]["install_requires"]]
    wanted += [settings["options.extras_require"][extra] for extra in EXTRAS[service]]
    lines = [line.strip() for text in wanted for line in text.splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("service", SERVICES)
def test_each_package_is_one_release_with_hashes(service: str) -> None:
    found = entries(service)
    assert found
    for requirement, hashes in found:
        assert [clause.operator for clause in requirement.specifier] == ["=="], requirement
        assert hashes > 0, requirement


@pytest.mark.parametrize("service", SERVICES)
def test_it_is_the_release_that_the_tests_ran_with(service: str) -> None:
    pins = ran_with()
    other = [requirement for requirement, _ in entries(service)]
    if service == "ray":
        # What Ray brings is nowhere else: `make test-peers` runs with this lock.
        other = [requirement for requirement in other if canonicalize_name(requirement.name) in pins]
        assert other
    assert [
        str(requirement)
        for requirement in other
        if str(requirement.specifier) not in pins[canonicalize_name(requirement.name)]
    ] == []


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("service", SERVICES)
def test_all_that_the_service_asks_for_is_there_once_and_fits(service: str, python: str) -> None:
    locked: dict[str, list[Requirement]] = {}
    for requirement, _ in entries(service):
        if applies(requirement, python):
            locked.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    for requirement in asked(service):
        name = canonicalize_name(requirement.name)
        if not applies(requirement, python) or (service, name) == ("edge", "numpy"):
            continue
        assert len(locked.get(name, [])) == 1, f"{name} on {python}; run `make locked`"
        [clause] = locked[name][0].specifier
        assert requirement.specifier.contains(clause.version), requirement


def test_a_board_keeps_its_own_numpy() -> None:
    assert "numpy" not in [requirement.name for requirement, _ in entries("edge")]


@pytest.mark.parametrize(
    ("report", "status", "words"),
    [
        (None, 0, "is skipped: the advisories cannot be reached (no route)"),
        ({"dependencies": [{"name": "a", "skip_reason": "not found"}]}, 0, "is skipped: the advisories"),
        ({"dependencies": [{"name": "a", "version": "1", "vulns": []}]}, 0, "1 packages without known"),
        (
            {"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}]},
            1,
            "a 1 has CVE-1; mended in 2",
        ),
    ],
)
def test_an_audit_fails_for_what_is_known_and_says_when_it_cannot_ask(
    report: dict[str, Any] | None, status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told("edge", report, "no route" if report is None else "") == status
    assert words in capsys.readouterr().out
