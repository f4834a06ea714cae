"""Mutations that know the form of an input: values in JSON, lines of TOML. Bytes are mutated by the search itself."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

Mutate = Callable[[bytes, random.Random], bytes]

VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        3,
        0.5,
        -0.0,
        1e-9,
        1e308,
        5e-324,
        2**31,
        2**32,
        2**53,
        2**63 - 1,
        2**64,
        -(2**63),
    ),
    *(
        10**30,
        "",
        "x",
        "é",
        "\0",
        "a" * 300,
        "1",
        "nan",
        [],
        {},
        [0],
        [1, 2],
        [[]],
        {"a": 1},
        float("nan"),
        float("inf"),
    ),
)


def of_json(data: bytes, rng: random.Random) -> bytes:
    """Returns JSON with some values, keys or items changed; other bytes as they are."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return data
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        document = _changed(document, rng)
    try:
        return json.dumps(document, separators=(",", ":"), ensure_ascii=rng.random() < 0.5).encode("utf-8", "replace")
    except (ValueError, RecursionError):
        return data


def _changed(document: Any, rng: random.Random) -> Any:
    places: list[tuple[Any, Any]] = []
    _collect(document, places)
    if not places:
        return rng.choice(VALUES)
    holder, key = rng.choice(places)
    kind = rng.randrange(8)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        other, other_key = rng.choice(places)
        holder[key] = _copy(other[other_key])
    elif kind == 2 and isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), _copy(holder[key]))
    elif kind == 3 and isinstance(holder, dict):
        holder[rng.choice((str(key) + "x", str(key)[:-1], str(key).upper(), ""))] = holder.pop(key)
    elif kind == 4 and type(holder[key]) in (int, float):
        holder[key] = _number_near(holder[key], rng)
    elif kind == 5:
        holder[key] = [holder[key]]
    elif kind == 6 and isinstance(holder[key], str):
        holder[key] = _text_near(holder[key], rng)
    else:
        holder[key] = _copy(rng.choice(VALUES))
    return document


def _collect(value: Any, places: list[tuple[Any, Any]]) -> None:
    pending = [value]
    while pending and len(places) < 2000:
        each = pending.pop()
        pairs = each.items() if isinstance(each, dict) else enumerate(each) if isinstance(each, list) else ()
        for key, inner in pairs:
            places.append((each, key))
            pending.append(inner)


def _copy(value: Any) -> Any:
    return json.loads(json.dumps(value)) if isinstance(value, (dict, list)) else value


def _number_near(value: float, rng: random.Random) -> float:
    kind = rng.randrange(7)
    try:
        return (
            (value + 1, value - 1, -value, value * 2, value * 1000)[kind]
            if kind < 5
            else value / 2
            if kind == 5
            else int(value) // 3
        )
    except (OverflowError, ValueError):
        return 0


def _text_near(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text) + 1)
    return rng.choice((text[:at], text[at:], text[:at] + rng.choice("\0é\n\"'.:-9 {") + text[at:], text * 2))


def of_lines(data: bytes, rng: random.Random) -> bytes:
    """Returns a text with lines dropped, doubled, swapped, or with another value behind the `=` of one."""
    lines = data.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(lines))
        kind = rng.randrange(6)
        if kind == 0 and len(lines) > 1:
            del lines[at]
        elif kind == 1:
            lines.insert(rng.randrange(len(lines) + 1), lines[at])
        elif kind == 2:
            other = rng.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        elif b"=" in lines[at]:
            key, _, value = lines[at].partition(b"=")
            others = [line for line in lines if b"=" in line]
            lines[at] = key + b"= " + _toml_value(value.strip(), rng.choice(others).partition(b"=")[2].strip(), rng)
        else:
            lines[at] = _text_near(lines[at].decode("latin-1"), rng).encode("latin-1", "replace")
        lines = lines or [b""]
    return b"\n".join(lines)


_TOML_VALUES = (
    *(b"0", b"1", b"-1", b"0.5", b"1e308", b"inf", b"-inf", b"nan", b"true", b"false", b'""', b'"x"', b"[]", b"{}"),
    *(b"9223372036854775807", b"9223372036854775808", b"1e-9", b"[1]", b'["x"]', b"{ a = 1 }", b"[{}]", b"'''\n'''"),
    *(b"1979-05-27", b"07:32:00", b'"\\u0000"', b'"\xc3\xa9"', b"[[]]", b'"edge-only"', b"0x10", b"1_000", b"1.0"),
)


def _toml_value(value: bytes, other: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return other
    try:
        return str(_number_near(float(value) if b"." in value else int(value), rng)).encode()
    except ValueError:
        return rng.choice(_TOML_VALUES)
