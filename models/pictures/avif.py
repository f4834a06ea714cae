"""AVIF: pictures coded in AV1 in the boxes of HEIF (ISO/IEC 23008-12, AV1 Image File Format)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from models.pictures.av1 import coded_size
from models.pictures.boxes import boxes, brands
from models.pictures.header import Header, ImageError, damaged, unreadable

_AVIF = frozenset({b"avif", b"avis"})
_HEIC = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})
_CONTAINERS = frozenset({b"iprp", b"ipco"})
_MAX_ITEMS = 4096
# EXIF's number for a rotation by 90 degrees to the left, so many times, and for one with a reflection after it:
# about the horizontal axis (top and bottom change places) or about the vertical one.
_ROTATED = (1, 8, 3, 6)
_REFLECTED = ((4, 5, 2, 7), (2, 7, 4, 5))

_Properties = list[tuple[bytes, memoryview]]


def read(view: memoryview) -> Header:
    """Reads the properties of the pictures in it, and the sizes that are coded; the largest one counts.

    Raises:
        ImageError: it is no AVIF, truncated or damaged.
    """
    names = brands(view)
    if not names & _AVIF:
        if names & _HEIC:
            raise ImageError("this is a HEIC picture, which cannot be read here: convert it to JPEG or PNG")
        raise ImageError("this is a video, not a picture: send one of its pictures as JPEG or PNG")
    top = list(boxes(view, "AVIF"))
    if any(kind == b"moov" for kind, _ in top):
        raise unreadable("AVIF", "is animated")
    meta = [content for kind, content in top if kind == b"meta"]
    if len(meta) != 1:
        raise damaged("AVIF")
    try:
        return _still(view, list(_within(meta[0][4:])))
    except (struct.error, IndexError) as error:
        raise damaged("AVIF") from error


def _within(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    for kind, content in boxes(view, "AVIF"):
        if kind in _CONTAINERS:
            yield from _within(content)
        else:
            yield kind, content


def _still(view: memoryview, properties: _Properties) -> Header:
    sizes: list[tuple[int, int]] = []
    turns = 0
    axis: int | None = None
    for kind, content in properties:
        if kind == b"ispe":
            sizes.append(struct.unpack_from(">II", content, 4))
        elif kind == b"irot":
            turns = content[0] & 3
        elif kind == b"imir":
            axis = content[0] & 1
    kinds = _item_kinds(properties)
    for item, data in _items(view, properties).items():
        # The decoder decodes what is coded and scales it to what the properties say.
        if kinds.get(item) == b"av01":
            sizes.append(coded_size(data))
        elif kinds.get(item) == b"grid":
            sizes.append(struct.unpack_from(">II" if data[1] & 1 else ">HH", data, 4))
    if not sizes:
        raise damaged("AVIF")
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    turned = _ROTATED[turns] if axis is None else _REFLECTED[axis][turns]
    return Header(kind="AVIF", width=width, height=height, data=view, orientation=turned, whole=True)


def _item_kinds(properties: _Properties) -> dict[int, bytes]:
    found = {}
    for kind, content in properties:
        if kind != b"iinf":
            continue
        for inner, entry in boxes(content[6 if content[0] == 0 else 8 :], "AVIF"):
            if inner == b"infe" and entry[0] >= 2:
                code = ">H2x4s" if entry[0] == 2 else ">I2x4s"
                item, item_kind = struct.unpack_from(code, entry, 4)
                found[item] = item_kind
    return found


def _items(view: memoryview, properties: _Properties) -> dict[int, bytes]:
    """Returns the data of each item, as the box iloc says."""
    inside = next((content for kind, content in properties if kind == b"idat"), memoryview(b""))
    located = [content for kind, content in properties if kind == b"iloc"]
    if len(located) != 1:
        raise damaged("AVIF")
    reader = _Reader(located[0])
    version = reader.number(1)
    reader.number(3)
    sizes = reader.number(2)
    offset_bytes, length_bytes, base_bytes, index_bytes = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    wide = 4 if version == 2 else 2
    count = reader.number(wide)
    if count > _MAX_ITEMS:
        raise damaged("AVIF")
    found: dict[int, bytes] = {}
    for _ in range(count):
        item = reader.number(wide)
        method = reader.number(2) & 15 if version else 0
        reader.number(2)
        base = reader.number(base_bytes)
        parts = []
        for _ in range(min(reader.number(2), _MAX_ITEMS)):
            if version and index_bytes:
                reader.number(index_bytes)
            begin = base + reader.number(offset_bytes)
            length = reader.number(length_bytes)
            parts.append((inside if method == 1 else view)[begin : begin + length if length else None])
        if method > 1 or item in found or sum(map(len, parts)) > len(view):
            raise damaged("AVIF")
        found[item] = b"".join(parts)
    return found


class _Reader:
    """Reads numbers of any width one after the other."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def number(self, size_bytes: int) -> int:
        end = self._at + size_bytes
        if end > len(self._view):
            raise damaged("AVIF")
        value = int.from_bytes(self._view[self._at : end], "big")
        self._at = end
        return value
