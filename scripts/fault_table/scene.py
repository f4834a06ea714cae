"""Where one row plays: neighbours, daemon, a small disk, a clock that can be set."""

from __future__ import annotations

import glob
import os
import subprocess
from pathlib import Path

from scripts.fault_table.daemon import Daemon
from scripts.fault_table.neighbours import Neighbours

_DISK_BYTES = 2**20
_FAKETIME = "/usr/lib/*/faketime/libfaketime.so.1"


def can(need: str) -> bool:
    """Returns whether this machine has what a row needs."""
    return not need or (os.geteuid() == 0 if need == "root" else bool(glob.glob(_FAKETIME)))


class Scene:
    """What the steps of a row act on."""

    def __init__(self, neighbours: Neighbours, daemon: Daemon, folder: Path) -> None:
        """Stores the parts.

        Args:
            neighbours: of the daemon.
            daemon: of this row.
            folder: of this row; its `disk` is where the daemon keeps its state.
        """
        self.neighbours = neighbours
        self.daemon = daemon
        self.disk = folder / "disk"
        self.disk.mkdir()
        self._clock = folder / "clock"
        self.before: tuple[str, ...] = ()
        """What starts the daemon."""
        self.variables: dict[str, str] = {}
        """Of the daemon's environment."""
        self._mounted = False

    def mount_disk(self) -> None:
        """Puts a small file system in place of the disk."""
        self._run("mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(self.disk))
        self._mounted = True

    def fill_disk(self) -> None:
        """Fills it to the last byte."""
        try:
            with (self.disk / "filler").open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        except OSError:
            pass

    def empty_disk(self) -> None:
        """Makes room."""
        (self.disk / "filler").unlink()

    def disk_read_only(self) -> None:
        """Has it take nothing more; what is open for writing stays so, as on a real disk that is remounted by force."""
        self._run("mount", "--bind", str(self.disk), str(self.disk))
        self._run("mount", "-o", "remount,ro,bind", str(self.disk))

    def disk_writable(self) -> None:
        """Has it take files again."""
        self._run("umount", str(self.disk))

    def fake_clock(self) -> None:
        """Has the daemon read a wall clock that `step_clock` sets."""
        self.step_clock(0)
        self.variables |= {
            "LD_PRELOAD": glob.glob(_FAKETIME)[0],
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def step_clock(self, ahead_s: int) -> None:
        """Sets the daemon's wall clock so far ahead of the true one."""
        self._clock.write_text(f"{ahead_s:+d}")

    def few_files(self, most: int) -> None:
        """Has the daemon start with so few files allowed."""
        self.before = ("bash", "-c", f'ulimit -n {most}; exec "$@"', "few")

    def end(self) -> None:
        """Takes the file systems away."""
        while self._mounted:
            self._mounted = subprocess.run(["umount", str(self.disk)], capture_output=True, check=False).returncode == 0

    @staticmethod
    def _run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)
