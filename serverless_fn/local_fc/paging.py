"""Lists in pages: the query parameters of List operations and their result."""

from __future__ import annotations

import json
from collections.abc import Sequence

from serverless_fn.local_fc.errors import invalid_argument
from serverless_fn.local_fc.messages import Call

_PAGE_MAX = 100


def page(call: Call, names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Returns the names of one page, and the token of the next if there is one.

    Args:
        call: with `prefix`, `limit`, `nextToken` in its query; the token is the last name of the page before.
        names: all names, in the order of the list.

    Raises:
        FcError: 400 InvalidArgument.
    """
    prefix, after = call.query.get("prefix", ""), call.query.get("nextToken")
    if after is not None and after not in names:
        raise invalid_argument(f"nextToken is {after!r}, which no page before gave")
    rest = names[names.index(after) + 1 :] if after is not None else names
    found = [name for name in rest if name.startswith(prefix)]
    limit = whole(call, "limit", _PAGE_MAX, 1, _PAGE_MAX)
    shown = found[:limit]
    return shown, {"nextToken": shown[-1]} if len(found) > limit else {}


def whole(call: Call, key: str, default: int, low: int, high: int) -> int:
    """Returns a whole number from the query.

    Raises:
        FcError: 400 InvalidArgument.
    """
    text = call.query.get(key)
    if text is None:
        return default
    if not text.isdecimal() or not low <= int(text) <= high:
        raise invalid_argument(f"{key} must be a whole number from {low} to {high}; it is {text!r}")
    return int(text)


def texts(call: Call, key: str) -> list[str]:
    """Returns a list from the query, which the SDK writes as JSON.

    Raises:
        FcError: 400 InvalidArgument.
    """
    try:
        content = json.loads(call.query.get(key, "[]"))
    except (ValueError, RecursionError) as error:
        raise invalid_argument(f"{key} must be a JSON list: {error}") from error
    if not isinstance(content, list):
        raise invalid_argument(f"{key} must be a JSON list")
    return [str(each) for each in content]
