"""The calls of operators: limits, past batches, explanations; checks and responses for them."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, fields

import orjson
from aiohttp import web

from scheduler.daemon.ingress.errors import Rejected
from scheduler.domain.plans import Limits

DEFAULT_BATCHES = 1000
MAX_BATCHES = 10_000
_KEYS = tuple(field.name for field in fields(Limits))
_IDENTITY = re.compile("sha256:[0-9a-f]{64}")


def json_response(value: object) -> web.Response:
    """Returns a value as a JSON response, which no cache may keep: the values change all the time."""
    return web.Response(
        body=orjson.dumps(value), content_type="application/json", headers={"Cache-Control": "no-store"}
    )


def parse_limits(body: bytes) -> Limits:
    """Returns the limits in a PUT body, a JSON object; a limit that is missing or null is left to the plan.

    Raises:
        Rejected: the body is not such an object, or a value is out of range.
    """
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Rejected(400, f"the limits are not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise Rejected(400, f"the limits must be a JSON object with the keys {', '.join(_KEYS)}")
    for key in values:
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.0)[0]
            raise Rejected(400, f"limit {key[:64]!r} is unknown; did you mean {near!r}?")
    return Limits(
        window_s=_window(values.get("window_s")),
        edge_batch_cap=_cap("edge_batch_cap", values.get("edge_batch_cap")),
        function_batch_cap=_cap("function_batch_cap", values.get("function_batch_cap")),
    )


def parse_identity(body: bytes) -> str | None:
    """Returns the identity in a PUT body, `{"identity": "sha256:..."}`; null: none is accepted by an operator any more.

    Raises:
        Rejected: the body is not such an object.
    """
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Rejected(400, f"the identity is not valid JSON: {error}") from None
    identity = values.get("identity", 0) if isinstance(values, dict) and len(values) == 1 else 0
    if identity is None or (isinstance(identity, str) and _IDENTITY.fullmatch(identity)):
        return identity
    raise Rejected(
        400,
        'the identity must be a JSON object like {"identity": "sha256:..."}, with 64 hexadecimal digits, or null for'
        " what the configuration expects",
    )


def limits_json(model: str, limits: Limits) -> Mapping[str, object]:
    """Returns a model's limits as GET and PUT show them."""
    return {"model": model, **asdict(limits)}


def batch_range(request: web.Request) -> tuple[int, int]:
    """Returns `after` and `limit` of a query.

    Raises:
        Rejected: one of them is not a whole number, or the limit is out of range.
    """
    after = query_number(request, "after", 0)
    limit = query_number(request, "limit", DEFAULT_BATCHES)
    if not 1 <= limit <= MAX_BATCHES:
        raise Rejected(400, f"query key 'limit' must be from 1 to {MAX_BATCHES}")
    return after, limit


def before_number(request: web.Request) -> int | None:
    """Returns `before` of a query; None where it is absent.

    Raises:
        Rejected: it is not a whole number.
    """
    return query_number(request, "before", 0) if "before" in request.query else None


def by_client(request: web.Request) -> bool:
    """Returns whether a query asks for a client's id alone.

    Raises:
        Rejected: `by` is another word.
    """
    return _query_word(request, "by", ("number", "client")) == "client"


def wants_miss(request: web.Request) -> bool:
    """Returns whether a query asks for the newest request that missed.

    Raises:
        Rejected: `last` is another word.
    """
    return _query_word(request, "last", ("request", "miss")) == "miss"


def _query_word(request: web.Request, key: str, words: tuple[str, ...]) -> str:
    word = request.query.get(key, words[0])
    if word not in words:
        raise Rejected(400, f"query key {key!r} is {word[:32]!r}, but must be {' or '.join(words)}")
    return word


def none_yet(*, missed: bool, ring: int) -> Rejected:
    """Returns the error where there is no newest request, or none that missed, among the latest `ring`."""
    which = "was refused or late" if missed else "is yours, or has arrived yet"
    return Rejected(
        404, f"no request among the latest {ring} {which}; ask for one by its number, or by its client's id"
    )


def unknown_request(name: str, *, ring: int) -> Rejected:
    """Returns the error for a request that is not among the latest `ring` requests."""
    return Rejected(
        404,
        f"request {name[:64]!r} is unknown: it never reached this daemon, or it is not among the latest {ring};"
        " [explain] can keep more, and write them to a file",
    )


def query_number(request: web.Request, key: str, default: int) -> int:
    """Returns a whole number of a query; Rejected where it is none."""
    text = request.query.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise Rejected(400, f"query key '{key}' must be a whole number of at least 0, not {text[:32]!r}")
    return int(text)


def _window(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise Rejected(400, "limit 'window_s' must be a number of seconds of at least 0, or null")
    return float(value)


def _cap(key: str, value: object) -> int | None:
    if value is None:
        return None
    if type(value) is not int or value < 1:
        raise Rejected(400, f"limit '{key}' must be a whole number of at least 1, or null")
    return value
