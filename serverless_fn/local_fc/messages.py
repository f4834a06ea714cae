"""What the HTTP face hands to the handlers, and what they hand back."""

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
    """A request that was read, verified and matched to an operation.

    Attributes:
        request_id: given to it on arrival.
        function: the function in its path, "" if it has none.
        item: the alias or trigger in its path, "" if it has none.
        query: its query; of a repeated name the last.
        headers: by lower-case name.
        body: all of it, or its beginning if `body_bytes` is more than the endpoint keeps.
        body_bytes: its length.
        now: when it arrived.
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
        """The version or alias that is meant; LATEST if none is named."""
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
        except ValueError as error:
            raise invalid_argument(f"the body is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise invalid_argument("the body must be a JSON object")
        return content


@dataclass(frozen=True, slots=True)
class Reply:
    """A response, and the faults that are to befall it on its way.

    Attributes:
        status: of HTTP.
        body: its bytes.
        content_type: of the body.
        headers: beside Content-Type and X-Fc-Request-Id.
        wire_faults: to befall it.
    """

    status: int
    body: bytes = b""
    content_type: str = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)
    wire_faults: tuple[Hit, ...] = ()


def json_reply(content: Mapping[str, Any], status: int = 200) -> Reply:
    """Returns a JSON object as a response; the SDK takes nothing else from any operation but a deletion."""
    return Reply(status, json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode())


def error_reply(error: FcError, request_id: str) -> Reply:
    """Returns an error in the form that the SDK's `Error` model reads."""
    content = {"Code": error.code, "Message": error.message, "RequestId": request_id}
    headers = {"x-acs-retry-after": str(error.retry_after_ms)} if error.retry_after_ms else {}
    return Reply(error.status, json.dumps(content).encode(), headers=headers)
