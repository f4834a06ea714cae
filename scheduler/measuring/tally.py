"""The progress of a replay: one line with a bar, on stderr."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
from rich.columns import Columns
from rich.progress import Progress, ProgressColumn, Task, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.text import Text

from scheduler.measuring.replay import ReplayedRequest
from scheduler.terminal import progress_console, shows_progress

_RECENT = 1000


class Tally:
    """Counts of sent and ended requests; `words` describes them."""

    def __init__(self) -> None:
        """Starts with zero counts."""
        self.sent = 0
        self._ended = 0
        self._within = 0
        self._failed = 0
        self._recent_s: deque[float] = deque(maxlen=_RECENT)

    def on_sent(self, sent: int) -> None:
        """Sets how many requests have been sent."""
        self.sent = sent

    def on_answer(self, request: ReplayedRequest) -> None:
        """Counts a request that has ended."""
        self._ended += 1
        self._within += request.within_slo
        self._failed += not request.answered
        if request.answered:
            self._recent_s.append(request.latency_s)

    def words(self) -> str:
        """Returns the counts as one line."""
        parts = [f"{self.sent} sent, {self.sent - self._ended} waiting"]
        if self._ended:
            parts.append(f"{self._within / self._ended:.1%} within SLO")
        if self._recent_s:
            parts.append(f"recent p95 {float(np.quantile(list(self._recent_s), 0.95)) * 1e3:.0f} ms")
        if self._failed:
            parts.append(f"{self._failed} failed")
        return ", ".join(parts)


class _Line(ProgressColumn):
    """The bar and the counts, read from the tally when the line is drawn, so that sending a request draws nothing."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self._tally = tally

    def render(self, task: Task) -> Columns:
        sent, total, elapsed_s = self._tally.sent, task.total or 0.0, task.elapsed or 0.0
        bar = ProgressBar(total=task.total, completed=sent, width=20)
        pace = ""
        if sent and elapsed_s:
            left_s = (total - sent) * elapsed_s / sent
            pace = f"{sent / elapsed_s:.1f}/s, {timedelta(seconds=round(left_s))} left, "
        return Columns([bar, Text(pace + self._tally.words())])


@contextmanager
def tally_progress(tally: Tally, requests: int) -> Iterator[None]:
    """Shows the tally on stderr until the end of the block, if stderr is a terminal.

    Args:
        tally: the counts to show.
        requests: number of requests of the replay.
    """
    console = progress_console()
    shown = shows_progress()
    columns = (TimeElapsedColumn(), _Line(tally))
    # A thread redraws the line; a higher rate would delay the client's sends.
    with Progress(*columns, console=console, refresh_per_second=4, disable=not shown) as bar:
        bar.add_task("replay", total=requests)
        yield
