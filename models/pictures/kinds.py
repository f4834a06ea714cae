"""Which format a file is of, by its first bytes alone; names and endings of files do not count."""

from __future__ import annotations

from typing import Final

from models.pictures import avif, bmp, boxes, gif, jpeg, jpeg2000, png, tiff, webp
from models.pictures.header import Header, ImageError
from models.pictures.weight import Weight, weight_of

_CONVERT: Final = "convert it to PNG or JPEG"
# What is sent by mistake, by its first bytes, and what to do.
_REFUSED: Final = (
    (b"%PDF", f"this is a PDF document: {_CONVERT}"),
    (b"%!PS", f"this is a PostScript document: {_CONVERT}"),
    (b"PK\x03\x04", "this is a ZIP archive: send the pictures in it one by one"),
    (b"\x1f\x8b", "this is gzip-compressed data: unpack it"),
    (b"8BPS", f"this is a Photoshop document: {_CONVERT}"),
    (b"\0\0\1\0", f"this is an icon: {_CONVERT}"),
    (b"\xff\x0a", f"this is a JPEG XL picture, which cannot be read here: {_CONVERT}"),
    (b"\0\0\0\x0cJXL ", f"this is a JPEG XL picture, which cannot be read here: {_CONVERT}"),
    (b"\x76\x2f\x31\x01", f"this is an OpenEXR picture, which cannot be read here: {_CONVERT}"),
    (b"#?RADIANCE", f"this is a Radiance picture, which cannot be read here: {_CONVERT}"),
    (b"BPG\xfb", f"this is a BPG picture, which cannot be read here: {_CONVERT}"),
    (b"\x1a\x45\xdf\xa3", "this is a video, not a picture: send one of its pictures as JPEG or PNG"),
    (b"\0\x05\x16\x07", "this is what a Mac stores beside a file (its name begins with ._): send the file itself"),
    (b"iVBORw0KGgo", "this is a picture in base64: decode it first"),
    (b"/9j/", "this is a picture in base64: decode it first"),
    (b"data:", "this is a data URL: send the picture that it holds"),
    *((sign, f"this is a BigTIFF picture, which cannot be read here: {_CONVERT}") for sign in tiff.BIG_SIGNATURES),
    *(
        (b"P" + digit + space, f"this is a portable anymap, which cannot be read here: {_CONVERT}")
        for digit in (b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"F", b"f")
        for space in (b"\n", b" ", b"\r", b"\t")
    ),
)
# How far a drawing's own element can be behind its declarations and comments.
_TEXT_BYTES: Final = 4096


def read_header(view: memoryview) -> Header:
    """Reads the header of a picture of any known format.

    Raises:
        ImageError: the data is empty, of no known format, truncated, or of a kind that cannot be read.
    """
    if not view:
        raise ImageError("the image is empty: send the bytes of a PNG or JPEG file")
    # So that the first bytes alone are reported as truncated.
    if view[:8] == png.SIGNATURE[: len(view)]:
        return png.read(view)
    if view[:3] == jpeg.SIGNATURE[: len(view)]:
        return jpeg.read(view)
    if view[:6] in gif.SIGNATURES:
        return gif.read(view)
    if webp.is_webp(view):
        return webp.read(view)
    if view[:2] == bmp.SIGNATURE:
        return bmp.read(view)
    if view[:4] in tiff.SIGNATURES:
        return tiff.read(view)
    if boxes.is_boxes(view):
        return avif.read(view)
    if view[:4] == jpeg2000.BARE or view[:12] == jpeg2000.BOXED:
        return jpeg2000.read(view)
    raise ImageError(_refusal(bytes(view[:_TEXT_BYTES])))


def weigh(view: memoryview) -> Weight | None:
    """Returns the weight of a picture of any known format; None of a broken one."""
    found = weight_of(view)
    if found is not None or not view:
        return found
    try:
        header = read_header(view)
    except ImageError:
        return None
    width, height = max(header.stored_size, (header.width, header.height), key=lambda size: size[0] * size[1])
    return Weight(width, height, width * height)


def _refusal(begin: bytes) -> str:
    for signature, sentence in _REFUSED:
        if begin.startswith(signature):
            return sentence
    text = begin.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "this is an HTML page, not a picture: send the picture itself"
    if text.startswith(b"<") and b"<svg" in text:
        return f"this is an SVG drawing: {_CONVERT}"
    if text.startswith(b"<"):
        return "this is an HTML or XML document, not a picture: send the picture itself"
    return "the data is not a PNG or JPEG image, nor any other that can be read here: convert it to one of these"
