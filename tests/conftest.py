"""What all tests share: hypothesis without deadlines, and that nothing is left behind, not even by a killed run."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from support.hygiene import (
    FaultsLogged,
    FaultsOfChildren,
    Guardian,
    clean_up,
    cores_of_this_process,
    descriptors,
    faults_kept,
    left_after,
    new_descriptors,
    new_threads,
    threads,
)

# Machines that run tests are shared and noisy.
settings.register_profile("edgeburst", deadline=None)
settings.load_profile("edgeburst")

GUARDIAN = pytest.StashKey[Guardian]()
CHILDREN = pytest.StashKey[FaultsOfChildren]()
RUN = "EDGEBURST_TEST_FOLDER"
"""Environment variable that names the folder in which all workers of a run have theirs."""


def pytest_configure(config: pytest.Config) -> None:
    """Starts what ends the processes of this run, those of its workers included, and what is told of their faults."""
    worker = getattr(config, "workerinput", None)
    if worker is None:
        os.environ[RUN] = tempfile.mkdtemp(prefix="edgeburst-tests-")
        if sys.platform == "linux":
            config.stash[GUARDIAN] = Guardian(Path(os.environ[RUN]))
    if worker is not None or not config.getoption("numprocesses", None):
        name = "main" if worker is None else worker["workerid"]
        config.stash[CHILDREN] = FaultsOfChildren(Path(os.environ[RUN]) / name)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails a run after which a process lives, or whose last processes logged a fault as they ended."""
    guardian = session.config.stash.get(GUARDIAN, None)
    survivors = guardian.survivors() if guardian is not None else []
    if survivors:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\nthese processes outlived their tests: {survivors}", file=sys.stderr)
    faults = [] if hasattr(session.config, "workerinput") else faults_kept(Path(os.environ[RUN]))
    if faults:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\nthe program failed in processes that tests started: {faults}", file=sys.stderr)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends what is left."""
    guardian = config.stash.get(GUARDIAN, None)
    if guardian is not None:
        guardian.close()
    if not hasattr(config, "workerinput"):  # beside the guardian, which only Linux has
        shutil.rmtree(os.environ[RUN], ignore_errors=True)


@pytest.fixture(autouse=True)
def nothing_is_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a thread or a descriptor, or in which the program logs a fault of its own.

    So does a process that the test, or what it starts, starts: whatever it logs, and wherever to.

    Fixtures of a module or a session are there before, so that what they hold does not count. A test that provokes a
    fault is marked `provokes_fault`.
    """
    faults, logger = FaultsLogged(), logging.getLogger("edgeburst")
    logger.addHandler(faults)
    before, open_before, cores = threads(), descriptors(), cores_of_this_process()
    try:
        yield
    finally:
        logger.removeHandler(faults)
        clean_up()
    left = left_after(lambda: new_threads(before) + new_descriptors(open_before))
    assert not left, f"threads or descriptors are left: {left}"
    assert cores_of_this_process() == cores, "this process is kept on other cores than before"
    lines = faults.lines + request.config.stash[CHILDREN].take()
    if lines and request.node.get_closest_marker("provokes_fault") is None:
        pytest.fail(f"the program failed: {lines}")
