"""One batch to a function and back, through the provider's SDK: what the container says its work took."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from scheduler import wire
from scheduler.measuring.edge_call import check_outputs
from scheduler.measuring.errors import MeasuringError
from scheduler.wire import InferRequest, Tensor, WireError

PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
_CONNECT_TIMEOUT_MS = 5_000
_READ_TIMEOUT_MS = 600_000
_COLD_STARTS_IN_A_ROW = 20


@dataclass(frozen=True, slots=True)
class FunctionAddress:
    """Which function, where, and as whom.

    Parameters:
        function: its name.
        qualifier: version or alias.
        region: of the account.
        endpoint: HOST or HOST:PORT; empty for the region's public one.
        protocol: https or http.
        access_key_id: of the account.
        access_key_secret: of the account.
        security_token: of a temporary key; empty for a permanent one.
    """

    function: str
    qualifier: str
    region: str
    endpoint: str
    protocol: str
    access_key_id: str
    access_key_secret: str = field(repr=False)
    security_token: str = field(default="", repr=False)

    @property
    def host(self) -> str:
        """The endpoint in use."""
        return self.endpoint or f"fcv3.{self.region}.aliyuncs.com"


class FunctionCaller:
    """Invokes a function with batches of some pictures, taken in turn."""

    def __init__(self, address: FunctionAddress, *, model: str, input_name: str, pictures: Sequence[bytes]) -> None:
        """Stores its parts; the first call imports the SDK."""
        self._address = address
        self._model = model
        self._input_name = input_name
        self._pictures = pictures
        self._client: Any = None
        self.invocations = 0
        """How many there were, cold starts included; each is billed."""
        self.cold_starts = 0

    def __call__(self, items: int) -> float:
        """Returns the container's own figure for a batch on a warm instance, seconds.

        A cold start is another matter than a batch size: such an invocation is made again.

        Raises:
            MeasuringError: the function cannot be called, failed, or never was warm.
        """
        for _ in range(_COLD_STARTS_IN_A_ROW):
            header = self._invoked(items)
            if header.get("cold_start") is not True:
                return self._service_s(header)
            self.cold_starts += 1
        raise MeasuringError(
            f"{_COLD_STARTS_IN_A_ROW} invocations in a row met a cold start; provision an instance of the function"
        )

    def _service_s(self, header: Mapping[str, object]) -> float:
        service_s = header.get("service_s")
        if isinstance(service_s, bool) or not isinstance(service_s, (int, float)):
            raise MeasuringError("the function does not say its `service_s`; deploy this project's container")
        return float(service_s)

    def _invoked(self, items: int) -> Mapping[str, object]:
        """The header of the answer's frame."""
        elements = [self._pictures[index % len(self._pictures)] for index in range(items)]
        request = InferRequest("", (Tensor.from_elements(self._input_name, elements),), parameters={})
        header = {"model": self._model, "batch_id": secrets.token_hex(8)}
        body, error_type = self._answer(wire.pack_frame(header, wire.encode_request(request)))
        self.invocations += 1
        try:
            answered, payload = wire.unpack_frame(body)
            if answered.get("status") != 200 or error_type:
                raise MeasuringError(
                    f"the function refused a batch of {items}: {str(answered.get('error') or error_type)[:300]}"
                )
            check_outputs(payload.body, payload.json_length, items)
        except WireError as error:
            raise _unreadable(body, error_type, error) from error
        return answered

    def _answer(self, frame: bytes) -> tuple[bytes, str]:
        """Body and error type; a function's failure is HTTP 200 with the latter."""
        sdk = _load_sdk()
        request = sdk["InvokeFunctionRequest"](body=frame, qualifier=self._address.qualifier)
        headers = sdk["InvokeFunctionHeaders"](x_fc_invocation_type="Sync")
        runtime = sdk["RuntimeOptions"](connect_timeout=_CONNECT_TIMEOUT_MS, read_timeout=_READ_TIMEOUT_MS)
        problem = ""
        try:
            self._client = self._client or _client(sdk, self._address)
            call = self._client.invoke_function_with_options
            response = call(self._address.function, request, headers, runtime)
            return response.body.read(), response.headers.get("x-fc-error-type") or ""
        except sdk["AlibabaCloudException"] as error:
            problem = f"refused the call ({error.status_code} {error.code}); check function, qualifier and access key"
        except sdk["UnretryableException"] as error:
            problem = f"cannot be reached ({type(error.inner_exception).__name__}); check endpoint and protocol"
        # Raised out here because the SDK's exceptions hold the body and the signed headers.
        raise MeasuringError(f"Function Compute at {self._address.host} {problem}")


def proxy_note() -> str:
    """Returns a sentence where calls will go through a proxy: the SDK heeds it even for 127.0.0.1; else nothing."""
    found = next((name for name in PROXY_VARIABLES if os.environ.get(name)), "")
    return (
        f"calls go through the proxy in {found}, also to this machine; unset it if that is not meant" if found else ""
    )


def _unreadable(body: bytes, error_type: str, error: WireError) -> MeasuringError:
    """A crash, a timeout or a failed start comes as HTTP 200 with an error type and the platform's own body."""
    if not error_type:
        return MeasuringError(f"the function's answer cannot be read: {error}")
    try:
        reason = str(orjson.loads(body)["errorMessage"])
    except (ValueError, KeyError, TypeError):
        reason = body[:200].decode(errors="replace")
    return MeasuringError(f"the function failed ({error_type}): {reason[:300]}")


def _load_sdk() -> Mapping[str, Any]:
    from alibabacloud_fc20230330 import models
    from alibabacloud_fc20230330.client import Client
    from alibabacloud_tea_openapi.exceptions import AlibabaCloudException
    from alibabacloud_tea_openapi.utils_models import Config
    from darabonba.exceptions import UnretryableException
    from darabonba.runtime import RuntimeOptions

    # The import sets this logger to DEBUG with a handler of its own, which may print signed headers.
    logger = logging.getLogger("darabonba-core")
    logger.handlers.clear()
    logger.setLevel(logging.ERROR)
    return {
        "Client": Client,
        "Config": Config,
        "InvokeFunctionRequest": models.InvokeFunctionRequest,
        "InvokeFunctionHeaders": models.InvokeFunctionHeaders,
        "RuntimeOptions": RuntimeOptions,
        "AlibabaCloudException": AlibabaCloudException,
        "UnretryableException": UnretryableException,
    }


def _client(sdk: Mapping[str, Any], address: FunctionAddress) -> Any:
    return sdk["Client"](
        sdk["Config"](
            access_key_id=address.access_key_id,
            access_key_secret=address.access_key_secret,
            security_token=address.security_token or None,
            region_id=address.region,
            endpoint=address.host,
            protocol=address.protocol,
        )
    )
