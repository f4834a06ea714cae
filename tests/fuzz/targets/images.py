"""Files of pictures, of every format: the header as it is read without a decoder, the pixels, the network's input."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterable

import numpy as np
from fuzz.target import Target, one_sentence

from models.images import decode_image
from models.pictures.header import ImageError
from models.pictures.kinds import read_header
from models.preprocess import Pictures
from models.preprocess_settings import DIGITS, Preprocess

INSTRUMENTED = ("models.images", "models.pictures", "models.preprocess")
MAX_PIXELS = 1_000_000
_SETTINGS = (DIGITS, Preprocess(size=16, crop=12), Preprocess(size=(8, 12), resize="letterbox", background="#102030"))
_PNG = b"\x89PNG\r\n\x1a\n"


def check(data: bytes) -> None:
    """Reads a header, decodes, and prepares by settings that the length chooses."""
    try:
        header = read_header(memoryview(data))
    except ImageError as error:
        one_sentence(error)
        header = None
    try:
        image = decode_image(data, max_pixels=MAX_PIXELS)
    except ImageError as error:
        one_sentence(error)
        return
    assert header is not None, "a picture without a header was decoded"
    width, height = header.stored_size
    stored = (width, height) if header.orientation >= 5 else (height, width)
    assert image.shape == (*stored, 3), f"{image.shape} of {header}"
    assert image.dtype == np.uint8
    settings = _SETTINGS[len(data) % len(_SETTINGS)]
    assert Pictures(settings, max_pixels=MAX_PIXELS).prepare(data).shape == settings.shape


def seeds() -> Iterable[bytes]:
    """Yields small pictures as Pillow writes them; none without Pillow."""
    try:
        from PIL import Image
    except ImportError:
        return
    few = np.random.default_rng(5).integers(0, 256, (3, 4, 4), dtype=np.uint8)
    rgba = Image.fromarray(few, "RGBA")
    rgb, grey = rgba.convert("RGB"), rgba.convert("L")
    exif = Image.Exif()
    exif[0x0112] = 6
    made = (
        *((image, "PNG", {}) for image in (rgb, rgba, grey, grey.convert("1"), rgb.quantize(4), rgba.convert("LA"))),
        (rgb, "PNG", {"transparency": (1, 2, 3)}),
        (Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4)), "PNG", {}),
        (rgb, "PNG", {"exif": exif}),
        (rgba, "PNG", {"save_all": True, "append_images": [rgb.convert("RGBA")]}),
        (rgb, "JPEG", {"quality": 50}),
        (grey, "JPEG", {"progressive": True}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (rgb, "JPEG", {"exif": exif, "restart_marker_rows": 1}),
        (rgb.quantize(4), "GIF", {}),
        (rgba, "GIF", {"save_all": True, "append_images": [rgb.convert("RGBA")]}),
        *((image, "WEBP", {"lossless": lossless}) for image in (rgb, rgba) for lossless in (True, False)),
        (rgba, "WEBP", {"save_all": True, "append_images": [rgb.convert("RGBA")]}),
        (rgb, "WEBP", {"exif": exif}),
        *((image, "BMP", {}) for image in (rgb, rgba, rgb.quantize(4))),
        *((image, "TIFF", {}) for image in (rgb, rgba, grey, rgb.convert("CMYK"))),
        (rgb, "TIFF", {"compression": "tiff_lzw"}),
        (grey.convert("1"), "TIFF", {"compression": "group4"}),
        *((image, "AVIF", {}) for image in (rgb, rgba)),
        *((image, "JPEG2000", {}) for image in (rgb, rgba)),
    )
    for image, kind, options in made:
        file = io.BytesIO()
        try:
            image.save(file, kind, **options)
        except (OSError, KeyError):
            continue  # not built in
        yield file.getvalue()


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Changes bytes, mostly in front; what a PNG has changed in gets its checksum anew, so that it is looked at."""
    out = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(min(len(out), 64)) if rng.random() < 0.5 else rng.randrange(len(out))
        kind = rng.randrange(4)
        if kind == 0:
            out[at] = rng.randrange(256)
        elif kind == 1:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            out[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\x80\0"))
        else:
            other = rng.randrange(len(out))
            out[at : at + 8] = out[other : other + 8]
    return with_checksums(bytes(out))


def with_checksums(data: bytes) -> bytes:
    """Returns a PNG with the right checksum of each chunk; anything else as it is."""
    if data[:8] != _PNG:
        return data
    out, at = [data[:8]], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if at + 12 + length > len(data):
            break
        content = data[at + 4 : at + 8 + length]
        out += [data[at : at + 4], content, struct.pack(">I", zlib.crc32(content))]
        at += 12 + length
    return b"".join((*out, data[at:]))


TARGET = Target(
    name="images",
    check=check,
    seeds=seeds,
    instrumented=INSTRUMENTED,
    words=(
        *(b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT", b"eXIf", b"iCCP", b"Exif\0\0"),
        *(b"\xff\xd8\xff", b"\xff\xc0", b"\xff\xc2", b"\xff\xda", b"\xff\xd9", b"\xff\xe1", b"\xff\xdd", b"\xff\xc4"),
        *(b"GIF89a", b"\x21\xf9\x04", b"\x2c", b"\x3b", b"RIFF", b"WEBP", b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANMF"),
        *(b"II*\0", b"MM\0*", b"BM", b"ftypavif", b"meta", b"iprp", b"ispe", b"av1C", b"iloc", b"mdat", b"irot"),
        *(b"\xff\x4f\xff\x51", b"jP  \r\n\x87\n", b"ihdr", b"jp2c", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"),
    ),
    longest_bytes=2048,
    mutate=mutated,
)
