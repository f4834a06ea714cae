"""domain/failures: every status, code and exception that can come instead of an answer has one meaning."""

import errno
import http.client
import socket
import ssl

import aiohttp
import pytest
import requests.exceptions as rx
import urllib3.exceptions as ux

from scheduler.dispatch.circuit_breaker import Circuit
from scheduler.domain.batches import FailureKind
from scheduler.domain.errors import HTTP_STATUS, RefusalKind
from scheduler.domain.failures import (
    HANDLING,
    Booked,
    Opens,
    edge_kind,
    frame_kind,
    lost,
    mend,
    platform_kind,
)

CONTENT, ACCOUNT, THROTTLED = FailureKind.REJECTED, FailureKind.FORBIDDEN, FailureKind.THROTTLED
SERVER, AWAY, LATE, GONE = FailureKind.SERVER, FailureKind.UNREACHABLE, FailureKind.TIMEOUT, FailureKind.BROKEN

DOCUMENTED = [
    (400, "InvalidArgument", ACCOUNT),
    (400, "MissingRequiredHeader", ACCOUNT),
    (400, "PathNotSupported", ACCOUNT),
    (400, "EntityTooLarge", CONTENT),
    (403, "AccessDenied", ACCOUNT),
    (403, "SignatureNotMatch", ACCOUNT),
    (403, "InvalidAccessKeyID", ACCOUNT),
    (404, "FunctionNotFound", ACCOUNT),
    (404, "AliasNotFound", ACCOUNT),
    (404, "VersionNotFound", ACCOUNT),
    (404, "TriggerNotFound", ACCOUNT),
    (409, "FunctionAlreadyExists", ACCOUNT),
    (409, "ConcurrentUpdateError", SERVER),
    (429, "ResourceExhausted", THROTTLED),
    (499, "ClientClosedRequest", SERVER),
    (500, "InternalServerError", SERVER),
    (502, "BadResponse", SERVER),
    (503, "ResourceThrottled", THROTTLED),
]
"""The codes of the provider's documentation."""

UNPROVEN = [
    (400, "InsufficientBalance", ACCOUNT),
    (400, "InvalidAccount.Overdue", ACCOUNT),
    (403, "UserNotAuthorized.Arrears", ACCOUNT),
    (400, "InvalidTimeStamp.Expired", ACCOUNT),
    (400, "SignatureDoesNotMatch", ACCOUNT),
    (400, "IncompleteSignature", ACCOUNT),
    (400, "InvalidSecurityToken.Expired", ACCOUNT),
    (403, "InvalidSecurityToken.MismatchWithAccessKey", ACCOUNT),
    (404, "InvalidAccessKeyId.NotFound", ACCOUNT),
    (403, "Forbidden.RAM", ACCOUNT),
    (400, "InvalidRegionId.NotFound", ACCOUNT),
    (400, "FCServiceNotOpen", ACCOUNT),
    (400, "SomethingNew", ACCOUNT),
    (412, "", ACCOUNT),
    (418, "", ACCOUNT),
    (412, "FunctionNotStarted", ACCOUNT),
    (413, "", CONTENT),
    (413, "SomethingNew", CONTENT),
    (400, "Throttling.User", THROTTLED),
    (400, "Throttling", THROTTLED),
    (403, "Throttling.Api", THROTTLED),
    (500, "Throttling.System", THROTTLED),
    (400, "ConcurrencyLimitExceeded", THROTTLED),
    (403, "ResourceExhausted", THROTTLED),
    (503, "ServiceUnavailable", THROTTLED),
    (429, "", THROTTLED),
    (407, "", AWAY),
    (408, "", AWAY),
    (500, "", SERVER),
    (504, "", SERVER),
    (302, "", SERVER),
]
"""Codes and statuses that the documentation of functions does not name: seen in other services of the provider, or made
up. None of them has been seen from functions."""


@pytest.mark.parametrize(("status", "code", "kind"), DOCUMENTED + UNPROVEN)
def test_a_code_of_the_platform_means_one_kind(status: int, code: str, kind: FailureKind) -> None:
    assert platform_kind(status, code) is kind


@pytest.mark.parametrize(("status", "code", "kind"), DOCUMENTED + UNPROVEN)
def test_what_the_platform_answers_is_the_contents_fault_only_where_it_is_too_large(
    status: int, code: str, kind: FailureKind
) -> None:
    told = HTTP_STATUS[HANDLING[kind].told]
    assert (told == 400) == (status == 413 or code == "EntityTooLarge")
    circuit = Circuit(failures_to_open=3, first_pause_s=1.0)
    circuit.failed(kind, now_s=0.0, retry_after_s=None)
    if kind is ACCOUNT:
        assert not circuit.closed
    if kind is THROTTLED:
        assert circuit.closed
        assert not circuit.usable(0.5)


def test_an_answer_that_asks_to_wait_is_throttling_unless_its_code_says_otherwise() -> None:
    assert platform_kind(400, "SomethingNew", asks_to_wait=True) is THROTTLED
    assert platform_kind(400, "InsufficientBalance", asks_to_wait=True) is ACCOUNT
    assert platform_kind(500, "InternalServerError", asks_to_wait=True) is SERVER


def test_every_kind_is_handled_and_only_content_is_the_clients_fault() -> None:
    assert set(HANDLING) == set(FailureKind)
    assert [kind for kind, row in HANDLING.items() if row.told is RefusalKind.BAD_REQUEST] == [CONTENT]
    assert [kind for kind, row in HANDLING.items() if row.booked is Booked.AS_RUN] == [FailureKind.FUNCTION]
    assert [kind for kind, row in HANDLING.items() if not row.again] == [CONTENT, ACCOUNT]
    assert {kind for kind, row in HANDLING.items() if row.opens is Opens.AT_ONCE} == {ACCOUNT, AWAY, LATE}


@pytest.mark.parametrize(
    ("status", "with_error", "without"),
    [
        (400, CONTENT, SERVER),
        (422, CONTENT, SERVER),
        (415, CONTENT, SERVER),
        (413, CONTENT, CONTENT),
        (401, ACCOUNT, ACCOUNT),
        (403, ACCOUNT, ACCOUNT),
        (404, ACCOUNT, ACCOUNT),
        (405, ACCOUNT, ACCOUNT),
        (431, ACCOUNT, ACCOUNT),
        (407, AWAY, AWAY),
        (408, AWAY, AWAY),
        (429, THROTTLED, THROTTLED),
        (503, THROTTLED, THROTTLED),
        (500, SERVER, SERVER),
        (302, SERVER, SERVER),
    ],
)
def test_an_edges_status_speaks_of_content_only_with_the_protocols_body(
    status: int, with_error: FailureKind, without: FailureKind
) -> None:
    assert edge_kind(status, says_why=True) is with_error
    assert edge_kind(status, says_why=False) is without


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, CONTENT) for status in (400, 413, 422)),
        *((status, ACCOUNT) for status in (401, 403, 404)),
        *((status, FailureKind.FUNCTION) for status in (429, 500, 503, "400", None)),
    ],
)
def test_a_frames_status_says_whose_fault_it_is(status: object, kind: FailureKind) -> None:
    assert frame_kind(status) is kind


def wrapped(inner: BaseException, outer: type[BaseException] = rx.ConnectionError) -> BaseException:
    """The exception as requests wraps those of urllib3, and the SDK those of requests."""
    try:
        try:
            raise outer(inner)
        except outer as error:
            raise RuntimeError(str(error))  # noqa: B904
    except RuntimeError as error:
        return error


RETRIES = [
    (ux.NewConnectionError(None, "refused"), AWAY, "cannot be reached"),  # type: ignore[arg-type]
    (ux.NameResolutionError("h", None, socket.gaierror("no name")), AWAY, "its name is not found"),  # type: ignore[arg-type]
    (ux.ConnectTimeoutError(None, "slow"), AWAY, "no connection in time"),  # type: ignore[arg-type]
    (ux.SSLError(ssl.SSLCertVerificationError("self signed")), AWAY, "TLS fails"),
    (ux.SSLError(ssl.SSLEOFError("EOF")), GONE, "broke the connection"),
    (ux.ProxyError("no", OSError("refused")), AWAY, "through the proxy"),
    (ux.ReadTimeoutError(None, "/", "slow"), LATE, "did not answer in time"),  # type: ignore[arg-type]
    (ux.ProtocolError("aborted", http.client.RemoteDisconnected("gone")), GONE, "broke the connection"),
    (ux.ProtocolError("aborted", ConnectionResetError(errno.ECONNRESET, "reset")), GONE, "broke the connection"),
    (ux.IncompleteRead(1, 2), GONE, "broke the connection"),
    (ux.DecodeError("gzip"), GONE, "broke the connection"),
    (ux.LocationParseError("h:x"), AWAY, "the address is not valid"),
    (ux.EmptyPoolError(None, "full"), AWAY, "cannot be reached"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("error", "kind", "what"), RETRIES)
@pytest.mark.parametrize("retried", [False, True])
def test_an_exception_of_urllib3_has_one_meaning_however_it_is_wrapped(
    error: Exception, kind: FailureKind, what: str, retried: bool
) -> None:
    inner = ux.MaxRetryError(None, "/", error) if retried else error  # type: ignore[arg-type]
    for outer in (error, inner, wrapped(inner)):
        meaning = lost(outer)
        assert meaning is not None
        assert (meaning.kind, what in meaning.sentence) == (kind, True)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (rx.ConnectTimeout(), AWAY),
        (rx.ProxyError(), AWAY),
        (rx.SSLError(), AWAY),
        (rx.InvalidURL(), AWAY),
        (rx.MissingSchema(), AWAY),
        (rx.InvalidProxyURL(), AWAY),
        (rx.ReadTimeout(), LATE),
        (rx.Timeout(), LATE),
        (rx.ConnectionError(), GONE),
        (rx.ChunkedEncodingError(), GONE),
        (rx.ContentDecodingError(), GONE),
        (aiohttp.ServerDisconnectedError(), GONE),
        (aiohttp.ClientPayloadError(), GONE),
        (aiohttp.ClientOSError(errno.EPIPE, "pipe"), GONE),
        (aiohttp.ServerTimeoutError(), LATE),
        (aiohttp.InvalidURL("x"), AWAY),
        (ConnectionRefusedError(), AWAY),
        (socket.gaierror(), AWAY),
        (ConnectionResetError(), GONE),
        (BrokenPipeError(), GONE),
        (TimeoutError(), LATE),
    ],
)
def test_other_exceptions_have_one_meaning(error: Exception, kind: FailureKind) -> None:
    meaning = lost(error)
    assert meaning is not None
    assert meaning.kind is kind


def test_an_error_of_our_own_has_none() -> None:
    assert lost(KeyError("x")) is None
    assert lost(TypeError("x")) is None


@pytest.mark.parametrize(
    ("code", "said", "ahead_s", "sentence"),
    [
        ("SignatureNotMatch", "", 3600.0, "this host's clock is 1 h ahead of the provider's: set it"),
        ("SignatureNotMatch", "", -5400.0, "this host's clock is 1 h 30 min behind the provider's: set it"),
        ("SignatureNotMatch", "", 2.0, "check the access key"),
        ("SignatureNotMatch", "", None, "check the access key"),
        ("InvalidTimeStamp.Expired", "", None, "set this host's clock"),
        ("Denied", "the request timestamp is expired", 90.0, "this host's clock is 1 min 30 s ahead"),
        ("AccessDenied", "", 90.0, "the permission fc:InvokeFunction"),
        ("AccessDenied", "", 1000.0, "this host's clock is 16 min 40 s ahead"),
        ("InsufficientBalance", "", None, "settle the provider's account"),
        ("InvalidSecurityToken.Expired", "", None, "renew the temporary access key"),
        ("InvalidRegionId", "", None, "check `region` and `endpoint`"),
        ("FunctionNotFound", "", None, "deploy the function"),
        ("SomethingNew", "", None, "look the code up"),
    ],
)
def test_the_mend_is_named(code: str, said: str, ahead_s: float | None, sentence: str) -> None:
    assert sentence in mend(ACCOUNT, 400, code, said=said, ahead_s=ahead_s)


def test_there_is_nothing_to_mend_where_waiting_helps() -> None:
    assert [mend(kind, 500, "") for kind in (SERVER, THROTTLED, LATE, GONE)] == [""] * 4
    assert "proxy" in mend(AWAY, 407, "")
