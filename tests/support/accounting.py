"""What every test that talks to a daemon ends with: each request that arrived has ended once, or waits still."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

LIMIT_S = 10.0
"""Longest that the counts may take to settle: a client hears of its answer before the daemon has counted it."""


def assert_accounted(exposition: Callable[[], str], waiting: Callable[[], int]) -> None:
    """Checks arrived = answered + refused + rejected + cancelled + waiting.

    Args:
        exposition: returns what /metrics says.
        waiting: returns how many requests are held; those whose clients have gone may be among them.
    """
    give_up_s = time.monotonic() + LIMIT_S
    while True:
        text = exposition()
        arrived, ended = _total(text, "edgeburst_arrivals_total"), _total(text, "edgeburst_requests_total")
        if 0 <= arrived - ended <= waiting():
            return
        assert time.monotonic() < give_up_s, f"{arrived} requests arrived, but {ended} ended and {waiting()} wait"
        time.sleep(0.02)


def _total(exposition: str, name: str) -> int:
    return round(sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", exposition, re.MULTILINE)))
