"""Packs responses as the client's Accept-Encoding allows."""

from __future__ import annotations

from aiohttp import web
from aiohttp.web_response import ContentCoding

LEAST_BYTES = 1400
"""A shorter body fits into one packet as it is: packing it costs time and saves none."""

EXECUTOR_BYTES = 64 * 1024
"""`zlib_executor_size` of responses: a longer body is packed in a thread, so that the event loop goes on meanwhile."""

_CODINGS = (ContentCoding.gzip, ContentCoding.deflate)
"""In the order of preference."""


def pack(request: web.Request, response: web.Response) -> None:
    """Packs a response that has not been sent yet, if the client takes that and the body is long enough."""
    body = response.body
    if not isinstance(body, bytes) or len(body) < LEAST_BYTES:
        return
    response.headers["Vary"] = "Accept-Encoding"
    coding = accepted(request.headers.get("Accept-Encoding", ""))
    if coding is not None:
        response.enable_compression(coding)


def accepted(header: str) -> ContentCoding | None:
    """Returns the coding that an Accept-Encoding likes best of those that are known; None: the body as it is.

    >>> accepted("deflate;q=0.5, gzip;q=0.9, br")
    <ContentCoding.gzip: 'gzip'>
    >>> accepted("gzip;q=0, identity")
    """
    weights = dict(_weight(entry) for entry in header.lower().split(","))
    others = weights.get("*", 0.0)
    best = max(_CODINGS, key=lambda coding: weights.get(coding.value, others))
    return best if weights.get(best.value, others) > 0 else None


def _weight(entry: str) -> tuple[str, float]:
    name, _, parameter = entry.partition(";")
    key, _, value = parameter.partition("=")
    if key.strip() != "q":
        return name.strip(), 1.0
    try:
        return name.strip(), float(value)
    except ValueError:
        return name.strip(), 0.0
