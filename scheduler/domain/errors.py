"""Refusals with their HTTP status, and the base classes of errors. Each message names the situation and its cause."""

from dataclasses import dataclass
from enum import Enum


class RefusalKind(str, Enum):
    """Kinds of refusal: why a request ends without an answer."""

    QUEUE_FULL = "queue_full"
    DEADLINE = "deadline"
    """No place could answer in time: it was not sent, or not sent again."""
    NO_ANSWER = "no_answer"
    """It was sent, and no answer had come by its deadline."""
    DRAINING = "draining"
    BACKEND = "backend"
    QUOTA = "quota"
    """The functions' provider, or an overloaded edge, refused it, and no other place could answer in time."""
    NO_BACKEND = "no_backend"
    BAD_REQUEST = "bad_request"
    TOO_LARGE = "too_large"


HTTP_STATUS = {
    RefusalKind.QUEUE_FULL: 429,
    RefusalKind.DEADLINE: 503,
    RefusalKind.NO_ANSWER: 503,
    RefusalKind.DRAINING: 503,
    RefusalKind.BACKEND: 503,
    RefusalKind.QUOTA: 503,
    RefusalKind.NO_BACKEND: 503,
    RefusalKind.BAD_REQUEST: 400,
    RefusalKind.TOO_LARGE: 413,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """The refusal of a request: why it gets no answer, in one sentence for its client."""

    kind: RefusalKind
    message: str
    retry_after_s: float | None = None
    reason: str = ""
    """Value of the Reason that decided it; empty where no offers were compared."""

    @property
    def status(self) -> int:
        """The HTTP status of its kind."""
        return HTTP_STATUS[self.kind]


class EdgeburstError(Exception):
    """Base class of errors that are shown to a user as one sentence, without a traceback."""


class ConfigError(EdgeburstError):
    """Error: the configuration cannot be used. The message names file, line and key."""
