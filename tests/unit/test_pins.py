"""What passes today passes tomorrow: every release that `make` installs is pinned, and `make test` runs tests alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
CHECKERS = ("ruff", "mypy", "lint-imports")
LINT_PINS = ".ci/constraints.txt"
TEST_PINS = "scripts/requirements/test.txt"
NAMES = ("bentoml", "build", "fuzz", "litserve", "monitoring", "mosec", "peers", "torch")
PIN_FILES = (LINT_PINS, TEST_PINS, *(f"scripts/requirements/{name}.txt" for name in NAMES))


def pins(path: str) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / path).read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


def extra(name: str) -> list[Requirement]:
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = settings["options.extras_require"][name].splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def applies(requirement: Requirement, python: str) -> bool:
    where = {"python_version": python, "python_full_version": f"{python}.1"}
    return requirement.marker is None or requirement.marker.evaluate(where)


def dry_run(target: str) -> list[str]:
    """The commands of a target from a fresh checkout."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    environ = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}}
    command = ["make", "--dry-run", "--always-make", "--no-print-directory", target]
    return subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    ).stdout.splitlines()


@pytest.mark.parametrize("path", PIN_FILES)
def test_every_constraint_is_one_release(path: str) -> None:
    assert [str(pin) for pin in pins(path) if [clause.operator for clause in pin.specifier] != ["=="]] == []
    assert pins(path)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(
    ("path", "extras"),
    [
        (LINT_PINS, ("client", "edge", "function", "plots", "lint")),
        (TEST_PINS, ("client", "edge", "function", "plots", "dev")),
    ],
)
def test_every_package_that_is_asked_for_has_one_pin_on_each_python(
    path: str, extras: tuple[str, ...], python: str
) -> None:
    pinned = [canonicalize_name(pin.name) for pin in pins(path) if applies(pin, python)]
    asked = {"numpy"} | {canonicalize_name(r.name) for name in extras for r in extra(name) if applies(r, python)}
    assert {name: pinned.count(name) for name in asked} == dict.fromkeys(asked, 1)


def test_servers_and_clients_of_others_are_pinned_where_both_suit_each_other() -> None:
    names = [canonicalize_name(pin.name) for pin in pins("scripts/requirements/peers.txt")]
    assert names.count("kserve") == names.count("mlserver") == 1


def test_types_are_checked_against_the_same_releases_on_every_python() -> None:
    names = [pin.name for pin in pins(LINT_PINS)]
    assert sorted(set(names)) == sorted(names)


def test_those_who_run_tests_need_no_checker() -> None:
    checkers = {requirement.name for requirement in extra("lint")}
    assert {"ruff", "mypy", "import-linter"} <= checkers
    assert checkers & {requirement.name for requirement in extra("dev")} == set()


@pytest.mark.parametrize("target", ["test", "unit", "demo", "demo-failures"])
def test_these_targets_run_no_checker(target: str) -> None:
    assert [line for line in dry_run(target) if re.search("|".join(CHECKERS), line)] == []


def test_make_lint_runs_every_checker_from_an_environment_of_its_own() -> None:
    ours = [line for line in dry_run("lint") if re.search(rf"bin/({'|'.join(CHECKERS)})\b", line)]
    assert [line.split()[0] for line in ours] == [
        ".venv-lint/bin/ruff",
        ".venv-lint/bin/ruff",
        ".venv-lint/bin/mypy",
        ".venv-lint/bin/mypy",
        ".venv-lint/bin/lint-imports",
    ]


@pytest.mark.parametrize(
    "target", ["test", "test-slow", "unit", "lint", "demo", "test-peers", "fuzz", "soak", "dashboard"]
)
def test_whatever_make_installs_is_constrained(target: str) -> None:
    installs = [line for line in dry_run(target) if " install " in line]
    assert installs
    # A lock with hashes leaves nothing open, and what comes after it brings nothing but itself.
    fixed = re.compile(" --constraint | --require-hashes | --no-deps ")
    assert [line for line in installs if not fixed.search(line)] == []


def test_the_newest_of_everything_is_tried_without_constraints() -> None:
    installs = [line for line in dry_run("test-latest") if " install " in line]
    assert [line for line in installs if "constraint" in line or " --upgrade " not in line] == []
    assert any("[client,edge,function,torch,plots,dev]" in line for line in installs)


def test_ci_checks_first_and_ends_with_the_whole_suite() -> None:
    commands = [line.strip() for line in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()]
    steps = [step for line in commands if (step := line.removeprefix("report ")).startswith("make ")]
    assert [line.split()[1] for line in steps] == [
        "lint",
        "audit",
        "unit",
        "fuzz-ci",
        "test-peers",
        "test-install",
        "testbed",
        "soak",
        "soak-ci",
        "faults-ci",
        "test-slow",
        "test",
    ]
    assert commands[-1] == "make test"
    assert "for version in 3.10 3.12 3.13; do" in commands


def test_the_minutes_of_ci_are_written_down_and_stay_below_70() -> None:
    text = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(make [\w-]+)`[^|]*\| (\d+) \|$", text, re.MULTILINE)
    steps = [
        "make lint",
        "make audit",
        "make unit",
        "make unit",
        "make unit",
        "make fuzz-ci",
        "make test-peers",
        "make test-install",
        "make testbed",
        "make soak",
        "make soak-ci",
        "make faults-ci",
        "make test-slow",
        "make test",
    ]
    assert [step for step, _ in rows] == steps
    assert sum(int(minutes) for _, minutes in rows) < 70


def test_the_client_host_is_installed_without_what_only_plots_need() -> None:
    locked = (ROOT / "scripts" / "requirements" / "client.txt").read_text(encoding="utf-8")
    names = {canonicalize_name(match) for match in re.findall(r"^([A-Za-z0-9._-]+)==", locked, re.MULTILINE)}
    assert names & {canonicalize_name(requirement.name) for requirement in extra("plots")} == set()
    assert {canonicalize_name(requirement.name) for requirement in extra("client")} <= names
