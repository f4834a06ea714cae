"""The one table of failures: what went wrong with a batch, whose fault it is, and what follows from it.

Both backends ask here which kind of failure a status, a provider's code or an exception means; the engine asks what a
kind leads to. A request is refused for its content only where the function's frame or the edge's protocol body says
so, or where it is too large (413, EntityTooLarge): whatever else a platform answers is not the request's fault.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from scheduler.domain.batches import FailureKind
from scheduler.domain.errors import RefusalKind


class Opens(str, Enum):
    """What a failure does to the circuit of its backend."""

    NEVER = "never"
    """It says nothing about the backend."""
    PAUSE = "pause"
    """The circuit stays closed, and nothing is sent for a while."""
    AFTER_SOME = "after some"
    """Several in a row open it."""
    AT_ONCE = "at once"
    """The next batch would meet the same."""


class Booked(str, Enum):
    """Whether an invocation that failed is paid for."""

    NO = "no"
    """The provider does not charge for it."""
    AS_EXPECTED = "as expected"
    """It may have run: booked as expected until its bill is known."""
    AS_RUN = "as run"
    """It ran, and is billed for the time it took."""


@dataclass(frozen=True, slots=True)
class Handling:
    """What follows from one kind of failure."""

    whose: str
    """Whose fault it is, in words."""
    told: RefusalKind
    """What the client of a request is told that no place can answer instead."""
    again: bool
    """Whether the same side may answer it if it is asked once more."""
    opens: Opens
    booked: Booked
    of_all: bool = False
    """Whether it concerns all models of the backend; if not, it may be the fault of the batch's model alone."""


HANDLING: Mapping[FailureKind, Handling] = {
    FailureKind.REJECTED: Handling("content", RefusalKind.BAD_REQUEST, False, Opens.NEVER, Booked.NO),
    FailureKind.FUNCTION: Handling("backend broken", RefusalKind.BACKEND, True, Opens.NEVER, Booked.AS_RUN),
    FailureKind.SERVER: Handling("backend broken", RefusalKind.BACKEND, True, Opens.AFTER_SOME, Booked.NO),
    FailureKind.THROTTLED: Handling("overloaded", RefusalKind.QUOTA, True, Opens.PAUSE, Booked.NO, of_all=True),
    FailureKind.FORBIDDEN: Handling("account", RefusalKind.BACKEND, False, Opens.AT_ONCE, Booked.NO),
    FailureKind.UNREACHABLE: Handling("unreachable", RefusalKind.BACKEND, True, Opens.AT_ONCE, Booked.NO, of_all=True),
    FailureKind.TIMEOUT: Handling("unreachable", RefusalKind.BACKEND, True, Opens.AT_ONCE, Booked.AS_EXPECTED),
    FailureKind.BROKEN: Handling("gone mid-answer", RefusalKind.BACKEND, True, Opens.AFTER_SOME, Booked.AS_EXPECTED),
}


def kinds(*, booked: Booked) -> frozenset[FailureKind]:
    """Returns the kinds of failure that are booked in this way."""
    return frozenset(kind for kind, handling in HANDLING.items() if handling.booked is booked)


TOO_LARGE = 413

_STATUS: Mapping[int, FailureKind] = {
    407: FailureKind.UNREACHABLE,  # a proxy in between wants a password
    408: FailureKind.UNREACHABLE,  # the body did not arrive
    TOO_LARGE: FailureKind.REJECTED,
    429: FailureKind.THROTTLED,
    503: FailureKind.THROTTLED,  # servers answer it when they are full or starting
}
_CONTENT = frozenset({400, TOO_LARGE, 415, 422})
"""Statuses with which a server of the protocol, or a container, may refuse what one item holds."""
_ABOUT_FORM = frozenset({400, 411, 415, 417, 422})
"""Statuses about the form of a call; without the protocol's body they come from a server that cannot read it."""


def edge_kind(status: int, *, says_why: bool) -> FailureKind:
    """Returns the kind of failure that an edge server's HTTP status means.

    Args:
        status: other than 200.
        says_why: whether its body is one of the protocol's: only that speaks of the content.

    >>> edge_kind(400, says_why=True).value, edge_kind(400, says_why=False).value, edge_kind(405, says_why=True).value
    ('rejected', 'server', 'forbidden')
    """
    if status in _STATUS:
        return _STATUS[status]
    if says_why and status in _CONTENT:
        return FailureKind.REJECTED
    if status in _ABOUT_FORM or not 400 <= status < 500:
        return FailureKind.SERVER
    return FailureKind.FORBIDDEN


def frame_kind(status: object) -> FailureKind:
    """Returns the kind of failure that a status in a container's frame means: the function ran.

    >>> frame_kind(400).value, frame_kind(404).value, frame_kind(429).value, frame_kind(None).value
    ('rejected', 'forbidden', 'function', 'function')
    """
    if status in _CONTENT:
        return FailureKind.REJECTED
    if status in (401, 403, 404):
        return FailureKind.FORBIDDEN
    return FailureKind.FUNCTION


_TOO_LARGE_CODES = ("EntityTooLarge", "PayloadTooLarge", "RequestEntityTooLarge")
_THROTTLED_WORDS = (
    *("Throttl", "ResourceExhausted", "TooManyRequests", "FlowControl", "RateLimit", "RateExceeded"),
    *("ConcurrencyLimit", "ConcurrentLimit", "LimitExceeded", "QuotaExceeded", "ServiceUnavailable", "ServerBusy"),
)
_STALE_WORDS = ("ConcurrentUpdate",)


def platform_kind(status: int, code: str, *, asks_to_wait: bool = False) -> FailureKind:
    """Returns the kind of failure that an answer of the functions' platform means; the code counts before the status.

    Args:
        status: HTTP status other than 200; 0: unknown.
        code: the provider's code; empty without one.
        asks_to_wait: whether the answer says when to come again.

    >>> platform_kind(400, "InsufficientBalance").value, platform_kind(400, "Throttling.User").value
    ('forbidden', 'throttled')
    >>> platform_kind(400, "EntityTooLarge").value, platform_kind(502, "BadResponse").value
    ('rejected', 'server')
    """
    if status == TOO_LARGE or code in _TOO_LARGE_CODES:
        return FailureKind.REJECTED
    if _any(_THROTTLED_WORDS, code):
        return FailureKind.THROTTLED
    if _any(_STALE_WORDS, code) or status == 499:
        return FailureKind.SERVER
    if status in _STATUS:
        return _STATUS[status]
    if 400 <= status < 500:
        return FailureKind.THROTTLED if asks_to_wait and not _mend_of(code) else FailureKind.FORBIDDEN
    return FailureKind.SERVER


_MENDS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("Balance", "Overdue", "Arrear", "Debt", "Frozen", "Suspend", "Payment"),
        "settle the provider's account: it may not call functions",
    ),
    (
        ("SecurityToken", "StsToken", "TokenExpired"),
        "renew the temporary access key: id, secret and `security_token` belong together",
    ),
    (
        ("AccessKey", "Signature", "Credential", "Unauthorized", "InvalidSecret"),
        "check the access key that [function] refers to",
    ),
    (
        ("AccessDenied", "Forbidden", "RAM", "NoPermission", "Permission", "Denied", "NotAuthorized"),
        "give the access key that [function] refers to the permission fc:InvokeFunction",
    ),
    (
        ("Region", "Endpoint", "ServiceNotOpen", "NotActivated", "NotOpen"),
        "check `region` and `endpoint` in [function]",
    ),
    (
        ("NotFound", "NotExist"),
        "deploy the function, or correct `function` and `qualifier` of the tier",
    ),
    (
        ("InvalidArgument", "MissingRequiredHeader", "PathNotSupported", "InvalidParameter", "UnsupportedVersion"),
        "check `endpoint`, `function` and `qualifier`, and the version of this program",
    ),
)
_CLOCK_WORDS = (
    "Signature",
    "Timestamp",
    "TimeTooSkewed",
    "RequestExpired",
    "TimeExpired",
    "InvalidDate",
    "DateExpired",
)
_SAID_OF_CLOCKS = ("timestamp", "time stamp", "clock", "too skewed", "time difference")
SKEW_S = 60.0
"""A clock that is off by more is named where a signature is refused. Judgement: the provider allows 15 minutes, and no
clock that is kept is off by one."""
ALLOWED_SKEW_S = 900.0
"""What the provider allows: beyond it every call is refused, whatever the code says."""


def mend(kind: FailureKind, status: int, code: str, *, said: str = "", ahead_s: float | None = None) -> str:
    """Returns what an operator should do about an answer of the platform, as the end of a sentence; empty: nothing.

    Args:
        kind: of the failure.
        status: HTTP status.
        code: the provider's.
        said: its own sentence.
        ahead_s: by how much this host's clock is ahead of the answer's Date; None: not known.
    """
    if kind is FailureKind.UNREACHABLE:
        return "a proxy refused it; check or unset the proxy variables" if status == 407 else ""
    if kind is not FailureKind.FORBIDDEN:
        return ""
    about_clock = _any(_CLOCK_WORDS, code) or _any(_SAID_OF_CLOCKS, said)
    if ahead_s is not None and abs(ahead_s) > (SKEW_S if about_clock else ALLOWED_SKEW_S):
        way = "ahead of" if ahead_s > 0 else "behind"
        return f"this host's clock is {span(abs(ahead_s))} {way} the provider's: set it, as with timedatectl"
    if about_clock and "Signature" not in code:
        return "set this host's clock, as with timedatectl"
    if found := _mend_of(code):
        return found
    if status == 404:
        return _mend_of("NotFound")
    if status in (401, 403):
        return "check the access key that [function] refers to, and its permission fc:InvokeFunction"
    return "look the code up in the provider's documentation; calls go on when a probe succeeds"


def span(seconds: float) -> str:
    """Returns a span of time for people.

    >>> span(3600), span(5400), span(75), span(3 * 86400)
    ('1 h', '1 h 30 min', '1 min 15 s', '3 d')
    """
    left, parts = round(seconds), []
    for unit, unit_s in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if count := left // unit_s:
            parts.append(f"{count} {unit}")
        left -= count * unit_s
    return " ".join(parts[:2]) or "0 s"


def _mend_of(code: str) -> str:
    return next((sentence for words, sentence in _MENDS if _any(words, code)), "")


def _any(words: Iterable[str], text: str) -> bool:
    """Whether one of the words is in a text, in capitals or not."""
    return any(word.lower() in text.lower() for word in words)


@dataclass(frozen=True, slots=True)
class Lost:
    """What an exception means that came instead of an answer."""

    kind: FailureKind
    what: str
    """End of a sentence that begins with the backend."""
    mend: str = ""

    @property
    def sentence(self) -> str:
        """What happened, and what to do about it where that is known."""
        return f"{self.what}; {self.mend}" if self.mend else self.what


_CUT_TLS = frozenset({"SSLEOFError", "SSLZeroReturnError", "SSLSyscallError"})
"""A connection that was cut while it was encrypted: the call may have arrived."""
_EXCEPTIONS: tuple[tuple[frozenset[str], Lost], ...] = tuple(
    (frozenset(names.split()), Lost(kind, what, advice))
    for names, kind, what, advice in (
        (
            "ProxyError ProxySchemeUnknown ProxySchemeUnsupported InvalidProxyURL ProxyConnectionError"
            " ClientProxyConnectionError ClientHttpProxyError",
            *(FailureKind.UNREACHABLE, "cannot be reached through the proxy"),
            "check or unset the proxy variables",
        ),
        (
            "SSLError SSLCertVerificationError CertificateError ClientConnectorSSLError ClientSSLError"
            " ClientConnectorCertificateError ServerFingerprintMismatch",
            *(FailureKind.UNREACHABLE, "cannot be reached: TLS fails"),
            "check the certificate, this host's clock, and that the other side speaks https",
        ),
        (
            "NameResolutionError gaierror ClientConnectorDNSError",
            *(FailureKind.UNREACHABLE, "cannot be reached: its name is not found"),
            "check the address and this host's DNS",
        ),
        (
            "InvalidURL InvalidUrlClientError InvalidSchema MissingSchema LocationParseError LocationValueError"
            " URLSchemeUnknown NonHttpUrlClientError RequiredArgumentException InvalidHeader UnrewindableBodyError",
            *(FailureKind.UNREACHABLE, "cannot be called: the address is not valid"),
            "check `endpoint` or `url`",
        ),
        (
            "NewConnectionError ConnectionRefusedError ClientConnectorError HostChangedError EmptyPoolError"
            " ClosedPoolError FullPoolError",
            *(FailureKind.UNREACHABLE, "cannot be reached", ""),
        ),
        (
            "ConnectTimeout ConnectTimeoutError ConnectionTimeoutError",
            *(FailureKind.UNREACHABLE, "cannot be reached: no connection in time", ""),
        ),
        (
            "ReadTimeout ReadTimeoutError SocketTimeoutError ServerTimeoutError",
            *(FailureKind.TIMEOUT, "did not answer in time", ""),
        ),
        (
            "ConnectionError ChunkedEncodingError ProtocolError IncompleteRead InvalidChunkLength RemoteDisconnected"
            " BadStatusLine LineTooLong HeaderParsingError ResponseNotChunked ContentDecodingError DecodeError"
            " StreamConsumedError ConnectionResetError ConnectionAbortedError BrokenPipeError SSLEOFError"
            " SSLZeroReturnError SSLSyscallError ServerDisconnectedError ClientPayloadError ClientOSError"
            " ClientResponseError ClientConnectionError ServerConnectionError HttpProcessingError",
            *(FailureKind.BROKEN, "broke the connection", ""),
        ),
        ("Timeout TimeoutError", FailureKind.TIMEOUT, "did not answer in time", ""),
    )
)


def lost(error: BaseException) -> Lost | None:
    """Returns what an exception of an HTTP library means, also one that others wrap; None: it is none of theirs.

    >>> lost(ConnectionRefusedError()).kind.value, lost(BrokenPipeError()).kind.value, lost(KeyError())
    ('unreachable', 'broken', None)
    """
    names = set(_names(error))
    if names & _CUT_TLS:
        return Lost(FailureKind.BROKEN, "broke the connection")
    return next((meaning for known, meaning in _EXCEPTIONS if known & names), None)


def _names(error: BaseException) -> Iterable[str]:
    """Yields the names of the classes of an exception and of those that it wraps; those of Python's own base apart."""
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting and len(seen) < 16:
        found = waiting.pop(0)
        if not isinstance(found, BaseException) or any(found is earlier for earlier in seen):
            continue
        seen.append(found)
        yield from (of.__name__ for of in type(found).__mro__)
        waiting += [found.__cause__, None if found.__suppress_context__ else found.__context__]
        waiting += [getattr(found, "reason", None), getattr(found, "os_error", None), *found.args]
