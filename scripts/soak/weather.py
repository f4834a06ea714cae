"""Which faults a world meets at each moment, as its script says."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from random import Random
from typing import TYPE_CHECKING

from scripts.soak.script import Fault, Script

if TYPE_CHECKING:
    from scripts.soak.machine import Machine

BYTES_PER_S = {"": 1e6, "thin": 4e3, "no-uplink": 0.0}
"""Of the uplink, by what ails it."""
FAR_S = 1e7
"""Later than any world lasts."""


class Weather:
    """The faults of a script, by time."""

    machine: Machine

    def __init__(self, script: Script) -> None:
        """Stores the script."""
        self.script = script
        self.noise = Random(script.seed + 1)
        self.over = False
        """Whether the faults have stopped."""

    def script_s(self) -> float:
        """Returns the seconds since the world began, leaps of the clock apart."""
        return self.machine.now() - self.machine.leapt_s

    def fault(self, where: str) -> str:
        """Returns what ails a side now; empty: nothing."""
        if self.over:
            return ""
        now_s = self.script_s()
        for fault in self.script.faults:
            if fault.where == where and fault.from_s <= now_s < fault.to_s and self.noise.random() < fault.share:
                return fault.what
        return ""

    def cut_off(self) -> bool:
        """Whether nothing passes the uplink now."""
        return not self.over and any(self.script_s() < f.to_s and f.from_s <= self.script_s() for f in self._links(0.0))

    def link(self, from_s: float) -> Iterator[tuple[float, float]]:
        """Yields until when the uplink carries how many bytes a second, from a time of the monotonic clock on."""
        leapt_s = self.machine.leapt_s
        at_s, windows = from_s - leapt_s, [] if self.over else self._links()
        while True:
            here = [fault for fault in windows if fault.from_s <= at_s < fault.to_s]
            edges = [edge for fault in windows for edge in (fault.from_s, fault.to_s) if edge > at_s]
            until_s = min(edges, default=FAR_S)
            yield until_s + leapt_s, min((BYTES_PER_S[fault.what] for fault in here), default=BYTES_PER_S[""])
            at_s = until_s

    def _links(self, rate: float | None = None) -> list[Fault]:
        return [
            fault
            for fault in self.script.faults
            if fault.what in BYTES_PER_S and (rate is None or BYTES_PER_S[fault.what] == rate)
        ]

    def host_delay(self, name: str, work: Callable[[], object]) -> tuple[Exception | None, float]:
        """Returns how a thread's job fails, None: it does not, and the seconds that it takes beside its own."""
        what = self.fault("host")
        if name == "planner":
            slow = {"slow-planner": self.noise.uniform(0.3, 6.0), "no-planner": FAR_S}
            return None, slow.get(what, 0.005)
        if name == "state":
            if what == "full-disk" and getattr(work, "__name__", "") != "close":
                return sqlite3.OperationalError("database or disk is full"), 0.001
            return None, self.noise.uniform(1.0, 8.0) if what == "slow-disk" else 0.001
        return None, 0.003 if name == "config" else 0.0
