"""The testbed runs with `make testbed` only, as root; at the end it prints its table."""

import os

import pytest
from testbed.runs import OUTCOMES, table

TESTBED = "EDGEBURST_TESTBED"
"""Set by `make testbed`."""

collect_ignore_glob = [] if TESTBED in os.environ else ["*"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints what was measured."""
    outcomes = config.stash.get(OUTCOMES, [])
    if outcomes:
        terminalreporter.section("estimates of the uplink beside the shaper")
        terminalreporter.write_line(table(outcomes))
