"""How much functions are wanted for lately."""

import math
from dataclasses import dataclass

DEMAND_MEMORY_S = 2.0
"""Seconds after which demand for functions is forgotten. Judgement: in simulations of 3,000 requests halving or
doubling it changes cost within noise."""


@dataclass(slots=True)
class Demand:
    """Items that functions take or should have taken: warming calls are sent for them."""

    _items: float = 0.0
    _noted_at_s: float = 0.0

    def note(self, items: int, *, now_s: float) -> None:
        """Counts items."""
        self._items *= math.exp((self._noted_at_s - now_s) / DEMAND_MEMORY_S)
        self._items += items
        self._noted_at_s = now_s

    @property
    def rps(self) -> float:
        """Items a second that functions were wanted for lately; older demand counts less and less."""
        return self._items / DEMAND_MEMORY_S
