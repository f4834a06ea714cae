"""What is promised of the money over the lives of all processes of a world: the state folder holds what was spent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scheduler.daemon.state.keeper import StateKeeper
    from scripts.soak.world import World

ROUNDING = 1e-6


class Books:
    """What each process paid for, as far as is known."""

    def __init__(self, world: World) -> None:
        """Starts with nothing."""
        self.world = world
        self.paid: dict[tuple[int, int], tuple[float, float]] = {}
        """By life and batch: when it was sent, in elapsed seconds, and what it costs."""
        self._owed = 0.0
        """What processes that were killed had been billed beyond what they had leased: it is booked once a minute."""

    def killed(self) -> None:
        """Notes what a process that is killed had still to book."""
        assert self.world.watch is not None
        lease = self.world.watch.engine._ledger.cap.lease
        self._owed += 0.0 if lease is None else max(0.0, -lease.left)

    def check_folder(self, keeper: StateKeeper) -> None:
        """Checks, as a process begins, that what those before it spent under a spend cap was leased before.

        Leases are dated by the time that passes: where that leapt, the folder has forgotten what is older than a day.
        """
        world = self.world
        if world.site.per_hour is None or world.recapped or world.machine.leapt_s or world.machine.slept_s:
            return
        spent, leased = math.fsum(cost for _, cost in self.paid.values()), keeper._store.history()
        held = math.fsum(amount for _, amount in leased) + self._owed
        world.check(held >= spent * (1 - ROUNDING), f"{spent:.6g} was spent, and the state folder holds {held:.6g}")
