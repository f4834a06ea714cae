"""A frame that holds a header, a body and its JSON length, for function invocations, which carry one body only."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import orjson

from scheduler.wire.error import WireError
from scheduler.wire.fields import json_object
from scheduler.wire.values import Encoded

FRAME_BYTES = 16 * 1024
"""More than a frame adds to the bytes of its tensors: its header, and the JSON head that names each tensor."""
_MAGIC = b"EBF1"
_U32 = struct.Struct("<I")


def pack_frame(header: Mapping[str, object], payload: Encoded) -> bytes:
    """Packs a header, a body and its JSON length in one frame.

    Layout: "EBF1", u32 header length, header JSON, u32 JSON length (0 stands for None), body. A u32 is little-endian.
    """
    head = orjson.dumps(dict(header))
    json_length = _U32.pack(payload.json_length or 0)
    return b"".join((_MAGIC, _U32.pack(len(head)), head, json_length, payload.body))


def unpack_frame(frame: bytes | memoryview) -> tuple[dict[str, object], Encoded]:
    """Reads a frame of `pack_frame`: its header, and the body with its JSON length.

    Raises:
        WireError: the frame does not begin with "EBF1", ends early, or its header is not a JSON object.
    """
    view = memoryview(frame)
    if view[:4] != _MAGIC:
        raise WireError(
            f"the frame does not begin with {_MAGIC.decode()}; run this project's container in the function"
        )
    head, at = view[8 : _frame_u32(view, 4) + 8], _frame_u32(view, 4) + 8
    json_length = _frame_u32(view, at)
    body = bytes(view[at + 4 :])
    if json_length > len(body):
        raise _truncated_frame(view)
    return json_object(head, "the frame's header"), Encoded(body, json_length or None)


def _frame_u32(frame: memoryview, at: int) -> int:
    if at + 4 > len(frame):
        raise _truncated_frame(frame)
    return int(_U32.unpack_from(frame, at)[0])


def _truncated_frame(frame: memoryview) -> WireError:
    return WireError(f"the frame of {len(frame)} bytes is shorter than the lengths in it; it was cut off")
