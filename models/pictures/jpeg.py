"""JPEG (ITU-T T.81), of which Multi-Picture Format and motion photos are the first picture with others behind it."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

from models.pictures import exif
from models.pictures.header import Header, ImageError, damaged, truncated, unreadable

SIGNATURE = b"\xff\xd8\xff"
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9
_APP1 = 0xE1
# SOF0 to SOF15 without DHT (C4), JPG (C8) and DAC (CC), which share the range (table B.1).
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xCA})
_LOSSLESS = frozenset({0xC3, 0xCB})
_HIERARCHICAL = frozenset({0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF})
# Markers that stand alone, without a length: TEM and RST0 to RST7.
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
# Inside a scan, 0xFF is followed by a zero or by RST0 to RST7; anything else ends it.
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# A progressive picture has about ten scans. Each further scan takes a pass over all pixels but only a few bytes, so
# that a small file could keep a decoder busy for minutes.
_MAX_SCANS = 100
# Segments hold up to 64 KB each, so a real file has a few hundred at most; each costs a step of a loop.
_MAX_SEGMENTS = 10_000
# Decoded in place of what is missing.
_GARBAGE = b"\x5a\x3c\x96" * 100
_RESTARTS = [b"\xff" + bytes([marker]) for marker in range(0xD0, 0xD8)]


@dataclass(slots=True)
class _Frame:
    """Start of frame, and which of its coefficients the scans have given, component by component, at which precision.

    `lowest[component][k]` is the lowest bit of coefficient k that has been sent; 0: all of it.
    """

    marker: int
    width: int
    height: int
    components: bytes
    lowest: dict[int, dict[int, int]] = field(default_factory=dict)
    components_in_scan: int = 0

    @property
    def progressive(self) -> bool:
        return self.marker in _PROGRESSIVE

    def scan(self, segment: bytes) -> None:
        """Notes what a start of scan announces."""
        count = segment[0] if segment else 0
        if len(segment) != 4 + 2 * count or not 1 <= count <= 4:
            raise damaged("JPEG")
        first, last, bits = segment[-3:]
        self.components_in_scan = count
        for component in segment[1 : 1 + 2 * count : 2]:
            coefficients = self.lowest.setdefault(component, {})
            for k in range(first, min(last, 63) + 1) if self.progressive else (0,):
                coefficients[k] = bits & 15 if self.progressive else 0

    def is_complete(self) -> bool:
        """Returns whether each component has its mean value, and all bits of each coefficient that was begun."""
        return all(
            0 in self.lowest.get(component, {}) and not any(self.lowest[component].values())
            for component in self.components
        )


def read(view: memoryview) -> Header:
    """Reads the segments and scans up to the end of the first picture.

    Raises:
        ImageError: it is truncated, damaged, takes too long to decode, or is of a process that cannot be read.
    """
    data = bytes(view)
    frame: _Frame | None = None
    turned = 1
    scans = 0
    at = 2
    for _ in range(_MAX_SEGMENTS):
        if at + 2 > len(data):
            raise truncated("JPEG", len(data))
        marker = data[at + 1]
        if data[at] != 0xFF:
            raise damaged("JPEG")
        if marker == _END_OF_IMAGE:
            return _header(data[: at + 2], frame, turned)
        if marker == 0xFF or marker in _BARE:
            at += 1 if marker == 0xFF else 2
            continue
        if at + 4 > len(data):
            raise truncated("JPEG", len(data))
        end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        if end > len(data):
            raise truncated("JPEG", len(data))
        segment = data[at + 4 : end]
        if marker in _START_OF_FRAME:
            frame = _begin(frame, marker, segment)
        elif marker == _APP1 and segment.startswith(exif.PREFIX):
            turned = exif.orientation(segment)
        elif marker == _START_OF_SCAN:
            scans += 1
            if frame is None:
                raise damaged("JPEG")
            if scans > _MAX_SCANS:
                raise ImageError(f"the JPEG image has over {_MAX_SCANS} scans: encode it again, baseline")
            frame.scan(segment)
            found = _END_OF_SCAN.search(data, end)
            end = found.start() if found else len(data)
        at = max(end, at + 4)
    raise damaged("JPEG")


def _begin(before: _Frame | None, marker: int, segment: bytes) -> _Frame:
    if before is not None or len(segment) < 6:
        raise damaged("JPEG")
    bits, height, width, count = struct.unpack_from(">BHHB", segment)
    if marker in _LOSSLESS:
        raise unreadable("JPEG", "is lossless")
    if marker in _HIERARCHICAL:
        raise unreadable("JPEG", "is hierarchical")
    if bits != 8:
        raise unreadable("JPEG", f"has {bits} bits in a channel")
    return _Frame(marker, width, height, segment[6 : 6 + 3 * count : 3])


def _header(data: bytes, frame: _Frame | None, turned: int) -> Header:
    if frame is None or not frame.components:
        raise damaged("JPEG")
    if not frame.is_complete():
        raise truncated("JPEG", len(data))
    return Header(
        kind="JPEG",
        width=frame.width,
        height=frame.height,
        data=data,
        orientation=turned,
        reducible=True,
        padded=not frame.progressive,
        always_doubtful=not frame.progressive and frame.components_in_scan < len(frame.components),
    )


def continuations(header: Header) -> tuple[bytes, ...]:
    """Returns the file with garbage where its data ends: a decoder ignores all of them if no pixels are missing.

    It also says nothing of them: a decoder that finds no end marker behind the last pixel waits for more of the file.
    Only where the last of several scans has some of the components it needs the marker, and writes a line about the
    garbage.
    """
    # Where the file was cut in the middle of a stuffed 0xFF, this byte would make a marker of the garbage.
    scan = bytes(header.data[:-2]).rstrip(b"\xff")
    end = bytes(header.data[-2:]) if header.always_doubtful else b""
    at, last = max((scan.rfind(marker), number) for number, marker in enumerate(_RESTARTS))
    restart = _RESTARTS[(last + 1) % 8 if at >= 0 else 0]
    # Cut inside a restart interval, or where the next one would begin.
    return scan + _GARBAGE + end, scan + restart + _GARBAGE + end
