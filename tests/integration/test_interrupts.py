"""Progress on a real terminal, and Ctrl-C in real processes: nothing stays, and what there is, is shown as partial."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from support.stub_oip_server import StubOipServer

from scripts.support.stub_edge import Behaviour

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0


class OnTerminal:
    """A program with a terminal for its stderr, and a pipe or that terminal for its stdout."""

    def __init__(self, words: Sequence[str], *, stdout_too: bool = False) -> None:
        ours, theirs = pty.openpty()
        self._ours = ours
        self._closed = False
        self.seen = ""
        self.process = subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            stdout=theirs if stdout_too else subprocess.PIPE,
            stderr=theirs,
            text=True,
            # A shell that runs the tests in the background has it ignored, and what it starts inherits that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        os.close(theirs)
        self._reading = threading.Thread(target=self._read, name="terminal")
        self._reading.start()

    def _read(self) -> None:
        while True:
            try:
                some = os.read(self._ours, 4096)
            except OSError:  # the other end is closed
                return
            if not some:
                return
            self.seen += some.decode(errors="replace")

    def until(self, true: Callable[[], bool]) -> None:
        end_s = time.monotonic() + LIMIT_S
        while not true():
            assert self.process.poll() is None, self.seen
            assert time.monotonic() < end_s, self.seen
            time.sleep(0.02)

    def interrupted(self) -> str:
        """What it prints after Ctrl-C; it ends with 130 and leaves no process."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGINT)
        out, _ = self.process.communicate(timeout=LIMIT_S)
        self.close()
        assert self.process.returncode == 130, self.seen
        assert "Traceback" not in self.seen
        assert psutil.wait_procs(children, timeout=LIMIT_S)[1] == []
        return out

    def close(self) -> None:
        """Ends what still runs; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self._reading.join(LIMIT_S)
        os.close(self._ours)


@contextmanager
def on_terminal(*words: str) -> Iterator[OnTerminal]:
    """`edgeburst` with these words."""
    one = OnTerminal(["-m", "scheduler.cli", *words])
    try:
        yield one
    finally:
        one.close()


def test_an_interrupted_simulation_shows_what_had_ended_and_says_that_it_is_partial(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    endless = ("simulate", "--clients", "4", "--duration-s", "1e9")
    with on_terminal(*endless, "--json", "--rows", str(rows)) as one:
        one.until(lambda: "virtual seconds, " in one.seen)
        summary = json.loads(one.interrupted())
    assert next(iter(summary)) == "partial"
    assert summary["partial"].startswith(f"interrupted when {summary['requests']} requests had ended")
    assert summary["requests"] == summary["answered"] + summary["refused"] > 0
    assert 0 < summary["edge_busy"] <= 1
    assert len(rows.read_text().splitlines()) == 1 + summary["requests"]
    # The line of progress is erased.
    assert one.seen.endswith("\r\x1b[2K")


def test_progress_of_a_simulation_counts_up_and_says_what_is_left() -> None:
    known = ("simulate", "--poisson", "120", "--requests", "60000")
    with on_terminal(*known) as one:
        one.until(lambda: one.seen.count(" of 60,000 requests, ") >= 3)
        table = one.interrupted()
    assert table.startswith("partial            interrupted when ")
    assert " of 60000 requests had ended" in table
    counts = [
        int(line.split(" of ")[0].split()[-1].replace(",", "")) for line in one.seen.split("\r") if " of " in line
    ]
    assert counts == sorted(counts)
    assert re.search(r"\d/s, \d+:\d\d left", one.seen)


def test_an_interrupted_profile_shows_what_it_has_measured_and_writes_no_file(tmp_path: Path) -> None:
    out = tmp_path / "edge.json"
    with StubOipServer(Behaviour(alpha_s=0.02)) as server:
        words = ["profile", "edge", "--url", server.url, "--batches", "1,2", "--warm-up", "1", "--repetitions", "10000"]
        with on_terminal(*words, "--out", str(out), "--json") as one:
            one.until(lambda: " batches, " in one.seen and server.stub.counters.batches > 8)
            printed = one.interrupted()
    said = f"interrupted before all calls were made; {out} not written"
    assert not out.exists()
    profile = json.loads(printed)
    assert profile["partial"] == said
    assert [row["batch"] for row in profile["rows"]] == [1, 2]
    assert 2 < profile["rows"][0]["samples"] < 10_000


def test_an_interrupted_profile_without_two_sizes_says_so_and_with_quiet_showed_no_progress() -> None:
    with StubOipServer(Behaviour(alpha_s=0.02)) as server:
        words = ["profile", "edge", "--url", server.url, "--batches", "1,2", "--warm-up", "100000"]
        with on_terminal(*words, "--quiet") as one:
            one.until(lambda: server.stub.counters.batches > 80)
            printed = one.interrupted()
    assert printed == "partial: nothing was timed yet, interrupted before all calls were made\n"
    assert one.seen == ""


def test_an_interrupted_replay_shows_its_rate_before_and_its_table_after() -> None:
    with StubOipServer() as server:
        words = ["replay", "--url", server.url, "--pattern", "poisson", "--rps", "40", "--duration-s", "300"]
        with on_terminal(*words) as one:
            one.until(lambda: "/s, 0:0" in one.seen and " left, " in one.seen and server.stub.counters.batches > 5)
            printed = one.interrupted()
    assert "PARTIAL, it was interrupted: " in " ".join(printed.split())


_ROWS = """
import time
from scheduler.terminal import counted, progress
with progress("the whole"):
    for row in counted(range(3), "rows", "rows"):
        time.sleep(1.2 if row == 0 else 0.3)
        print("row", row)
"""


def test_rows_that_are_printed_beside_progress_begin_on_an_erased_line() -> None:
    one = OnTerminal(["-c", _ROWS], stdout_too=True)
    try:
        one.process.wait(LIMIT_S)
    finally:
        one.close()
    # As a terminal shows it: an erased line is gone.
    lines = [line.rpartition("\x1b[2K")[2].strip("\r") for line in one.seen.split("\n")]
    assert [line for line in lines if line] == ["row 0", "row 1", "row 2"], one.seen
    assert "rows  " in one.seen
    assert " of 3 rows, " in one.seen


def test_an_interrupted_script_ends_with_130_and_without_a_traceback() -> None:
    one = OnTerminal(["-m", "scripts.growth"])
    try:
        one.until(lambda: "growing  " in one.seen)
        assert one.interrupted().startswith("| grows |")
    finally:
        one.close()
