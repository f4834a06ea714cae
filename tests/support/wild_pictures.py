"""Pictures of the kinds that people send, made on the spot: by Pillow where it can, else byte by byte."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

WIDTH, HEIGHT = 46, 38


def smooth(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Returns smooth colours without any symmetry, red-green-blue; compression hardly changes them."""
    few = np.random.default_rng(5).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(few, (width, height), interpolation=cv2.INTER_LINEAR)


RGB = smooth()
GREY = np.ascontiguousarray(RGB[:, :, 1])
ALPHA = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
RGBA = np.dstack([RGB, ALPHA])
OTHER = 255 - RGB


def saved(pixels: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    """Returns a file that Pillow writes."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def quality(pixels: np.ndarray | Image.Image = RGB, **options: Any) -> bytes:
    """Returns a JPEG without loss that matters."""
    return saved(pixels, "JPEG", quality=95, **{"subsampling": 0, **options})


def held(orientation: int, kind: str = "JPEG", **options: Any) -> bytes:
    """Returns a picture with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(RGB, kind, exif=exif, **options)


def shown_by_pillow(data: bytes, background: tuple[int, int, int] = (255, 255, 255)) -> np.ndarray:
    """Returns the first picture of a file upright and on a background, red-green-blue, as Pillow reads it."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert image is not None
    if image.mode.startswith("I"):
        return np.repeat((np.asarray(image) / 257)[:, :, None], 3, axis=2)
    with_alpha = image.convert("RGBA")
    ground = Image.new("RGBA", with_alpha.size, (*background, 255))
    return np.asarray(Image.alpha_composite(ground, with_alpha).convert("RGB"))


# PNG


def chunk(kind: bytes, content: bytes) -> bytes:
    """Returns one chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    size: tuple[int, int], bits: int, colour: int, rows: bytes, *, ahead: bytes = b"", interlaced: bool = False
) -> bytes:
    """Returns a PNG of filtered rows; `ahead` are the chunks ahead of the pixels."""
    header = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, int(interlaced))
    body = chunk(b"IHDR", header) + ahead + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def unfiltered(pixels: np.ndarray) -> bytes:
    """Returns the rows of a PNG without a filter; values of two bytes have the high one first."""
    return b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels)


def interlaced_png() -> bytes:
    """Returns a PNG in the seven passes of Adam7."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = b"".join(unfiltered(RGB[top::down, left::right]) for top, left, down, right in passes)
    return png((WIDTH, HEIGHT), 8, 2, rows, interlaced=True)


def deep_png(channels: int) -> bytes:
    """Returns a PNG of 16 bits: 1 channel is grey, 2 grey and alpha, 3 red-green-blue, 4 with alpha."""
    pixels = RGBA if channels == 4 else np.dstack([GREY, ALPHA]) if channels == 2 else RGB if channels == 3 else GREY
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    return png((WIDTH, HEIGHT), 16, colour, unfiltered(pixels.astype(np.uint16) * 257))


def bomb_png(width: int, height: int) -> bytes:
    """Returns a PNG of so many pixels, all black, one bit each."""
    return png((width, height), 1, 0, bytes((1 + (width + 7) // 8) * height))


# JPEG


def start_of_frame(jpeg: bytes) -> int:
    """Returns where the start-of-frame marker of a baseline or progressive JPEG is."""
    return next(at for at in (jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2")) if at >= 0)


def twelve_bits() -> bytes:
    """Returns a JPEG whose header says that its channels have 12 bits."""
    jpeg = bytearray(quality())
    jpeg[start_of_frame(bytes(jpeg)) + 4] = 12
    return bytes(jpeg)


def of_process(marker: int) -> bytes:
    """Returns a JPEG with another start of frame: SOF3 is lossless, SOF5 hierarchical, SOF9 arithmetic."""
    jpeg = bytearray(quality())
    jpeg[start_of_frame(bytes(jpeg)) + 1] = marker
    return bytes(jpeg)


def arithmetic() -> bytes:
    """Returns an arithmetic-coded JPEG: any bytes are valid arithmetic code, of colours that only a decoder knows."""
    jpeg = of_process(0xC9)
    at = jpeg.index(b"\xff\xda")
    begin = at + 2 + struct.unpack_from(">H", jpeg, at + 2)[0]
    return jpeg[:begin] + bytes([0x35, 0x12, 0x77, 0x05, 0x40, 0x21] * 20) + b"\xff\xd9"


def ycck() -> bytes:
    """Returns a JPEG of luminance, two colours and black: CMYK's bytes hold them, and Adobe's marker says so."""
    cmyk = np.asarray(Image.fromarray(RGB).convert("CMYK"))
    inverted = cmyk[:, :, :3]
    converted = np.dstack([np.asarray(Image.fromarray(inverted).convert("YCbCr")), 255 - cmyk[:, :, 3]])
    # Pillow stores CMYK inverted, as Adobe does.
    jpeg = bytearray(quality(Image.fromarray(255 - converted, "CMYK")))
    marker = jpeg.index(b"Adobe")
    assert jpeg[marker + 11] == 0
    jpeg[marker + 11] = 2
    return bytes(jpeg)


def motion_photo() -> bytes:
    """Returns a JPEG with a video behind it, as telephones store them."""
    box = struct.pack(">I", 24) + b"ftypisom" + bytes(4) + b"isommp42"
    return quality() + box + struct.pack(">I", 3008) + b"mdat" + bytes(1000) + b"\xff\xd8\xff\xd9" * 500


# Others


def bmp_with_alpha() -> bytes:
    """Returns a BMP of the fourth version, whose mask of the alpha channel is set."""
    pixels = np.dstack([RGB[:, :, ::-1], ALPHA])[::-1].tobytes()
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"Win " + bytes(48)
    header = struct.pack("<IiiHHIIiiII", 108, WIDTH, HEIGHT, 1, 32, 3, len(pixels), 2835, 2835, 0, 0) + masks
    begin = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", begin + len(pixels), 0, 0, begin) + header + pixels


def gif_of_a_part(left: int, top: int, width: int, height: int) -> bytes:
    """Returns a GIF whose picture has only a part of its canvas."""
    gif = bytearray(saved(Image.fromarray(RGB).quantize(64), "GIF"))
    table = 3 * 2 ** ((gif[10] & 7) + 1)
    at = gif.index(b"\x2c", 13 + table)
    gif[6:10] = struct.pack("<HH", width, height)
    gif[at + 1 : at + 5] = struct.pack("<HH", left, top)
    return bytes(gif)
