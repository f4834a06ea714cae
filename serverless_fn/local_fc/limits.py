"""Limit of the rate at which instances are added: a burst at once, then a number a minute."""

from __future__ import annotations


class TokenBucket:
    """Token bucket that is full at the start.

    Args:
        capacity: number of tokens when full.
        per_s: tokens added a second.
    """

    def __init__(self, *, capacity: float, per_s: float) -> None:
        self._capacity = capacity
        self._per_s = per_s
        self._tokens = capacity
        self._as_of_s: float | None = None

    def try_take(self, now_s: float) -> bool:
        """Takes a token and returns whether there was one."""
        since_s = 0.0 if self._as_of_s is None else now_s - self._as_of_s
        self._tokens, self._as_of_s = min(self._capacity, self._tokens + since_s * self._per_s), now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
