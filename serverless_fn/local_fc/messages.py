"""Calls and replies: the values between the HTTP interface and the handlers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from serverless_fn.local_fc.errors import FcError, invalid_argument
from serverless_fn.local_fc.faults import Hit

JSON_TYPE = "application/json"
BYTES_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Call:
    """Request that was read, verified and matched to an operation.

    Attributes:
        request_id: id given on arrival.
        function: the function in its path, "" if it has none.
        item: the alias or trigger in its path, "" if it has none.
        query: its query; of a repeated name, the last value.
        headers: by lower-case name.
        body: the body, or its beginning if `body_bytes` exceeds what the endpoint keeps.
        body_bytes: length of the whole body.
        now: time of arrival.
    """

    request_id: str
    function: str
    item: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    body_bytes: int
    now: datetime

    @property
    def qualifier(self) -> str:
        """The version or alias in the query; LATEST by default."""
        return self.query.get("qualifier") or "LATEST"

    def json(self) -> dict[str, Any]:
        """Returns the body as a JSON object; an empty body is an empty object.

        Raises:
            FcError: 400 InvalidArgument.
        """
        if not self.body:
            return {}
        try:
            content = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise invalid_argument(f"the body is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise invalid_argument("the body must be a JSON object")
        return content


@dataclass(frozen=True, slots=True)
class Reply:
    """Response, and the faults that act on it on the wire.

    Attributes:
        status: HTTP status.
        body: body of the response.
        content_type: content type of the body.
        headers: headers other than Content-Type and X-Fc-Request-Id.
        wire_faults: faults that act on it on the wire.
    """

    status: int
    body: bytes = b""
    content_type: str = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)
    wire_faults: tuple[Hit, ...] = ()


def json_reply(content: Mapping[str, Any], status: int = 200) -> Reply:
    """Returns a response with a JSON object, which the SDK expects from all operations except deletions."""
    return Reply(status, json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode())


def error_reply(error: FcError, request_id: str) -> Reply:
    """Returns an error in the form that the SDK's `Error` model reads."""
    content = {"Code": error.code, "Message": error.message, "RequestId": request_id}
    headers = {"x-acs-retry-after": str(error.retry_after_ms)} if error.retry_after_ms else {}
    return Reply(error.status, json.dumps(content).encode(), headers=headers)
