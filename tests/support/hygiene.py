"""What a test may leave behind: nothing. Threads, descriptors, faults of the program in its log, and processes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from support import child_faults
from support.child_faults import fault

MARK = "EDGEBURST_TEST_RUN"
"""Environment variable that every process inherits that a test starts; its value names the run and its worker."""
GRACE = "EDGEBURST_TEST_GRACE_S"
GRACE_S = float(os.environ.get(GRACE, "10"))
"""For what ends by itself after a test: threads that are told to, sockets that the collector closes."""
CHILDREN = "EDGEBURST_TEST_CHILDREN"
"""Environment variable that names the folder in which the processes of this worker's tests keep faults."""
POLL_S = 0.02
_KEPT_THREADS = re.compile(
    r"^(MainThread|pytest|execnet|QueueFeederThread|pydevd|tqdm_monitor|ThreadPoolExecutor-\d+_\d+$)"
)
"""The runner's own, and what libraries keep: idle threads of a pool for the next call, tqdm's look at the clock."""


_AT_END: list[Callable[[], None]] = []


def at_end(clean: Callable[[], None]) -> None:
    """Calls something when the present test has ended, before what is left is looked at."""
    _AT_END.append(clean)


def clean_up() -> None:
    """Does what `at_end` was told, and closes the connections that the provider's SDK keeps for the process's life."""
    while _AT_END:
        _AT_END.pop()()
    core = sys.modules.get("darabonba.core")
    for session in core.DaraCore._sessions.values() if core is not None else ():
        session.close()


def begin_what_libraries_keep() -> None:
    """Begins what clients' libraries keep once they were used: gRPC's poller, and gevent's loop of this thread."""
    import gevent
    import grpc.aio

    async def begin() -> None:
        grpc.aio.init_grpc_aio()

    # On a loop of its own: after `asyncio.run`, as in tests that came before, this thread has none.
    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    with grpc.insecure_channel("127.0.0.1:1"):
        pass
    gevent.get_hub().threadpool.apply(int)


_CACHES = os.path.expanduser("~/.cache/")
_CLOCK_OF_UUIDS = "/var/lib/libuuid/"
"""Where uuid-runtime is installed, libuuid keeps a file there open once a package of others draws an identifier."""
_SYSTEM = ("/dev/", "/proc/", "/sys/", "/usr/", _CLOCK_OF_UUIDS)
_LIBRARIES = (*map(os.path.realpath, (sys.prefix, sys.base_prefix)), _CACHES, *_SYSTEM)
_WAKE_UPS = "anon_inode:[eventfd]"
"""By which libev and gRPC wake their own threads; neither asyncio nor the product has any."""


class FaultsLogged(logging.Handler):
    """Keeps the log lines of this process that tell of a fault of the program."""

    def __init__(self) -> None:
        """Starts without any."""
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Looks at one line."""
        line = fault(record)
        if line:
            self.lines.append(line)


class FaultsOfChildren:
    """Lines that tell of a fault of the program in the log of any Python process that the tests of a worker start."""

    def __init__(self, folder: Path) -> None:
        """Has such processes keep them in a folder, which is made; those whose PYTHONPATH is of `python_path`."""
        self._folder = folder
        folder.mkdir(parents=True)
        shutil.copy(child_faults.__file__, folder / "sitecustomize.py")
        os.environ[CHILDREN] = str(folder)
        os.environ["PYTHONPATH"] = python_path(*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))

    def take(self) -> list[str]:
        """Returns the lines since the last call."""
        return faults_kept(self._folder)


def faults_kept(folder: Path) -> list[str]:
    """Returns the lines that processes wrote below a folder, and removes them."""
    found = []
    for path in sorted(folder.rglob("*.faults")):
        found += path.read_text(encoding="utf-8", errors="replace").splitlines()
        path.unlink()
    return found


def python_path(*folders: str | Path) -> str:
    """Returns PYTHONPATH for a process that imports from these folders, and keeps what it logs of faults."""
    kept = os.environ.get(CHILDREN)
    return os.pathsep.join([*([kept] if kept else []), *(str(folder) for folder in folders if str(folder) != kept)])


def faults_in(log: str) -> list[str]:
    """Returns the lines of a process's log that tell of a fault of the program.

    >>> faults_in("info ready port=1\\nerror request_bug method=GET\\n")
    ['error request_bug method=GET']
    >>> faults_in("2026-01-01T00:00:00.000Z error request_bug method=GET\\n")
    ['2026-01-01T00:00:00.000Z error request_bug method=GET']
    """
    return [line for line in log.splitlines() if child_faults.FAULTS.search(line)]


def assert_no_faults(log: str) -> None:
    """Checks a process's log; the lines after the first fault are its traceback."""
    found = faults_in(log)
    assert not found, f"the program failed: {log[log.index(found[0]) :][:4000]}"


def descriptors() -> dict[int, str]:
    """Returns what this process has open, by number; libraries' own files and devices do not count."""
    found = {}
    for name in os.listdir("/proc/self/fd") if sys.platform == "linux" else ():
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the folder itself
        if target != _WAKE_UPS and not target.startswith(_LIBRARIES):
            found[int(name)] = target
    found.pop(getattr(_tracker(), "_fd", None), None)
    return found


def _tracker() -> object:
    """Returns multiprocessing's watch of what processes share, which lives as long as this process; None without it."""
    return getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)


def cores_of_this_process() -> set[int]:
    """Returns on which cores this process may run; none where the system does not tell."""
    return set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set()


def threads() -> set[threading.Thread]:
    """Returns the threads of this process, but the runner's."""
    return {thread for thread in threading.enumerate() if not _KEPT_THREADS.match(thread.name)}


def new_threads(before: set[threading.Thread]) -> list[str]:
    """Returns the names of the threads that were not there before."""
    return sorted(thread.name for thread in threads() - before if thread.is_alive())


def new_descriptors(before: Mapping[int, str]) -> list[str]:
    """Returns what is open and was not before."""
    return sorted(target for number, target in descriptors().items() if before.get(number) != target)


def left_after(found: Callable[[], list[str]]) -> list[str]:
    """Returns what is still found after the grace; collects garbage only where there is something."""
    if not found():
        return []
    end_s = time.monotonic() + GRACE_S
    gc.collect()
    while found() and time.monotonic() < end_s:
        time.sleep(POLL_S)
    return found()


def marked_processes(mark: str, *, variable: str = MARK) -> Iterator[tuple[int, str]]:
    """Yields number and command line of each living process with a mark, but this one's own."""
    wanted = f"{variable}={mark}".encode()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if wanted not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            state = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except (OSError, IndexError):
            continue  # it has gone, or is another user's
        if state not in "ZX":
            yield int(folder.name), command


class Guardian:
    """A process beside a test run, which ends all marked ones when the run has gone, however it went.

    It waits for the end of a pipe whose other end only the run has open: a run that is killed closes it, too.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Marks all processes that are started from now on, and starts the guardian.

        Args:
            folder: of the run, which is removed in the end.
        """
        self.mark = f"{os.getpid()}-{time.monotonic_ns()}"
        os.environ[MARK] = self.mark
        unmarked = {name: value for name, value in os.environ.items() if name != MARK}
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-m", "support.hygiene", self.mark, *([str(folder)] if folder else [])],
            stdin=subprocess.PIPE,
            env={**unmarked, "PYTHONPATH": str(Path(__file__).parents[1])},
            start_new_session=True,
        )

    def survivors(self) -> list[str]:
        """Returns the processes that still run, after the grace."""
        kept = getattr(_tracker(), "_pid", None)
        return left_after(lambda: [f"{pid} {command}" for pid, command in marked_processes(self.mark) if pid != kept])

    def close(self) -> None:
        """Lets the guardian end what is left, and waits for it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def guard(mark: str) -> None:
    """Waits for the end of the run, and kills what has its mark until nothing has."""
    sys.stdin.buffer.read()
    for _ in range(100):
        found = list(marked_processes(mark))
        if not found:
            return
        for pid, _command in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_S)


if __name__ == "__main__":
    guard(sys.argv[1])
    for path in sys.argv[2:]:
        shutil.rmtree(path, ignore_errors=True)
