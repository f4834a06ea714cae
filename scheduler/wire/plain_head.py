"""The head of an ordinary request, read by msgspec: all inputs binary, parameters that are numbers and short texts.

What a type can say is checked while it is read. None is returned for anything else, be it unusual or wrong; the reader
of `body` then says what it is. Without msgspec, which not every host has, that one reads all.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, cast

_msgspec: Any
try:
    import msgspec as _msgspec
except ImportError:
    _msgspec = None

# Escapes, and bytes that are not printed ASCII, are left to the other reader: what they may be is said in one place.
_PLAIN = re.compile(rb"[ -\[\]-~]+")
MOST_ELEMENTS = 2**40


def _made() -> Any:
    """Returns what reads heads; None without msgspec."""
    if _msgspec is None:
        return None
    listed: Any = list
    whole, name = _within(int, ge=0, le=2**40), _within(str, min_length=1)
    number = _within(int, ge=-(2**53), le=2**53)

    def struct(called: str, *fields: Any) -> Any:
        return _msgspec.defstruct(called, fields, forbid_unknown_fields=True)

    entry = struct(
        "Input",
        ("name", name),
        ("datatype", str),
        ("shape", _within(listed[whole], min_length=1, max_length=8)),
        ("parameters", struct("InputParameters", ("binary_data_size", whole))),
    )
    of_output = struct("OutputParameters", ("binary_data", bool | None, None), ("classification", whole, 0))
    output = struct("Output", ("name", name), ("parameters", of_output | None, None))
    head = struct(
        "Head",
        ("inputs", _within(listed[entry], min_length=1)),
        ("id", str, ""),
        ("outputs", listed[output] | None, None),
        ("parameters", cast(Any, dict)[str, bool | number | str] | None, None),
    )
    return _msgspec.json.Decoder(head)


def _within(kind: Any, **limits: int) -> Any:
    """Returns a type within limits."""
    return cast(Any, Annotated)[kind, _msgspec.Meta(**limits)]


def _made_for_answers() -> Any:
    """Returns what reads heads of answers; None without msgspec."""
    if _msgspec is None:
        return None
    listed: Any = list
    whole, name = _within(int, ge=0, le=2**40), _within(str, min_length=1)
    number = _within(int, ge=-(2**53), le=2**53)

    def struct(called: str, *fields: Any) -> Any:
        return _msgspec.defstruct(called, fields, forbid_unknown_fields=True)

    entry = struct(
        "AnsweredOutput",
        ("name", name),
        ("datatype", str),
        ("shape", _within(listed[whole], min_length=1, max_length=8)),
        ("parameters", struct("AnsweredParameters", ("binary_data_size", whole))),
    )
    head = struct(
        "AnswerHead",
        ("model_name", name),
        ("outputs", _within(listed[entry], min_length=1)),
        ("id", str, ""),
        ("model_version", str, ""),
        ("parameters", cast(Any, dict)[str, bool | number | float | str] | None, None),
    )
    return _msgspec.json.Decoder(head)


_decoder = _made()
_answer_decoder = _made_for_answers()


def plain_answer_head(head: memoryview) -> Any:
    """Returns what the head of an ordinary answer says, as `plain_head` does of a request."""
    if _answer_decoder is None or _PLAIN.fullmatch(head) is None:
        return None
    try:
        found = _answer_decoder.decode(head)
    except _msgspec.DecodeError:
        return None
    outputs = found.outputs
    if len(outputs) > 1 and len({each.name for each in outputs}) < len(outputs):
        return None
    for each in outputs:
        if not 0 < math.prod(each.shape) <= MOST_ELEMENTS:
            return None
    return found


def plain_head(head: memoryview) -> Any:
    """Returns what an ordinary head says, with values of the right types and ranges; None for any other one."""
    if _decoder is None or _PLAIN.fullmatch(head) is None:
        return None
    try:
        found = _decoder.decode(head)
    except _msgspec.DecodeError:
        return None
    inputs, outputs = found.inputs, found.outputs
    if len(inputs) > 1 and len({each.name for each in inputs}) < len(inputs):
        return None
    if outputs and len({each.name for each in outputs}) < len(outputs):
        return None
    for each in inputs:
        if not 0 < math.prod(each.shape) <= MOST_ELEMENTS:
            return None
    return found
