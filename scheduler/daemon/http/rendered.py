"""An answer as HTTP writes it, of no library's type, so that both servers of HTTP write the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

JSON = "application/json"


@dataclass(slots=True)
class Rendered:
    """Status, body and headers of an answer; what HTTP itself adds is not among them."""

    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": JSON})
    status: int = 200


def rendered_error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Rendered:
    """Returns an error as JSON."""
    return Rendered(orjson.dumps({"error": message}), {**(headers or {}), "Content-Type": JSON}, status)
