"""CRC-32 of each item's bytes, which our servers echo with an answer: items that were mixed up on the way show."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.wire.tensor import Tensor, byte_edges, check_raw

try:
    # The same sums, ten times as fast or more; not everywhere, and where they are computed alone it is no matter.
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

ITEM_CRC32 = "item_crc32"
"""Name of the parameter of an answer, and of the key in the header of a function's frame."""
DIGITS = 8


def item_crc32(inputs: Sequence[Tensor]) -> str:
    """Returns eight hexadecimal digits for each item, over its data in all inputs, in their order.

    Args:
        inputs: with equally many items, at least one input, in binary form; the length of a BYTES element counts too.

    Raises:
        WireError: the lengths of a BYTES input do not add up to its data.

    >>> item_crc32([Tensor.from_elements("image", [b"a", b"b"])])
    'c1f78f6358feded9'
    """
    items = inputs[0].shape[0]
    if items == 1:
        value = 0
        for tensor in inputs:
            if tensor.datatype == "BYTES":
                check_raw(tensor)
            value = crc32(tensor.raw, value)
        return f"{value:08x}"
    sums = [0] * items
    for tensor in inputs:
        raw, edges = memoryview(tensor.raw), byte_edges(tensor, range(items + 1))
        for item in range(items):
            sums[item] = crc32(raw[edges[item] : edges[item + 1]], sums[item])
    return "".join([f"{value:08x}" for value in sums])


def echoed(inputs: Sequence[Tensor]) -> dict[str, object]:
    """Returns what a server says of the items of a request; nothing where they came as texts in JSON."""
    if any(tensor.from_json for tensor in inputs):
        return {}
    return {ITEM_CRC32: item_crc32(inputs)}


def mixed_up(said: object, expected: str) -> str:
    """Returns how the items of an answer differ from those that were sent, in a few words; empty if they do not.

    Args:
        said: what the server says; anything but a text: nothing.
        expected: of the items that were sent; empty: not known.
    """
    if not isinstance(said, str) or not expected or said == expected:
        return ""
    if len(said) != len(expected):
        return f"it is about {len(said) // DIGITS} items, but {len(expected) // DIGITS} were sent"
    ours, theirs = _parts(expected), _parts(said)
    if sorted(ours) == sorted(theirs):
        return "it is about the items of the batch in another order"
    first = next(number for number, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other)
    return f"it is about other items than were sent, from item {first} on"


def _parts(text: str) -> list[str]:
    return [text[start : start + DIGITS] for start in range(0, len(text), DIGITS)]
