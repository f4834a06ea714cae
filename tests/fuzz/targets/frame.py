"""Frames of function invocations: a header, a body and its JSON length."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable

import orjson
from fuzz.mutators import of_json
from fuzz.target import Target, one_sentence

from scheduler.wire import Encoded, WireError, pack_frame, parse_request, parse_response, unpack_frame

INSTRUMENTED = ("scheduler.wire",)
_REQUEST = b'{"inputs":[{"name":"x","shape":[1],"datatype":"UINT8","parameters":{"binary_data_size":1}}]}'
_RESPONSE = b'{"model_name":"m","outputs":[{"name":"y","shape":[1],"datatype":"FP32","data":[0.5]}]}'


def check(data: bytes) -> None:
    """Reads a frame, writes it again, and reads the body in it."""
    try:
        header, payload = unpack_frame(data)
    except WireError as error:
        one_sentence(error)
        return
    again = unpack_frame(pack_frame(header, payload))
    assert again == (header, payload)
    for parse in (parse_request, parse_response):
        try:
            parse(payload.body, payload.json_length)
        except WireError as error:
            one_sentence(error)


def seeds() -> Iterable[bytes]:
    """Yields frames of both directions."""
    yield pack_frame({"version": 2, "item_crc32": "00000000"}, Encoded(_REQUEST + b"\x07", len(_REQUEST)))
    yield pack_frame({"queued_s": 0.5, "infer_s": 0.01, "instance": "i", "cold": True}, Encoded(_RESPONSE, None))
    yield pack_frame({"error": "no picture", "status": 400}, Encoded(b"", None))
    yield b"EBF1\xff\xff\xff\xff"


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Changes values of the header's or the body's JSON object, and gives both lengths anew."""
    try:
        header, payload = unpack_frame(data)
    except WireError:
        return data
    length = payload.json_length or len(payload.body)
    text, raw = payload.body[:length], payload.body[length:]
    head = orjson.dumps(header)
    if rng.random() < 0.5:
        head = of_json(head, rng)
    else:
        text = of_json(text, rng)
    lengths = struct.pack("<I", len(head)), struct.pack("<I", len(text) if payload.json_length else 0)
    return b"".join((b"EBF1", lengths[0], head, lengths[1], text, raw))


TARGET = Target(
    name="frame",
    check=check,
    seeds=seeds,
    instrumented=INSTRUMENTED,
    words=(b"EBF1", b"\x02\0\0\0{}", b"\xff\xff\xff\xff", b"\0\0\0\0", b"{}", b"[]", b'"inputs":[', b'"outputs":['),
    longest_bytes=512,
    mutate=mutated,
)
