"""What a person sees of a command beside its result: progress and notes on stderr; with --quiet nothing of it."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, cast

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

_quiet = [False]
_shown: list[Progress] = []
"""What is shown now, the innermost last."""
_FIRST_S = 1.0
"""What is over sooner shows no progress."""
_EVERY_S = 0.25
_BAR_CELLS = 20
_ERASE = "\r\x1b[2K"


def be_quiet(quiet: bool) -> None:
    """Says whether commands write no progress and no notes from now on."""
    _quiet[0] = quiet


def progress_console() -> Console:
    """Returns a console on stderr for progress, which writes nothing with --quiet."""
    # Imported here: a command without progress needs no rich.
    from rich.console import Console

    return Console(stderr=True, highlight=False, quiet=_quiet[0])


def note(sentence: str) -> None:
    """Writes a note to stderr, unless there is to be none."""
    if not _quiet[0]:
        print(f"edgeburst: {sentence}", file=sys.stderr)


class Progress:
    """How far a piece of work is; `progress` shows it. Any thread may advance it, and that draws nothing.

    Args:
        what: what is done.
        total: how many units there are; None if that is not known.
        unit: word for them.
    """

    def __init__(self, what: str, total: float | None = None, unit: str = "") -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done = 0.0
        self._lock = threading.Lock()
        self._drawn = False

    def advance(self, units: float = 1.0) -> None:
        """Counts units that are done."""
        with self._lock:
            self._done += units

    def reach(self, units: float) -> None:
        """Sets how many units are done."""
        self._done = units

    def say(self, what: str) -> None:
        """Sets what is done now."""
        self._what = what

    def words(self, elapsed_s: float, width: int = 120) -> str:
        """Returns the line after so many seconds: count, rate and remaining time, where these are known.

        Where it is wider than so many characters, it is without its bar.

        >>> work = Progress("simulate", 2000, "requests")
        >>> work.advance(500)
        >>> work.words(10.0)
        'simulate  ━━━━━╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌  500 of 2,000 requests, 50/s, 0:30 left'
        >>> Progress("planning").words(75.0)
        'planning  1:15'
        """
        done, unit = self._done, f" {self._unit}" if self._unit else ""
        if self._total is None and not done:
            return f"{self._what}  {_clock(elapsed_s)}"
        rate = done / elapsed_s if elapsed_s > 0 else 0.0
        speed = f"{rate:,.0f}/s" if rate >= 10 or not rate else f"{rate:.2g}/s"
        if not self._total:
            return f"{self._what}  {done:,.0f}{unit}, {speed}"
        share = min(1.0, done / self._total)
        full = round(_BAR_CELLS * share)
        left = f", {_clock((self._total - done) / rate)} left" if rate > 0 and share < 1 else ""
        counts = f"{done:,.0f} of {self._total:,.0f}{unit}, {speed}{left}"
        line = f"{self._what}  {'━' * full + '╌' * (_BAR_CELLS - full)}  {counts}"
        return line if len(line) <= width else f"{self._what}  {counts}"[:width]

    def erase(self) -> None:
        """Takes the line from the screen, until it is drawn again."""
        with self._lock:
            self._erase()

    def print_beside(self, text: str, stdout: TextIO) -> None:
        """Writes to stdout, which is the same terminal, where the line was."""
        with self._lock:
            self._erase()
            stdout.write(text)
            stdout.flush()

    def _erase(self) -> None:
        if self._drawn:
            _write(_ERASE)
            self._drawn = False

    def _draw(self, elapsed_s: float) -> None:
        # One less: some terminals begin a new line after the last column.
        width = max(1, shutil.get_terminal_size().columns - 1)
        with self._lock:
            _write(_ERASE + self.words(elapsed_s, width))
            self._drawn = True

    def _follow(self, ended: threading.Event) -> None:
        began_s = time.monotonic()
        if ended.wait(_FIRST_S):
            return
        while True:
            # One line: what is done within something else is shown instead of it.
            if _shown[-1] is self:
                self._draw(time.monotonic() - began_s)
            else:
                self.erase()
            if ended.wait(_EVERY_S):
                return


class _Beside:
    """Stdout on the terminal on which progress is shown, whose line is erased before anything is written.

    `print` writes piece by piece, and progress may be drawn between two: what is no whole line yet is kept back.
    """

    def __init__(self, stdout: TextIO, work: Progress) -> None:
        self._stdout, self._work, self._kept = stdout, work, ""

    def write(self, text: str) -> int:
        whole, newline, self._kept = (self._kept + text).rpartition("\n")
        if newline:
            self._work.print_beside(whole + newline, self._stdout)
        return len(text)

    def flush(self) -> None:
        text, self._kept = self._kept, ""
        if text:
            self._work.print_beside(text, self._stdout)
        self._stdout.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stdout, name)


def _write(text: str) -> None:
    try:
        sys.stderr.write(text)
    except UnicodeEncodeError:
        # A terminal without these signs gets the same in others.
        sys.stderr.write(text.replace("━", "#").replace("╌", "-").encode("ascii", "replace").decode())
    sys.stderr.flush()


def _clock(seconds: float) -> str:
    minutes, left = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{left:02}" if minutes >= 60 else f"{minutes}:{left:02}"


def shows_progress() -> bool:
    """Returns whether progress is seen: stderr is a terminal that can erase a line, and --quiet is not given."""
    return not _quiet[0] and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def progress(what: str, total: float | None = None, unit: str = "", *, shown: bool = True) -> Iterator[Progress]:
    """Shows a line of progress on a terminal until the end of the block, if that takes more than a second.

    Args:
        what: what is done.
        total: how many units there are; None if that is not known.
        unit: word for them.
        shown: whether to show it at all.
    """
    work = Progress(what, total, unit)
    if not shown or not shows_progress():
        yield work
        return
    ended = threading.Event()
    _shown.append(work)
    # A thread draws: work that is long in one step is seen to go on, and counting costs nothing.
    drawing = threading.Thread(target=work._follow, args=(ended,), name="progress", daemon=True)  # noqa: SLF001
    drawing.start()
    beside = cast("TextIO", _Beside(sys.stdout, work)) if sys.stdout.isatty() else None
    try:
        with redirect_stdout(beside) if beside else nullcontext():
            yield work
    finally:
        ended.set()
        drawing.join()
        if beside:
            beside.flush()
        work.erase()
        _shown.remove(work)


def counted(items: Collection[T], what: str, unit: str = "") -> Iterator[T]:
    """Yields items while it shows how many of them are done.

    >>> list(counted([3, 4], "cases"))
    [3, 4]
    """
    with progress(what, len(items), unit) as work:
        for item in items:
            yield item
            work.advance()


@contextmanager
def first_interrupt() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether Ctrl-C has been pressed in the block; a second one raises as ever.

    What looks at it ends where its state is whole, so that it can show what there is.
    """
    pressed = threading.Event()

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        pressed.set()

    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return
    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
