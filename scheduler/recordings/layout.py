"""The form of a recording: a line that names it, then blocks of events, each with a checksum of its own.

A block holds what came within a few seconds: the names of its kinds as JSON, then the columns of its events, compressed
together. A file is only appended to, so that whatever a crash or a full disk leaves is whole up to its last block. No
payload is in it, and no name of a client.
"""

import json
import math
import zlib
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from scheduler.domain.errors import EdgeburstError
from scheduler.recordings.moments import LATEST_S

MAGIC = b"edgeburst arrivals 1\n"
SUFFIX = ".arrivals"
EVENT = Struct("<dIIIHHf")
"""One event: clock in seconds, number of the request, body bytes, items (0: the request is cancelled), index of its
kind in the block, number of the shapes of its items, the client's own deadline in seconds (NaN: that of the class)."""
COLUMNS = np.dtype(
    [
        *(("clock_s", "<f8"), ("request", "<u4"), ("body_bytes", "<u4"), ("items", "<u4")),
        *(("kind", "<u2"), ("shape", "<u2"), ("timeout_s", "<f4")),
    ]
)
"""The same for numpy."""
MOST_KINDS = 2**16 - 1
LARGEST = 2**32 - 1
MOST_EVENTS = 2**20
"""In a block."""
_BLOCK = Struct("<4sIIId")
"""Mark, compressed length, CRC-32 of the compressed part, events, seconds from 1970 to the clock's zero."""
_MARK = b"EBA1"
_NAMES_BYTES = 2**26
"""Of the names of a block: what is longer is none of ours."""

Events = npt.NDArray[Any]
"""Array of `COLUMNS`, shape (events,)."""


class RecordingError(EdgeburstError):
    """Error: a recording or trace cannot be used; the message names the file and says what to do."""


class Kind(NamedTuple):
    """What requests have in common."""

    model: str
    class_name: str
    tenant: str
    priority: int
    """1 is the highest, as in Triton; 0: that of the configuration."""


class Block(NamedTuple):
    """The events of a few seconds."""

    events: Events
    kinds: tuple[Kind, ...]
    ahead_s: float
    """Seconds since 1970 at the clock's zero."""


def packed_block(events: bytes, kinds: Sequence[Kind], ahead_s: float) -> bytes:
    """Returns a block of packed events, at most `MOST_EVENTS`. Compressing releases the interpreter's lock."""
    table = np.frombuffer(events, dtype=COLUMNS)
    names = COLUMNS.names or ()
    columns = b"".join([np.ascontiguousarray(table[name]).tobytes() for name in names])
    content = json.dumps([list(kind) for kind in kinds], separators=(",", ":")).encode() + b"\n" + columns
    compressed = zlib.compress(content, 6)
    return _BLOCK.pack(_MARK, len(compressed), zlib.crc32(compressed), len(table), ahead_s) + compressed


def read_blocks(file: BinaryIO) -> Iterator[Block]:
    """Yields the blocks of a recording from its first byte on.

    Raises:
        RecordingError: the file is no recording, or ends within a block; the sentence continues "FILE ...".
    """
    if file.read(len(MAGIC)) != MAGIC:
        raise RecordingError("is no recording of arrivals")
    while True:
        at = file.tell()
        head = file.read(_BLOCK.size)
        if not head:
            return
        yield _block(head, file, at)


def _block(head: bytes, file: BinaryIO, at: int) -> Block:
    broken = RecordingError(f"is cut off or damaged at byte {at}")
    if len(head) < _BLOCK.size:
        raise broken
    mark, length, checksum, events, ahead_s = _BLOCK.unpack(head)
    if mark != _MARK or not 0 < events <= MOST_EVENTS or not math.isfinite(ahead_s):
        raise broken
    compressed = file.read(length)
    if len(compressed) < length or zlib.crc32(compressed) != checksum:
        raise broken
    try:
        inflater = zlib.decompressobj()
        content = inflater.decompress(compressed, _NAMES_BYTES + events * COLUMNS.itemsize)
        names, _, columns = content.partition(b"\n")
        kinds = tuple(_kind(row) for row in json.loads(names))
        table = _table(columns, events)
    except (zlib.error, ValueError, TypeError, RecursionError):
        raise broken from None
    if int(table["kind"].max()) >= len(kinds) or not bool((np.abs(table["clock_s"] + ahead_s) < LATEST_S).all()):
        raise broken
    return Block(table, kinds, ahead_s)


def _kind(row: Any) -> Kind:
    model, class_name, tenant, priority = row
    return Kind(str(model), str(class_name), str(tenant), int(priority))


def _table(columns: bytes, events: int) -> Events:
    if len(columns) != events * COLUMNS.itemsize:
        raise ValueError
    table, at = np.empty(events, dtype=COLUMNS), 0
    for name in COLUMNS.names or ():
        size = COLUMNS[name].itemsize * events
        table[name] = np.frombuffer(columns[at : at + size], dtype=COLUMNS[name])
        at += size
    return table
