"""The kind of failure that an HTTP status means, for every backend that is called over HTTP."""

from collections.abc import Mapping

from scheduler.domain.batches import FailureKind

_KINDS: Mapping[int, FailureKind] = {
    401: FailureKind.FORBIDDEN,
    403: FailureKind.FORBIDDEN,
    404: FailureKind.FORBIDDEN,
    429: FailureKind.THROTTLED,
    503: FailureKind.THROTTLED,
}


def failure_kind(status: int) -> FailureKind:
    """Returns the kind of failure that an HTTP status other than 200 means.

    404 counts as forbidden: a name that is wrong stays wrong, so retrying does not help. 503 counts as throttled,
    because servers answer it when they are full or starting.

    >>> failure_kind(429).value, failure_kind(422).value, failure_kind(500).value
    ('throttled', 'rejected', 'server')
    """
    return _KINDS.get(status, FailureKind.REJECTED if 400 <= status < 500 else FailureKind.SERVER)
