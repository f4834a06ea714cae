"""The test of the installer runs with `make test-install` only, as root; at the end it prints what was typed."""

import os

import pytest
from install.fresh_root import TYPED

INSTALL = "EDGEBURST_INSTALL"
"""Set by `make test-install`."""

collect_ignore_glob = [] if INSTALL in os.environ else ["*"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the commands from a fresh root to a watched request."""
    typed = config.stash.get(TYPED, [])
    if typed:
        terminalreporter.section(f"{len(typed)} commands from a fresh Debian root to a watched request")
        for number, command in enumerate(typed, start=1):
            terminalreporter.write_line(f"{number}. {command}")
