"""The host's clocks: the wall clock, the seconds that pass whatever it is set to, and a watch over steps."""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from scheduler.daemon.logs import log
from scheduler.domain.failures import span

STEP_S = 1.0
"""A wall clock that moves by more between two looks was set. Judgement: a clock that is slewed gains half a second at
most between looks (chrony slews by a tenth), and what is signed and certified allows minutes."""
LOOK_EVERY_S = 2.0

Seconds = Callable[[], float]


def wall_s() -> float:
    """Returns the wall clock, seconds since 1970."""
    return datetime.now(timezone.utc).timestamp()


def elapsed_s() -> float:
    """Returns seconds since the host started, those in which it slept included where the platform counts them."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


def boot_id() -> str:
    """Returns what names the host's present run, in which `elapsed_s` goes on; empty where the platform has no name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class ClockWatch:
    """Notices that the wall clock was set, and that the host slept.

    >>> wall, elapsed = [1000.0], [0.0]
    >>> watch = ClockWatch(wall=lambda: wall[0], elapsed=lambda: elapsed[0], awake=lambda: elapsed[0])
    >>> wall[0], elapsed[0] = 4605.0, 5.0
    >>> watch.stepped_s(), watch.slept_s()
    (3600.0, 0.0)
    >>> watch.stepped_s()
    0.0
    """

    def __init__(
        self, *, wall: Seconds = wall_s, elapsed: Seconds = elapsed_s, awake: Seconds = time.monotonic
    ) -> None:
        """Starts to watch.

        Args:
            wall: seconds since 1970.
            elapsed: seconds that pass also while the host sleeps, from any origin.
            awake: seconds that pass only while it does not.
        """
        self._wall, self._elapsed, self._awake = wall, elapsed, awake
        self._ahead_s = wall() - elapsed()
        self._slept_s = elapsed() - awake()
        self.steps, self.sleeps = 0, 0
        """How often `look` has seen each."""
        self.stepped_in_all_s = 0.0
        """Sum of its steps, without their signs."""

    def stepped_s(self) -> float:
        """Returns by how much the wall clock was set ahead since the last call; negative: back; 0: it was not."""
        ahead_s = self._wall() - self._elapsed()
        step_s, self._ahead_s = ahead_s - self._ahead_s, ahead_s
        return step_s if abs(step_s) > STEP_S else 0.0

    def slept_s(self) -> float:
        """Returns how long the host slept since the last call."""
        slept_s = self._elapsed() - self._awake()
        since_s, self._slept_s = slept_s - self._slept_s, slept_s
        return since_s if since_s > STEP_S else 0.0

    def look(self) -> None:
        """Logs one sentence for a step, and one for a sleep."""
        if slept_s := self.slept_s():
            self.sleeps += 1
            message = (
                f"this host slept for {span(slept_s)}; the deadlines of what waited have moved by as much, and"
                " connections may have ended meanwhile"
            )
            log(logging.WARNING, "host_slept", seconds=slept_s, message=message)
        if step_s := self.stepped_s():
            self.steps += 1
            self.stepped_in_all_s += abs(step_s)
            way = "ahead" if step_s > 0 else "back"
            message = (
                f"this host's clock was set {way} by {span(abs(step_s))}; deadlines and spend caps do not follow it,"
                " but the functions' provider refuses calls while it is more than 15 minutes off"
            )
            log(logging.WARNING, "clock_stepped", seconds=step_s, message=message)


async def watch_clocks(watch: ClockWatch | None = None) -> None:
    """Looks at the clocks every few seconds, without end."""
    watch = watch or ClockWatch()
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        watch.look()
