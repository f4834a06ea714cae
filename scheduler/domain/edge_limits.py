"""The largest batch that an edge server takes, as it says or as its refusals have shown."""

from dataclasses import dataclass
from enum import Enum

from scheduler.domain.requests import EDGE_NAME


class LimitSource(str, Enum):
    """How a limit became known; the values are public words."""

    SAID = "said"
    """By the server's metadata or configuration."""
    NAMED = "named"
    """By a refusal that names it."""
    SEARCHED = "searched"
    """Between a batch that was answered and a larger one that was refused for its size."""


@dataclass(frozen=True, slots=True)
class EdgeLimit:
    """Most items that an edge server takes in a batch of one model."""

    model: str
    items: int
    source: LimitSource
    settled: bool = True
    """False: while it is searched, larger batches may turn out to be taken, and smaller ones not."""
    edge: str = EDGE_NAME
    """The server."""
