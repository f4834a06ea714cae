"""Calls of Function Compute through the provider's SDK: without its log output and its retries, with errors by kind.

Each rule here answers a problem that was reproduced with SDK 4.8.3.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cache
from types import SimpleNamespace
from typing import Any

from scheduler.bounded_answers import AnswerTooLarge, answer_head, answers_up_to, bounded, forget_answer
from scheduler.domain.batches import Failure, FailureKind
from scheduler.domain.failures import TOO_LARGE, lost, mend, platform_kind
from scheduler.sdk_connections import beside_proxies, bypasses_proxies, preparing

PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
CONNECT_TIMEOUT_S = 3.0
SAID_CHARACTERS = 300
"""Longest part of the provider's sentence in a log line."""


@dataclass(frozen=True, slots=True)
class AccessKey:
    """The key that signs calls; its repr does not show any of it."""

    access_key_id: str = field(repr=False)
    access_key_secret: str = field(repr=False)
    security_token: str = field(default="", repr=False)
    """Token of a temporary (STS) key; empty for a permanent key."""


@dataclass(frozen=True, slots=True)
class Account:
    """The endpoint and the access key with which functions are called."""

    region: str
    key: AccessKey
    endpoint: str = ""
    """HOST or HOST:PORT; empty: the region's public endpoint."""
    protocol: str = "https"

    @property
    def host(self) -> str:
        """The endpoint that calls go to."""
        return self.endpoint or f"fcv3.{self.region}.aliyuncs.com"


@dataclass(frozen=True, slots=True)
class Invoked:
    """An answer to InvokeFunction with HTTP 200; the function itself may have failed."""

    body: bytes
    error_type: str
    """Header X-Fc-Error-Type; if it is not empty, the function failed and is billed."""

    @property
    def initializer_failed(self) -> bool:
        """Whether the platform says that the initializer of a new instance failed, so that the call never ran."""
        return self.error_type == "InitializationError"

    def without_frame(self, error: Exception) -> str:
        """Returns a sentence about an answer whose body is not a frame.

        A crash, a timeout or a failed start comes as HTTP 200 with an error type and a body of the platform.

        Args:
            error: why the body is not a frame.
        """
        if not self.error_type:
            return f"the function's answer cannot be read: {error}"
        try:
            reason = str(json.loads(self.body)["errorMessage"])
        except (ValueError, KeyError, TypeError, RecursionError):
            reason = self.body[:200].decode(errors="replace")
        return f"the function failed ({self.error_type}): {reason[:500]}"


class CallFailed(Exception):
    """A call without an answer from the called function or operation."""

    def __init__(self, failure: Failure, *, code: str = "", status: int = 0, said: str = "") -> None:
        """Stores the failure.

        Args:
            failure: its kind, and one sentence.
            code: the provider's code of the error; empty if there is none.
            status: the HTTP status; 0 if there was no answer, or none that the SDK can read.
            said: the provider's own message.
        """
        super().__init__(failure.message)
        self.failure = failure
        self.code = code
        self.status = status
        self.said = said


class FunctionCaller:
    """A client for the functions of one account. Every method blocks, so call it in threads."""

    def __init__(self, account: Account, *, connections: int) -> None:
        """Stores its parts; the first call imports the SDK.

        Args:
            account: endpoint and access key.
            connections: maximum of calls at one time.
        """
        self._account = account
        self._connections = connections
        self._client: Any = None

    def open(self) -> None:
        """Imports the SDK and creates the client; sends nothing."""
        if self._client is None:
            self._client = make_client(self._account, connections=self._connections)

    def invoke(
        self, *, function: str, qualifier: str, body: bytes, read_timeout_s: float, limit_bytes: int | None = None
    ) -> Invoked:
        """Invokes a function and waits for its answer.

        Args:
            function: name of the function.
            qualifier: version or alias.
            body: the payload. The SDK would read a stream in pieces of 1 KiB, and retry it empty.
            read_timeout_s: longest wait for each piece of the answer; the whole answer has no limit.
            limit_bytes: size of the largest answer that is read; None: any size is.

        Raises:
            CallFailed: the function did not answer, or with more than that.
        """
        sdk = load_sdk()
        request = sdk.models.InvokeFunctionRequest(body=body, qualifier=qualifier)
        headers = sdk.models.InvokeFunctionHeaders(x_fc_invocation_type="Sync")
        call = self._client.invoke_function_with_options
        with answers_up_to(limit_bytes):
            response = called(call, function, request, headers, runtime(read_timeout_s))
        return Invoked(response.body.read(), response.headers.get("x-fc-error-type") or "")

    def check(self, *, function: str, qualifier: str) -> Mapping[str, Any]:
        """Returns a function's description in the provider's fields, by a signed call that runs nothing and is free.

        It also opens the SDK's process-wide session; otherwise the first calls in several threads would each open one.

        Raises:
            CallFailed: the endpoint, the key or the name is wrong.
        """
        request = load_sdk().models.GetFunctionRequest(qualifier=qualifier)
        call = self._client.get_function_with_options
        return dict(called(call, function, request, {}, runtime(CONNECT_TIMEOUT_S)).body.to_map())


@cache
def load_sdk() -> SimpleNamespace:
    """Returns the SDK, imported once without its log output, and prepared for processes that fork."""
    from alibabacloud_fc20230330 import models
    from alibabacloud_fc20230330.client import Client
    from alibabacloud_tea_openapi.exceptions import AlibabaCloudException
    from alibabacloud_tea_openapi.utils_models import Config
    from darabonba.core import DaraCore
    from darabonba.exceptions import UnretryableException
    from darabonba.runtime import RuntimeOptions

    # The import sets this logger to DEBUG with a handler of its own; with DEBUG=sdk it would print signed headers.
    logger = logging.getLogger("darabonba-core")
    logger.handlers.clear()
    logger.setLevel(logging.ERROR)
    DaraCore.get_adapter = staticmethod(preparing(bounded(beside_proxies(DaraCore.get_adapter))))
    # Forked children would share the sockets and read each other's answers.
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
    """Returns the SDK's client; sends nothing.

    Args:
        account: endpoint and access key.
        connections: maximum of calls at one time. With fewer pooled connections than threads, the SDK would close the
            surplus ones after each call.
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
    """Returns the options of one call; `read_timeout_s` limits the wait for each piece of the answer, not the whole."""
    return load_sdk().RuntimeOptions(
        connect_timeout=round(min(CONNECT_TIMEOUT_S, read_timeout_s) * 1000) or 1,
        read_timeout=round(read_timeout_s * 1000) or 1,
    )


def called(call: Callable[..., Any], *arguments: Any) -> Any:
    """Calls the SDK. Its exceptions hold the body and the Authorization header, so they are replaced.

    Raises:
        CallFailed: there is no answer, or the provider answered with an error.
    """
    sdk = load_sdk()
    failed: CallFailed | None = None
    forget_answer()
    try:
        return call(*arguments)
    except sdk.AlibabaCloudException as error:
        failed = _refused(error)
    except sdk.UnretryableException as error:
        failed = _broken(error)
    raise failed


def proxy_variable(host: str = "") -> str:
    """Returns the name of the set proxy variable that calls of a host follow; empty without one.

    Args:
        host: HOST or HOST:PORT; empty: any that needs a proxy.
    """
    if host and bypasses_proxies(host):
        return ""
    return next((name for name in PROXY_VARIABLES if os.environ.get(name)), "")


def _refused(error: Any) -> CallFailed:
    """Returns the failure for an error that the provider answered."""
    code = error.code if error.code not in (None, "None") else (error.data or {}).get("errorCode", "")
    data = error.data or {}
    said = str(data.get("Message") or data.get("message") or data.get("errorMessage") or "")
    return _failed_with(error.status_code or 0, str(code), said, retry_after_ms=getattr(error, "retry_after", None))


def _failed_with(status: int, code: str, said: str, *, retry_after_ms: float | None = None) -> CallFailed:
    """Returns the failure for an error with a status, the provider's code and its sentence."""
    kind = platform_kind(status, code, asks_to_wait=bool(retry_after_ms))
    advice = mend(kind, status, code, said=said, ahead_s=_ahead_s())
    what = f"{status} {code}" if code else f"{status}, an error that cannot be read"
    failure = Failure(
        kind,
        f"Function Compute refused the call ({what})" + (f": {advice}" if advice else ""),
        retry_after_ms / 1000 if retry_after_ms else None,
        by_size=status == TOO_LARGE or kind is FailureKind.REJECTED,
        said=f"{code}: {said}"[:SAID_CHARACTERS] if said else code,
    )
    return CallFailed(failure, code=code, status=status, said=said[:500])


def _ahead_s() -> float | None:
    """Returns by how many seconds this host's clock is ahead of the last answer's Date; None: it has none."""
    try:
        now_s = time.time()  # noqa: TID251 - compared with the provider's
        return now_s - parsedate_to_datetime(answer_head()[1]).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _broken(error: Any) -> CallFailed:
    """Returns the failure for an error without an answer, or with one that the SDK cannot read."""
    inner = error.inner_exception
    cause = inner.__context__ or inner
    if isinstance(cause, AnswerTooLarge):
        return _failed(FailureKind.BROKEN, str(cause))
    if (meaning := lost(cause)) is not None:
        return _failed(meaning.kind, meaning.sentence)
    if "parse the value as json" in str(inner) or isinstance(inner, AttributeError):
        status, _ = answer_head()
        if status >= 400:
            return _failed_with(status, "", "")
        return _failed(FailureKind.SERVER, "answered with an error that cannot be read")
    return _failed(FailureKind.SERVER, f"cannot be called: {type(inner).__name__} in the SDK")


def _failed(kind: FailureKind, what: str) -> CallFailed:
    return CallFailed(Failure(kind, f"Function Compute {what}"))
