"""What all tests share: hypothesis without deadlines, and that nothing is left behind, not even by a killed run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings
from support.hygiene import (
    FaultsLogged,
    Guardian,
    clean_up,
    descriptors,
    left_after,
    new_descriptors,
    new_threads,
    threads,
)

# Machines that run tests are shared and noisy.
settings.register_profile("edgeburst", deadline=None)
settings.load_profile("edgeburst")

GUARDIAN = pytest.StashKey[Guardian]()


def pytest_configure(config: pytest.Config) -> None:
    """Starts what ends the processes of this run, those of its workers included."""
    if sys.platform == "linux" and not hasattr(config, "workerinput"):
        config.stash[GUARDIAN] = Guardian()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails a run after which a process lives."""
    guardian = session.config.stash.get(GUARDIAN, None)
    survivors = guardian.survivors() if guardian is not None else []
    if survivors:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\nthese processes outlived their tests: {survivors}", file=sys.stderr)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends what is left."""
    guardian = config.stash.get(GUARDIAN, None)
    if guardian is not None:
        guardian.close()


@pytest.fixture(autouse=True)
def nothing_is_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a thread or a descriptor, or in which the program logs a fault of its own.

    Fixtures of a module or a session are there before, so that what they hold does not count. A test that provokes a
    fault is marked `provokes_fault`.
    """
    faults, logger = FaultsLogged(), logging.getLogger("edgeburst")
    logger.addHandler(faults)
    before, open_before = threads(), descriptors()
    try:
        yield
    finally:
        logger.removeHandler(faults)
        clean_up()
    left = left_after(lambda: new_threads(before) + new_descriptors(open_before))
    assert not left, f"threads or descriptors are left: {left}"
    if faults.lines and request.node.get_closest_marker("provokes_fault") is None:
        pytest.fail(f"the program failed: {faults.lines}")
