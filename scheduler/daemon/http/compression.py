"""Packs answers as the client's Accept-Encoding allows."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from types import MappingProxyType

from scheduler.daemon.http.rendered import Rendered

LEAST_BYTES = 1400
"""A shorter body fits into one packet as it is: packing it costs time and saves none."""

EXECUTOR_BYTES = 64 * 1024
"""A longer body is packed in a thread, so that the event loop goes on meanwhile."""

_CODINGS: Mapping[str, int] = MappingProxyType({"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS})
"""By name, in the order of preference: zlib's number of bits."""


async def pack(rendered: Rendered, accept_encoding: str) -> None:
    """Packs an answer that has not been sent yet, if the client takes that and the body is long enough.

    Args:
        rendered: the answer.
        accept_encoding: value of that header; empty: none.
    """
    body = rendered.body
    if len(body) < LEAST_BYTES:
        return
    rendered.headers["Vary"] = "Accept-Encoding"
    coding = accepted(accept_encoding)
    if coding is None:
        return
    rendered.headers["Content-Encoding"] = coding
    if len(body) > EXECUTOR_BYTES:
        rendered.body = await asyncio.get_running_loop().run_in_executor(None, _packed, body, coding)
    else:
        rendered.body = _packed(body, coding)


def _packed(body: bytes, coding: str) -> bytes:
    packer = zlib.compressobj(wbits=_CODINGS[coding])
    return packer.compress(body) + packer.flush()


def accepted(header: str) -> str | None:
    """Returns the coding that an Accept-Encoding likes best of those that are known; None: the body as it is.

    >>> accepted("deflate;q=0.5, gzip;q=0.9, br")
    'gzip'
    >>> accepted("gzip;q=0, identity")
    """
    weights = dict(_weight(entry) for entry in header.lower().split(","))
    others = weights.get("*", 0.0)
    best = max(_CODINGS, key=lambda coding: weights.get(coding, others))
    return best if weights.get(best, others) > 0 else None


def _weight(entry: str) -> tuple[str, float]:
    name, _, parameter = entry.partition(";")
    key, _, value = parameter.partition("=")
    if key.strip() != "q":
        return name.strip(), 1.0
    try:
        return name.strip(), float(value)
    except ValueError:
        return name.strip(), 0.0
