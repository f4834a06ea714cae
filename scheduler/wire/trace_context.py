"""The trace that a request belongs to: W3C's headers `traceparent` and `tracestate`, checked and written.

Reference: https://www.w3.org/TR/trace-context/, versions 1 and 2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

PARENT_HEADER = "traceparent"
STATE_HEADER = "tracestate"

MAX_STATE_CHARACTERS = 512
MAX_STATE_MEMBERS = 32
_LONG_MEMBER = 128

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MEMBER = re.compile(
    r"([a-z0-9][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A place in a trace."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits: the span that what follows is part of."""
    sampled: bool = False
    """Whether the caller records the trace."""
    state: str = ""
    """What vendors keep of the trace, as the header carries it; empty: nothing."""

    def headers(self) -> dict[str, str]:
        """Returns the headers that pass the trace on."""
        parent = {PARENT_HEADER: f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"}
        return {**parent, STATE_HEADER: self.state} if self.state else parent


def trace_of(parents: Sequence[str], states: Sequence[str] = ()) -> TraceContext | None:
    """Returns the trace that a request's headers name, None where they name none or break the rules of the standard.

    Args:
        parents: every value of `traceparent`; one that occurs twice is not valid.
        states: every value of `tracestate`; several are one list.

    >>> trace_of(["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]).span_id
    '00f067aa0ba902b7'
    """
    if len(parents) != 1:
        return None
    found = _PARENT.fullmatch(parents[0].strip(" \t"))
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    # What later versions append is not known; the first version has nothing after the flags.
    if version == "ff" or (version == "00" and more is not None) or not (int(trace_id, 16) and int(span_id, 16)):
        return None
    return TraceContext(trace_id, span_id, sampled=bool(int(flags, 16) & 1), state=_state(states))


def _state(values: Sequence[str]) -> str:
    """Returns the list of vendors' entries; empty if one is not valid. Long entries go first where it is too long."""
    members = [member.strip(" \t") for value in values for member in value.split(",")]
    members = [member for member in members if member]
    keys = [member.partition("=")[0] for member in members]
    valid = all(_MEMBER.fullmatch(member) for member in members) and len(set(keys)) == len(keys)
    if not valid or len(members) > MAX_STATE_MEMBERS:
        return ""
    while len(",".join(members)) > MAX_STATE_CHARACTERS:
        long = [member for member in members if len(member) > _LONG_MEMBER]
        members.remove(long[-1] if long else members[-1])
    return ",".join(members)
