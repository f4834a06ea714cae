"""Decoding: what is whole is decoded, everything else is refused in one sentence, the large ones before decoding."""

from __future__ import annotations

import contextlib
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.images import ImageError, decode_image

PICTURE = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (40, 30, 3), dtype=np.uint8), (0, 0), 3)


def encoded(extension: str, picture: np.ndarray = PICTURE, options: tuple[int, ...] = ()) -> bytes:
    return cv2.imencode(extension, picture, options)[1].tobytes()


PNG = encoded(".png")
JPEG = encoded(".jpg", options=(cv2.IMWRITE_JPEG_QUALITY, 90))
PROGRESSIVE = encoded(".jpg", options=(cv2.IMWRITE_JPEG_PROGRESSIVE, 1))
WHOLE = {"png": PNG, "jpeg": JPEG, "progressive": PROGRESSIVE}


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of_size(width: int, height: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def jpeg_of_size(width: int, height: int) -> bytes:
    at = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:at] + struct.pack(">HH", height, width) + JPEG[at + 4 :]


def with_thumbnail(jpeg: bytes) -> bytes:
    """Put a whole picture of another size into a segment ahead of the picture, as cameras do."""
    segment = b"Exif\x00\x00" + encoded(".jpg", PICTURE[:8, :8])
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


def test_png_keeps_every_pixel_as_blue_green_red() -> None:
    assert np.array_equal(decode_image(PNG), PICTURE)


@pytest.mark.parametrize("data", [JPEG, PROGRESSIVE, with_thumbnail(JPEG), b"".join([JPEG, b"appended"])])
def test_jpeg_is_decoded_to_nearly_the_picture(data: bytes) -> None:
    decoded = decode_image(data)

    assert decoded.shape == PICTURE.shape
    assert np.abs(decoded.astype(int) - PICTURE).mean() < 5


@pytest.mark.parametrize(
    "picture",
    [PICTURE[:, :, 0], np.dstack([PICTURE, PICTURE[:, :, 0]]), PICTURE.astype(np.uint16) * 257],
    ids=["grey", "transparent", "16 bits"],
)
def test_every_kind_of_png_becomes_three_channels_of_eight_bits(picture: np.ndarray) -> None:
    decoded = decode_image(encoded(".png", picture))

    assert (decoded.shape, decoded.dtype) == (PICTURE.shape, np.uint8)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_any_buffer_is_taken(wrap: type) -> None:
    assert np.array_equal(decode_image(wrap(PNG)), PICTURE)


def test_nothing_is_refused_as_empty() -> None:
    with pytest.raises(ImageError, match=r"^the image is empty: send the bytes of a PNG or JPEG file$"):
        decode_image(b"")


@pytest.mark.parametrize("data", [b"hello", b"GIF", b"RIFF" + bytes(50), bytes(1000)])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="not a PNG or JPEG"):
        decode_image(data)


@pytest.mark.parametrize("kind", WHOLE)
def test_every_truncation_is_refused(kind: str) -> None:
    whole = WHOLE[kind]
    for length in range(1, len(whole)):
        with pytest.raises(ImageError, match="truncated"):
            decode_image(whole[:length])


@pytest.mark.parametrize(
    "options",
    [[], [cv2.IMWRITE_JPEG_RST_INTERVAL, 3], [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]],
    ids=["plain", "restarts", "4:4:4"],
)
def test_a_picture_that_ends_in_grey_is_whole_and_nothing_is_said_of_it(
    options: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    pixels[-16:, -16:] = 128
    data = cv2.imencode(".jpg", pixels, options)[1].tobytes()
    for shrink in (None, lambda _height, _width: 8.0):
        assert decode_image(data, shrink=shrink).shape[2] == 3
    assert capfd.readouterr() == ("", "")
    for missing in range(60, len(data), 997):
        with pytest.raises(ImageError, match="truncated"):
            decode_image(data[:-missing] + data[-2:])


def test_a_picture_whose_thumbnail_alone_is_whole_is_truncated() -> None:
    with pytest.raises(ImageError, match="truncated"):
        decode_image(with_thumbnail(JPEG)[:-2])


@pytest.mark.parametrize("data", [png_of_size(50_000, 50_000), jpeg_of_size(60_000, 60_000)], ids=["png", "jpeg"])
def test_too_many_pixels_are_refused_without_decoding(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", decoded)

    with pytest.raises(ImageError, match=r"has \d+ x \d+ pixels, over the limit of 50000000"):
        decode_image(data)


def test_the_limit_itself_is_allowed() -> None:
    assert decode_image(PNG, max_pixels=PICTURE.shape[0] * PICTURE.shape[1]).shape == PICTURE.shape
    with pytest.raises(ImageError, match="over the limit of 1199"):
        decode_image(PNG, max_pixels=PICTURE.shape[0] * PICTURE.shape[1] - 1)


def test_a_header_with_another_size_inside_a_thumbnail_does_not_count() -> None:
    assert decode_image(with_thumbnail(JPEG), max_pixels=1200).shape == PICTURE.shape


@pytest.mark.parametrize("data", [png_of_size(0, 10), jpeg_of_size(10, 0), png_of_size(10, 10)])
def test_no_pixels_or_too_few_of_them_are_damage(data: bytes) -> None:
    with pytest.raises(ImageError, match="damaged"):
        decode_image(data)


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    scan = PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2]

    with pytest.raises(ImageError, match="over 100 scans"):
        decode_image(PROGRESSIVE[:-2] + scan * 100 + b"\xff\xd9")


def test_a_png_with_one_wrong_byte_is_damaged() -> None:
    at = PNG.index(b"IDAT") + 20

    with pytest.raises(ImageError, match="damaged"):
        decode_image(PNG[:at] + bytes([PNG[at] ^ 1]) + PNG[at + 1 :])


@given(kind=st.sampled_from(sorted(WHOLE)), data=st.data())
def test_damage_anywhere_is_decoded_or_refused_and_nothing_else(kind: str, data: st.DataObject) -> None:
    content = bytearray(WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    with contextlib.suppress(ImageError):
        assert decode_image(bytes(content), max_pixels=1_000_000).shape[2:] == (3,)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]))
def test_arbitrary_bytes_are_refused_as_an_image_error(tail: bytes, start: bytes) -> None:
    with pytest.raises(ImageError):
        decode_image(start + tail)
