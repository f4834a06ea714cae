"""The size of pictures in an AV1 bitstream (AV1 Bitstream & Decoding Process Specification, 5.3 to 5.5)."""

from __future__ import annotations

from models.pictures.header import damaged, unreadable

_SEQUENCE_HEADER = 1
_MAX_UNITS = 10_000


def coded_size(data: bytes) -> tuple[int, int]:
    """Returns the largest width and height that the sequence headers of a bitstream allow.

    Raises:
        ImageError: there is none, or it is not that of a still picture.
    """
    sizes = []
    at = 0
    for _ in range(_MAX_UNITS):
        if at >= len(data):
            break
        kind, extended, sized = data[at] >> 3 & 15, data[at] & 4, data[at] & 2
        at += 2 if extended else 1
        length = len(data) - at
        if sized:
            length, at = _leb128(data, at)
        if kind == _SEQUENCE_HEADER:
            sizes.append(_sequence_size(data[at : at + length]))
        at += length
    if not sizes:
        raise damaged("AVIF")
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        if at >= len(data):
            raise damaged("AVIF")
        value |= (data[at] & 0x7F) << (7 * index)
        at += 1
        if not data[at - 1] & 0x80:
            return value, at
    raise damaged("AVIF")


def _sequence_size(unit: bytes) -> tuple[int, int]:
    bits = _Bits(unit)
    bits.take(4)  # Profile; whether all is one still picture.
    if bits.take(1):
        bits.take(5)  # The level; the header is a reduced one.
    else:
        if bits.take(1):
            raise unreadable("AVIF", "has the timing of a video")
        delayed = bits.take(1)
        for _ in range(bits.take(5) + 1):
            bits.take(12)  # Layers of this operating point.
            if bits.take(5) > 7:
                bits.take(1)
            if delayed and bits.take(1):
                bits.take(4)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(width_bits) + 1, bits.take(height_bits) + 1


class _Bits:
    """Reads bits, the highest of a byte first."""

    def __init__(self, data: bytes) -> None:
        # The longest header ahead of the sizes has 32 operating points of 24 bits.
        head = data[:128]
        self._value = int.from_bytes(head, "big")
        self._left = 8 * len(head)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise damaged("AVIF")
        return self._value >> self._left & ((1 << count) - 1)
