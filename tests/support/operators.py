"""What operators may do with a daemon in tests: a token for everything, and the calls that need it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from typing import Any

ADMIN_TOKEN = "a token for the operators of tests"
HEADERS = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
ENVIRON = {"EDGEBURST_DAEMON__ADMIN_TOKEN_ENV": "TEST_OPERATOR", "TEST_OPERATOR": ADMIN_TOKEN}
"""The environment of a daemon that knows the token, whatever its file says."""


def put(url: str, values: Mapping[str, object] | bytes, *, headers: Mapping[str, str] = HEADERS) -> dict[str, Any]:
    """Sends a PUT as an operator and returns the JSON of its answer; raises HTTPError for another status than 200."""
    content = values if isinstance(values, bytes) else json.dumps(values).encode()
    request = urllib.request.Request(url, content, headers=dict(headers), method="PUT")
    with urllib.request.urlopen(request, timeout=20) as response:
        answer: dict[str, Any] = json.loads(response.read())
    return answer
