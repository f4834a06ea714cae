"""Requests and places as the engine sees them: ids, counts and sizes, never bodies."""

from dataclasses import dataclass
from enum import Enum


class Backend(str, Enum):
    """The two kinds of place that answer requests."""

    EDGE = "edge"
    FUNCTION = "function"


EDGE_NAME = "main"
"""Name of the edge server where the configuration names none."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place that answers requests: an edge server or a function tier, by its name.

    >>> str(Place.edge()), str(Place.function("cpu")), Place.parse("function:cpu") == Place.function("cpu")
    ('edge:main', 'function:cpu', True)
    """

    backend: Backend
    name: str

    @staticmethod
    def edge(name: str = EDGE_NAME) -> "Place":
        """Returns an edge server."""
        return Place(Backend.EDGE, name)

    @staticmethod
    def function(tier: str) -> "Place":
        """Returns a function tier."""
        return Place(Backend.FUNCTION, tier)

    @staticmethod
    def parse(text: str) -> "Place":
        """Returns the place whose `str` is this text; ValueError if there is none."""
        backend, _, name = text.partition(":")
        return Place(Backend(backend), name)

    @property
    def endpoint(self) -> "Place":
        """What answers there, and is probed: an edge server itself; all functions together for each of their tiers."""
        return self if self.backend is Backend.EDGE else FUNCTIONS

    @property
    def tier(self) -> str:
        """The function tier; empty on an edge."""
        return self.name if self.backend is Backend.FUNCTION else ""

    def __str__(self) -> str:
        """Returns `edge:NAME` or `function:TIER`."""
        return f"edge:{self.name}" if self.backend is Backend.EDGE else f"function:{self.name}"


FUNCTIONS = Place(Backend.FUNCTION, "")
"""All functions together: they share one way, one account and one circuit."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One send of a request: to which backend, in which batch, when."""

    backend: Backend
    batch_id: int
    sent_at_s: float
    edge: str = EDGE_NAME
    """Name of the edge server, where it was sent to one."""

    @property
    def endpoint(self) -> Place:
        """The edge server, or FUNCTIONS."""
        return Place.edge(self.edge) if self.backend is Backend.EDGE else FUNCTIONS


@dataclass(frozen=True, slots=True)
class Request:
    """One inference request, from its last body byte to its one answer or error."""

    request_id: int
    model: str
    arrived_at_s: float
    deadline_s: float
    """Absolute, on the shell's monotonic clock."""
    items: int = 1
    body_bytes: int = 0
    """Bytes that it adds to a batch on the wire."""
    class_name: str = "default"
    priority: int = 1
    """Level as in Triton: 1 is the highest. The shell has replaced 0 by the model's default level."""
    tenant: str = ""
    attempts: tuple[Attempt, ...] = ()
    reserve_s: float = 0.0
    """What the shell keeps for its own work: the client's deadline is so much after `deadline_s`."""
    shape_id: int = 0
    """Number of the shapes of its items: requests of a model share a batch only if theirs are equal. Always 0 where
    the model's shapes are fixed."""

    def sent_with(self, attempts: tuple[Attempt, ...]) -> "Request":
        """Returns the request with these attempts. Written out, because `replace` takes five times as long."""
        return Request(
            self.request_id,
            self.model,
            self.arrived_at_s,
            self.deadline_s,
            self.items,
            self.body_bytes,
            self.class_name,
            self.priority,
            self.tenant,
            attempts,
            self.reserve_s,
            self.shape_id,
        )
