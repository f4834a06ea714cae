"""Pictures in the wild: each kind is read as Pillow reads it, or refused in one sentence that names the kind."""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Callable
from functools import cache, partial

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms
from support.wild_pictures import (
    GREY,
    HEIGHT,
    OTHER,
    RGB,
    RGBA,
    WIDTH,
    arithmetic,
    bmp_with_alpha,
    bomb_png,
    chunk,
    deep_png,
    gif_of_a_part,
    held,
    interlaced_png,
    motion_photo,
    of_process,
    png,
    quality,
    saved,
    shown_by_pillow,
    smooth,
    twelve_bits,
    unfiltered,
    ycck,
)

from models.images import ImageError, decode_image

PALETTE = Image.fromarray(RGB).quantize(32)
EXACT, ROUNDED, LOSSY = 0, 1, 6
"""Greatest difference of a pixel's channel: the same, another rounding, another implementation of a lossy format."""
KEY = tuple(int(value) for value in RGB[3, 5])
HALF = len(quality()) // 2

READ: dict[str, tuple[Callable[[], bytes], int]] = {
    "JPEG baseline": (quality, LOSSY),
    "JPEG with thinned colours": (lambda: quality(subsampling=2), LOSSY),
    "JPEG progressive": (lambda: quality(progressive=True), LOSSY),
    "JPEG greyscale": (lambda: quality(GREY), LOSSY),
    "JPEG with restart markers": (lambda: quality(restart_marker_rows=1), LOSSY),
    "JPEG CMYK": (lambda: quality(Image.fromarray(RGB).convert("CMYK")), LOSSY),
    "JPEG YCCK": (ycck, LOSSY),
    "JPEG arithmetic": (arithmetic, LOSSY),
    **{f"JPEG orientation {held_as}": (partial(held, held_as), LOSSY) for held_as in range(1, 9)},
    "JPEG ICC profile": (
        lambda: quality(icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()),
        LOSSY,
    ),
    "JPEG with another end marker appended": (lambda: quality() + b"\xff\xd9", LOSSY),
    "JPEG all grey": (lambda: quality(np.full_like(RGB, 128)), LOSSY),
    "MPO": (lambda: saved(RGB, "MPO", save_all=True, append_images=[Image.fromarray(OTHER)]), LOSSY),
    "motion photo": (motion_photo, LOSSY),
    "PNG 8-bit": (lambda: saved(RGB, "PNG"), EXACT),
    "PNG grey": (lambda: saved(GREY, "PNG"), EXACT),
    "PNG 1-bit": (lambda: saved(Image.fromarray(GREY).convert("1"), "PNG"), EXACT),
    "PNG 16-bit": (lambda: deep_png(3), ROUNDED),
    "PNG 16-bit grey": (lambda: deep_png(1), ROUNDED),
    "PNG 16-bit grey and alpha": (lambda: deep_png(2), ROUNDED),
    "PNG 16-bit RGBA": (lambda: deep_png(4), ROUNDED),
    "PNG palette": (lambda: saved(PALETTE, "PNG"), EXACT),
    "PNG palette with tRNS": (lambda: saved(PALETTE, "PNG", transparency=bytes(range(0, 256, 8))), ROUNDED),
    "PNG grey and alpha": (lambda: saved(Image.fromarray(RGBA).convert("LA"), "PNG"), ROUNDED),
    "PNG RGBA": (lambda: saved(RGBA, "PNG"), ROUNDED),
    "PNG RGB with tRNS": (lambda: saved(RGB, "PNG", transparency=KEY), EXACT),
    "PNG grey with tRNS": (lambda: saved(GREY, "PNG", transparency=int(GREY[3, 5])), EXACT),
    "PNG interlaced": (interlaced_png, EXACT),
    **{f"PNG orientation {held_as}": (partial(held, held_as, "PNG"), EXACT) for held_as in (2, 5, 6)},
    "APNG": (lambda: saved(RGBA, "PNG", save_all=True, append_images=[Image.fromarray(OTHER)]), ROUNDED),
    "APNG whose first picture is not animated": (
        lambda: saved(
            RGB,
            "PNG",
            save_all=True,
            default_image=True,
            append_images=[Image.fromarray(OTHER), PALETTE.convert("RGB")],
        ),
        EXACT,
    ),
    "PNG 1 x 1": (lambda: saved(RGB[:1, :1], "PNG"), EXACT),
    "PNG 1 x 20,000": (lambda: saved(smooth(20_000, 1), "PNG"), EXACT),
    "GIF": (lambda: saved(PALETTE, "GIF"), EXACT),
    "GIF transparent": (lambda: saved(RGBA, "GIF"), EXACT),
    "GIF interlaced": (lambda: saved(PALETTE, "GIF", interlace=1), EXACT),
    "GIF animated": (lambda: saved(RGBA, "GIF", save_all=True, append_images=[Image.fromarray(OTHER)]), EXACT),
    "WebP": (lambda: saved(RGB, "WEBP", quality=95), LOSSY),
    "WebP lossless": (lambda: saved(RGB, "WEBP", lossless=True), EXACT),
    "WebP transparent": (lambda: saved(RGBA, "WEBP", quality=95), LOSSY),
    "WebP lossless transparent": (lambda: saved(RGBA, "WEBP", lossless=True, exact=True), ROUNDED),
    "WebP orientation 6": (lambda: held(6, "WEBP", lossless=True), EXACT),
    "WebP animated": (
        lambda: saved(RGBA, "WEBP", save_all=True, append_images=[Image.fromarray(OTHER)], quality=95),
        LOSSY,
    ),
    "WebP animated lossless": (
        lambda: saved(RGB, "WEBP", save_all=True, append_images=[Image.fromarray(OTHER)], lossless=True),
        EXACT,
    ),
    "BMP": (lambda: saved(RGB, "BMP"), EXACT),
    "BMP palette": (lambda: saved(PALETTE, "BMP"), EXACT),
    "BMP with unused fourth channel": (lambda: saved(RGBA, "BMP"), EXACT),
    "BMP with alpha": (bmp_with_alpha, ROUNDED),
    "TIFF": (lambda: saved(RGB, "TIFF"), EXACT),
    "TIFF LZW": (lambda: saved(RGB, "TIFF", compression="tiff_lzw"), EXACT),
    "TIFF fax": (lambda: saved(Image.fromarray(GREY).convert("1"), "TIFF", compression="group4"), EXACT),
    "TIFF CMYK": (lambda: saved(Image.fromarray(RGB).convert("CMYK"), "TIFF"), ROUNDED),
    "TIFF 16-bit grey": (lambda: saved(GREY.astype(np.uint16) * 257, "TIFF"), ROUNDED),
    "TIFF RGBA": (lambda: saved(RGBA, "TIFF"), 2),
    **{f"TIFF orientation {held_as}": (partial(held, held_as, "TIFF"), EXACT) for held_as in (2, 5, 6)},
    "TIFF of two pages": (lambda: saved(RGB, "TIFF", save_all=True, append_images=[Image.fromarray(OTHER)]), EXACT),
    "AVIF": (lambda: saved(RGB, "AVIF", quality=95, subsampling="4:4:4"), LOSSY),
    "AVIF transparent": (lambda: saved(RGBA, "AVIF", quality=95, subsampling="4:4:4"), LOSSY),
    **{f"AVIF orientation {held_as}": (partial(held, held_as, "AVIF", quality=95), 12) for held_as in range(2, 9)},
    "JPEG 2000": (lambda: saved(RGB, "JPEG2000"), ROUNDED),
    "JPEG 2000 codestream": (lambda: saved(RGB, "JPEG2000", no_jp2=True), ROUNDED),
    "JPEG 2000 transparent": (lambda: saved(RGBA, "JPEG2000"), ROUNDED),
    "polyglot of PNG and ZIP": (lambda: saved(RGB, "PNG") + b"PK\x03\x04" + bytes(500), EXACT),
}

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "JPEG 12-bit": (twelve_bits, "the JPEG image has 12 bits in a channel, which cannot be read here: convert it"),
    "JPEG lossless": (lambda: of_process(0xC3), "the JPEG image is lossless, which cannot be read here"),
    "JPEG hierarchical": (lambda: of_process(0xC5), "the JPEG image is hierarchical, which cannot be read here"),
    "JPEG truncated by one byte": (lambda: quality()[:-1], "the JPEG image is truncated after"),
    "JPEG truncated by half": (lambda: quality()[:HALF], "the JPEG image is truncated after"),
    "JPEG truncated by half, end marker appended": (lambda: quality()[:HALF] + b"\xff\xd9", "the JPEG .* truncated"),
    "grey JPEG truncated by half, end marker appended": (
        lambda: quality(GREY)[: -len(quality(GREY)) // 4] + b"\xff\xd9",
        "the JPEG .* truncated",
    ),
    "CMYK JPEG truncated by half, end marker appended": (
        lambda: quality(Image.fromarray(RGB).convert("CMYK"))[:-700] + b"\xff\xd9",
        "the JPEG .* truncated",
    ),
    "progressive JPEG truncated by half, end marker appended": (
        lambda: quality(progressive=True)[: len(quality(progressive=True)) // 2] + b"\xff\xd9",
        "the JPEG .* truncated",
    ),
    "MPO whose first picture is truncated": (lambda: quality()[:HALF] + quality(OTHER), "the JPEG"),
    "PNG with a wrong checksum": (lambda: flipped(saved(RGB, "PNG"), b"IDAT", 30), "the PNG image is damaged"),
    "PNG with a wrong checksum of the header": (
        lambda: flipped(saved(RGB, "PNG"), b"IHDR", 7),
        "the PNG image is damaged",
    ),
    "PNG with a wrong checksum of its transparency": (
        lambda: flipped(saved(PALETTE, "PNG", transparency=bytes(32)), b"tRNS", 9),
        "the PNG image is damaged",
    ),
    "PNG truncated": (lambda: saved(RGB, "PNG")[:-20], "the PNG image is truncated after"),
    "PNG with two headers": (
        lambda: png((4, 4), 8, 0, bytes(20), ahead=chunk(b"IHDR", bytes(13))),
        "the PNG image is damaged",
    ),
    "PNG 30,000 x 1,660 in 6 KB": (
        lambda: bomb_png(30_000, 1_660),
        "the image has 30000 x 1660 pixels in 61.. bytes, too many: scale it down",
    ),
    "GIF truncated": (lambda: saved(PALETTE, "GIF")[:-20], "the GIF image is truncated after"),
    "WebP truncated": (lambda: saved(RGB, "WEBP")[:-1], "the WebP image is truncated after"),
    "BMP truncated": (lambda: saved(RGB, "BMP")[:-1], "the BMP image is damaged"),
    "TIFF truncated": (lambda: saved(RGB, "TIFF")[:-1], "the TIFF image is (damaged|truncated)"),
    "TIFF of floating-point values": (
        lambda: saved(Image.fromarray(GREY).convert("F"), "TIFF"),
        "the TIFF image has values that are not whole numbers of up to 16 bits, which cannot be read here",
    ),
    "TIFF grey and alpha": (
        lambda: saved(Image.fromarray(RGBA).convert("LA"), "TIFF"),
        "the TIFF image is grey with transparency or further channels, which cannot be read here",
    ),
    "AVIF animated": (
        lambda: saved(RGB, "AVIF", save_all=True, append_images=[Image.fromarray(OTHER)]),
        "the AVIF image is animated, which cannot be read here",
    ),
    "WebP whose canvas is not that of its picture": (
        lambda: replaced(saved(RGBA, "WEBP"), 24, b"\xff\xff\xff"),
        "the WebP image is damaged",
    ),
    "WebP animated without width": (
        lambda: no_width(READ["WebP animated"][0]()),
        "the WebP image is damaged",
    ),
    "JPEG 2000 of many channels": (
        lambda: replaced(saved(RGB, "JPEG2000", no_jp2=True), 40, b"\x40\0"),
        "the JPEG 2000 image has 16384 channels, which cannot be read here",
    ),
    "AVIF truncated": (lambda: saved(RGB, "AVIF")[:-1], "the AVIF image is truncated after"),
    "JPEG 2000 truncated": (lambda: saved(RGB, "JPEG2000")[:-1], "the JPEG 2000 image is (damaged|truncated)"),
    "HEIC": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "this is a HEIC picture"),
    "video": (lambda: b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(40), "this is a video, not a picture"),
    "SVG": (lambda: b'<?xml version="1.0"?>\n<!-- a -->\n<svg xmlns="x"/>', "this is an SVG drawing: convert it"),
    "JPEG XL": (lambda: b"\xff\x0a" + bytes(40), "this is a JPEG XL picture"),
    "zero bytes": (lambda: bytes(2000), "the data is not a PNG or JPEG image, nor any other that can be read here"),
    "nothing": (lambda: b"", "the image is empty"),
    "HTML named .png": (lambda: b"\n<!DOCTYPE html><title>404</title>", "this is an HTML page, not a picture"),
    "polyglot of PDF and JPEG": (lambda: b"%PDF-1.4\n" + quality(), "this is a PDF document"),
    "polyglot of GIF and script": (lambda: b"GIF89a/*" + bytes(40) + b"*/=1;alert(1)", "the GIF image is"),
    "base64": (lambda: b"iVBORw0KGgoAAAANSUhEUg", "this is a picture in base64: decode it first"),
    "what a Mac stores beside a file": (lambda: b"\0\x05\x16\x07" + bytes(78), "this is what a Mac stores beside"),
}


def flipped(data: bytes, kind: bytes, after: int) -> bytes:
    at = data.index(kind) + after
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def no_width(webp: bytes) -> bytes:
    return replaced(webp, webp.index(b"\x9d\x01\x2a") + 3, b"\0\0")


def replaced(data: bytes, at: int, part: bytes) -> bytes:
    return data[:at] + part + data[at + len(part) :]


def decoded(data: bytes) -> np.ndarray:
    return decode_image(data)[:, :, ::-1]


def is_optional_and_absent(name: str) -> bool:
    """Older releases of OpenCV have no GIF, builds for boards no AVIF: these are then refused by name."""
    kind = name.split()[0]
    return kind in ("GIF", "AVIF") and not cv2.haveImageWriter(f".{kind.lower()}")


@pytest.mark.parametrize("name", READ)
def test_is_read_as_pillow_reads_it(name: str) -> None:
    make, tolerance = READ[name]
    data = make()
    if is_optional_and_absent(name):
        with pytest.raises(ImageError, match=f"^this is an? {name.split()[0]} picture, which OpenCV .* cannot read"):
            decode_image(data)
        return

    found, expected = decoded(data), shown_by_pillow(data)

    assert found.shape == expected.shape
    assert np.abs(found.astype(float) - expected).max() <= tolerance + 0.5


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_in_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, sentence = REFUSED[name]
    if is_optional_and_absent(name):
        sentence = ""

    with pytest.raises(ImageError, match=f"^{sentence}") as refusal:
        decode_image(make())

    assert re.fullmatch(r"[^\n]+[^.\n]", str(refusal.value))


def test_ycck_shows_the_colours_that_were_stored() -> None:
    assert np.abs(decoded(ycck()).astype(float) - RGB).max() <= LOSSY


def test_transparency_shows_the_background_that_is_asked_for() -> None:
    data = saved(RGBA, "PNG")

    found = decode_image(data, background_rgb=(10, 20, 200))[:, :, ::-1]

    assert np.abs(found.astype(float) - shown_by_pillow(data, (10, 20, 200))).max() <= ROUNDED
    assert found[0, 0].tolist() == [10, 20, 200]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF"])
def test_black_ink_on_transparent_paper_is_black_ink_on_white_paper(kind: str) -> None:
    if is_optional_and_absent(kind):
        pytest.skip("this OpenCV reads no GIF")
    ink = np.zeros((28, 28, 4), np.uint8)
    ink[5:20, 12:16, 3] = 255
    options = {"lossless": True} if kind == "WEBP" else {}

    found = decode_image(saved(ink, kind, **options))

    assert np.array_equal(found[:, :, 0], 255 - ink[:, :, 3])


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_value_is_met_at_every_depth(bits: int) -> None:
    values = np.arange(2, dtype=np.uint8) if bits == 1 else np.array([0, 1, 2, 3], np.uint8)
    if bits == 16:
        rows = unfiltered(values[None].astype(np.uint16))
    elif bits == 8:
        rows = unfiltered(values[None])
    else:
        rows = b"\0" + np.packbits(np.unpackbits(values[:, None], axis=1)[:, -bits:].ravel()).tobytes()
    data = png((len(values), 1), bits, 0, rows, ahead=chunk(b"tRNS", struct_of(1)))

    shown = decode_image(data)[0, :, 0].astype(int)

    expected = [round(int(value) * 255 / (2**bits - 1)) for value in values]
    expected[1] = 255
    assert np.abs(shown - expected).max() <= ROUNDED


@given(name=st.sampled_from(sorted(READ)), data=st.data())
def test_damage_anywhere_is_read_or_refused_and_nothing_else(name: str, data: st.DataObject) -> None:
    content = bytearray(made(name))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))]

    with contextlib.suppress(ImageError):
        assert decode_image(bytes(content), max_pixels=100_000).shape[2:] == (3,)


@cache
def made(name: str) -> bytes:
    return READ[name][0]()


def struct_of(value: int) -> bytes:
    return value.to_bytes(2, "big")


def test_a_frame_that_is_a_part_of_its_canvas_lies_on_the_background() -> None:
    data = gif_of_a_part(7, 9, WIDTH + 20, HEIGHT + 30)
    if is_optional_and_absent("GIF"):
        pytest.skip("this OpenCV reads no GIF")

    found = decode_image(data, background_rgb=(1, 2, 3))

    assert found.shape == (HEIGHT + 30, WIDTH + 20, 3)
    assert found[0, 0].tolist() == found[-1, -1].tolist() == [3, 2, 1]
    assert np.array_equal(
        found[9 : 9 + HEIGHT, 7 : 7 + WIDTH], decode_image(saved(Image.fromarray(RGB).quantize(64), "GIF"))
    )


@pytest.mark.parametrize(
    ("name", "at", "size"),
    [
        ("GIF", 6, b"\xff\xff\xff\xff"),
        ("WebP", 26, b"\xff\x3f\xff\x3f"),
        ("BMP", 18, b"\xff\xff\x00\x00\xff\xff\x00\x00"),
        ("AVIF", None, b"\x00\x00\xff\xff\x00\x00\xff\xff"),
        ("JPEG 2000 codestream", 8, b"\x00\x00\xff\xff\x00\x00\xff\xff"),
    ],
)
def test_the_limit_is_checked_in_the_header_of_every_format(
    name: str, at: int | None, size: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray(READ[name][0]())
    at = data.index(b"ispe") + 8 if at is None else at
    data[at : at + len(size)] = size
    refuse_to_decode(monkeypatch)

    with pytest.raises(ImageError, match=r"^the image has \d+ x \d+ pixels, over the limit of \d+.*: scale it down"):
        decode_image(bytes(data))


def test_the_limit_is_checked_in_the_header_of_a_tiff(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(RGB, "TIFF").replace(WIDTH.to_bytes(4, "little"), (60_000).to_bytes(4, "little"))
    data = data.replace(HEIGHT.to_bytes(4, "little"), (60_000).to_bytes(4, "little"))
    refuse_to_decode(monkeypatch)

    with pytest.raises(ImageError, match="^the image has .* over the limit"):
        decode_image(data)


def test_the_canvas_of_an_animation_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(READ["WebP animated"][0]())
    data[24:30] = b"\xff\x3f\x00\xff\x3f\x00"
    refuse_to_decode(monkeypatch)

    with pytest.raises(ImageError, match="^the image has 16384 x 16384 pixels, over the limit"):
        decode_image(bytes(data))


def test_what_is_coded_in_an_avif_counts_and_not_what_its_properties_say(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(saved(np.full((1000, 1200, 3), 200, np.uint8), "AVIF"))
    at = data.index(b"ispe") + 8
    data[at : at + 8] = struct.pack(">II", 10, 10)
    refuse_to_decode(monkeypatch)

    with pytest.raises(ImageError, match="^the image has 1200 x 1000 pixels, over the limit of 1000000: scale it down"):
        decode_image(bytes(data), max_pixels=1_000_000)


@pytest.mark.parametrize("name", ["PNG 16-bit", "PNG 16-bit RGBA", "TIFF 16-bit grey"])
def test_sixteen_bits_count_twice(name: str) -> None:
    data = READ[name][0]()

    assert decode_image(data, max_pixels=2 * WIDTH * HEIGHT).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(ImageError, match="^the image has .* over the limit of .* for such a (PNG|TIFF) image: scale"):
        decode_image(data, max_pixels=2 * WIDTH * HEIGHT - 1)


def refuse_to_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", decode)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_picture_is_upright_and_never_below_what_is_asked_for(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(smooth(600, 800), "JPEG", quality=95, exif=exif)
    asked: list[tuple[int, int]] = []

    def shrink(height: int, width: int) -> float:
        asked.append((height, width))
        return 5.0

    found, whole = decode_image(data, shrink=shrink), decode_image(data)

    assert asked == [whole.shape[:2]]
    assert found.shape == (whole.shape[0] // 4, whole.shape[1] // 4, 3)
    reduced = cv2.resize(whole, (found.shape[1], found.shape[0]), interpolation=cv2.INTER_AREA)
    assert np.abs(found.astype(int) - reduced).max() <= 8


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.99, 2.0, 7.9, 8.0, 100.0])
def test_only_a_reduction_that_is_asked_for_is_taken(factor: float) -> None:
    found = decode_image(quality(smooth(160, 160)), shrink=lambda *_: factor)

    assert found.shape[0] == 160 // max(n for n in (1, 2, 4, 8) if n <= max(factor, 1))


@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2}, {"restart_marker_rows": 1}], ids=str)
def test_a_jpeg_that_ends_too_early_is_refused_wherever_it_ends(options: dict[str, int]) -> None:
    """A cut in the very last block cannot be told from another picture; nothing else of it differs then."""
    whole = saved(smooth(64, 80), "JPEG", quality=85, **options)
    shown = decode_image(whole)
    begin = whole.index(b"\xff\xda") + 14
    for length in range(begin + 1, len(whole) - 2):
        try:
            found = decode_image(whole[:length] + b"\xff\xd9")
        except ImageError as error:
            assert "truncated" in str(error)  # noqa: PT017
        else:
            changed = np.nonzero((found != shown).any(axis=2))
            assert min(changed[0], default=64) >= 64 - 17
            assert min(changed[1], default=80) >= 80 - 17
