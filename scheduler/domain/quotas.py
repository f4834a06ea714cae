"""Concurrency that a provider grants, as learned from its refusals."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quota:
    """Most batches that a provider runs at once."""

    model: str
    """Empty, with the tier: of the account, all tiers together."""
    tier: str
    granted: int
