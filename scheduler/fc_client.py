"""The provider's SDK, held at arm's length, for every shell that calls it: quiet, without retries, every error by its
kind.

The traps behind each rule here were reproduced with SDK 4.8.3 (fc-api.md section 1.3 of the project's reading).
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any

from scheduler.domain.batches import Failure, FailureKind
from scheduler.http_failures import failure_kind

PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
CONNECT_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class AccessKey:
    """What requests are signed with; its secrets do not show in its repr."""

    access_key_id: str
    access_key_secret: str = field(repr=False)
    security_token: str = field(default="", repr=False)
    """Of a temporary (STS) key; empty for a permanent one."""


@dataclass(frozen=True, slots=True)
class Account:
    """Where functions are called, and as whom."""

    region: str
    key: AccessKey
    endpoint: str = ""
    """HOST or HOST:PORT; empty: the region's public one."""
    protocol: str = "https"

    @property
    def host(self) -> str:
        """The endpoint in use."""
        return self.endpoint or f"fcv3.{self.region}.aliyuncs.com"


@dataclass(frozen=True, slots=True)
class Invoked:
    """An answer to InvokeFunction with HTTP 200, which says nothing yet about the function's success."""

    body: bytes
    error_type: str
    """Header X-Fc-Error-Type: not empty means that the function failed, and is billed."""


class CallFailed(Exception):
    """The call brought no answer of what was called."""

    def __init__(self, failure: Failure, *, code: str = "", status: int = 0, said: str = "") -> None:
        """Stores why.

        Args:
            failure: its kind, in one sentence.
            code: the provider's name of the error, where it gave one.
            status: of HTTP; 0 where no answer came, or none that the SDK can read.
            said: the provider's own words.
        """
        super().__init__(failure.message)
        self.failure = failure
        self.code = code
        self.status = status
        self.said = said


class FunctionCaller:
    """Calls functions of one account. Every method blocks: use it from threads."""

    def __init__(self, account: Account, *, connections: int) -> None:
        """Stores its parts; the first call imports the SDK.

        Args:
            account: where and as whom.
            connections: how many calls there may be at one time.
        """
        self._account = account
        self._connections = connections
        self._client: Any = None

    def open(self) -> None:
        """Imports the SDK and makes the client; no packet is sent."""
        if self._client is None:
            self._client = make_client(self._account, connections=self._connections)

    def invoke(self, *, function: str, qualifier: str, body: bytes, read_timeout_s: float) -> Invoked:
        """Calls a function and waits for its answer.

        Args:
            function: its name.
            qualifier: version or alias.
            body: the payload. A stream here would be read in pieces of 1 KiB, and retried empty.
            read_timeout_s: longest wait for each piece of the answer; there is no limit for the whole.

        Raises:
            CallFailed: there is no answer of the function.
        """
        sdk = load_sdk()
        request = sdk.models.InvokeFunctionRequest(body=body, qualifier=qualifier)
        headers = sdk.models.InvokeFunctionHeaders(x_fc_invocation_type="Sync")
        call = self._client.invoke_function_with_options
        response = called(call, function, request, headers, runtime(read_timeout_s))
        return Invoked(response.body.read(), response.headers.get("x-fc-error-type") or "")

    def check(self, *, function: str, qualifier: str) -> None:
        """Asks for a function's description: a signed call that runs nothing and costs nothing.

        It also opens the SDK's one process-wide session, which the first calls of several threads would each open.

        Raises:
            CallFailed: the endpoint, the key or the name is wrong.
        """
        request = load_sdk().models.GetFunctionRequest(qualifier=qualifier)
        called(self._client.get_function_with_options, function, request, {}, runtime(CONNECT_TIMEOUT_S))


@cache
def load_sdk() -> SimpleNamespace:
    """Imports the SDK once, quietly, and makes it safe for processes that fork."""
    from alibabacloud_fc20230330 import models
    from alibabacloud_fc20230330.client import Client
    from alibabacloud_tea_openapi.exceptions import AlibabaCloudException
    from alibabacloud_tea_openapi.utils_models import Config
    from darabonba.core import DaraCore
    from darabonba.exceptions import UnretryableException
    from darabonba.runtime import RuntimeOptions

    # The import sets this logger to DEBUG, with a handler of its own; DEBUG=sdk would have it print signed headers.
    logger = logging.getLogger("darabonba-core")
    logger.handlers.clear()
    logger.setLevel(logging.ERROR)
    # Children of a fork would share the sockets and read each other's answers.
    os.register_at_fork(after_in_child=DaraCore._sessions.clear)
    return SimpleNamespace(
        models=models,
        Client=Client,
        Config=Config,
        RuntimeOptions=RuntimeOptions,
        AlibabaCloudException=AlibabaCloudException,
        UnretryableException=UnretryableException,
    )


def make_client(account: Account, *, connections: int) -> Any:
    """Returns the SDK's client; no packet is sent.

    Args:
        account: where and as whom.
        connections: how many calls there may be at one time. With fewer pooled connections than threads the surplus
            ones are thrown away after each call.
    """
    sdk = load_sdk()
    config = sdk.Config(
        access_key_id=account.key.access_key_id,
        access_key_secret=account.key.access_key_secret,
        security_token=account.key.security_token or None,
        region_id=account.region,
        endpoint=account.host,
        protocol=account.protocol,
        max_idle_conns=connections,
    )
    return sdk.Client(config)


def runtime(read_timeout_s: float) -> Any:
    """Returns the options of one call: the longest wait for a piece of the answer; there is no limit for the whole."""
    return load_sdk().RuntimeOptions(
        connect_timeout=round(min(CONNECT_TIMEOUT_S, read_timeout_s) * 1000) or 1,
        read_timeout=round(read_timeout_s * 1000) or 1,
    )


def called(call: Callable[..., Any], *arguments: Any) -> Any:
    """Calls the SDK; its exceptions hold the body and the Authorization header, so none of them leaves here.

    Raises:
        CallFailed: there is no answer, or it is an error of the provider.
    """
    sdk = load_sdk()
    failed: CallFailed | None = None
    try:
        return call(*arguments)
    except sdk.AlibabaCloudException as error:
        failed = _refused(error)
    except sdk.UnretryableException as error:
        failed = _broken(error)
    raise failed


def proxy_variable() -> str:
    """Returns the variable that sends calls through a proxy: the SDK heeds it even for 127.0.0.1; else nothing."""
    return next((name for name in PROXY_VARIABLES if os.environ.get(name)), "")


def _refused(error: Any) -> CallFailed:
    """An error in which the provider answered."""
    code = error.code if error.code not in (None, "None") else (error.data or {}).get("errorCode", "")
    status = error.status_code or 0
    kind = failure_kind(status)
    retry_after_ms = getattr(error, "retry_after", None)
    failure = Failure(
        kind,
        f"Function Compute refused the call ({status} {code}){_advice(kind, status)}",
        retry_after_ms / 1000 if retry_after_ms else None,
    )
    data = error.data or {}
    said = str(data.get("Message") or data.get("message") or data.get("errorMessage") or "")
    return CallFailed(failure, code=str(code), status=status, said=said[:500])


def _advice(kind: FailureKind, status: int) -> str:
    if status == 404:
        return ": deploy the function, or correct `function` and `qualifier` of the tier"
    if kind is FailureKind.FORBIDDEN:
        return ": check the access key that [function] refers to, and its permission fc:InvokeFunction"
    return ""


def _broken(error: Any) -> CallFailed:
    """An error in which no answer came, or none that the SDK can read (then the status is lost)."""
    import requests.exceptions as rx

    inner = error.inner_exception
    cause = inner.__context__ or inner
    if isinstance(cause, rx.ConnectTimeout) or "NewConnectionError" in str(cause):
        return _failed(FailureKind.UNREACHABLE, "cannot be reached")
    if isinstance(cause, rx.ReadTimeout):
        return _failed(FailureKind.TIMEOUT, "did not answer in time")
    if isinstance(cause, (rx.ConnectionError, rx.ChunkedEncodingError)):
        return _failed(FailureKind.BROKEN, "broke the connection")
    if "parse the value as json" in str(inner) or isinstance(inner, AttributeError):
        return _failed(FailureKind.SERVER, "answered with an error that cannot be read")
    return _failed(FailureKind.SERVER, f"cannot be called: {type(inner).__name__} in the SDK")


def _failed(kind: FailureKind, what: str) -> CallFailed:
    return CallFailed(Failure(kind, f"Function Compute {what}"))
