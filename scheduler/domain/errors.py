"""Errors name the situation and the culprit; each knows its HTTP status."""

from dataclasses import dataclass
from enum import Enum


class RefusalKind(str, Enum):
    """Why a request ends without an answer."""

    QUEUE_FULL = "queue_full"
    DEADLINE = "deadline"
    DRAINING = "draining"
    BACKEND = "backend"
    NO_BACKEND = "no_backend"
    BAD_REQUEST = "bad_request"


HTTP_STATUS = {
    RefusalKind.QUEUE_FULL: 429,
    RefusalKind.DEADLINE: 503,
    RefusalKind.DRAINING: 503,
    RefusalKind.BACKEND: 502,
    RefusalKind.NO_BACKEND: 503,
    RefusalKind.BAD_REQUEST: 400,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why this request gets no answer, in one sentence for its client."""

    kind: RefusalKind
    message: str
    retry_after_s: float | None = None
    reason: str = ""
    """Value of the Reason that decided it; empty where no offers were compared."""

    @property
    def status(self) -> int:
        """The HTTP status that goes with it."""
        return HTTP_STATUS[self.kind]


class EdgeburstError(Exception):
    """Base of the errors that a user is told in one sentence, without a traceback."""


class ConfigError(EdgeburstError):
    """The configuration cannot be used; the message names file, line and key."""
