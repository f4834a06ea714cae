"""A picture is weighed by its first bytes, as its decoder will find it; a batch's largest ones keep to the budget."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.images import decode_image
from models.pictures.kinds import weigh
from models.pictures.weight import Weight, too_much, weight_of
from scripts.hostile_clients.attacks import one_colour_png


def encoded(kind: str, width: int = 60, height: int = 44, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    ("picture", "work"),
    [
        (encoded("PNG"), 60 * 44),
        (encoded("JPEG"), 60 * 44 // 8),
        (encoded("JPEG", progressive=True), 60 * 44),
        (encoded("JPEG", exif=Image.Exif().tobytes() + bytes(5000)), 60 * 44 // 8),
        (encoded("GIF"), 60 * 44),
        (encoded("WEBP"), 60 * 44),
        (encoded("WEBP", lossless=True), 60 * 44),
        (encoded("WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"), 60 * 44),
        (encoded("BMP"), 60 * 44),
    ],
)
def test_it_is_found_at_the_beginning_and_is_what_the_decoder_finds(picture: bytes, work: int) -> None:
    assert weight_of(picture) == Weight(60, 44, work)
    assert decode_image(picture).shape[:2] == (44, 60)


@pytest.mark.parametrize("kind", ["TIFF", "JPEG2000", "AVIF"])
def test_other_formats_are_weighed_by_their_whole_header(kind: str) -> None:
    picture = encoded(kind)
    assert weight_of(picture) is None
    assert weigh(memoryview(picture)) == Weight(60, 44, 60 * 44)


def test_a_gif_whose_canvas_is_smaller_than_its_picture_weighs_as_the_picture() -> None:
    picture = encoded("GIF")
    assert weight_of(picture[:6] + b"\1\0\1\0" + picture[10:]) == Weight(60, 44, 60 * 44)


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\x89PNG", b"\xff\xd8\xff", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8X", b"BM"]),
)
def test_nothing_that_is_sent_makes_it_fail(rest: bytes, begin: bytes) -> None:
    found = weight_of(begin + rest)
    assert found is None or found.work <= found.pixels
    weigh(memoryview(begin + rest))


def test_eight_kilobytes_of_fifty_megapixels_are_weighed_without_a_decoder() -> None:
    bomb = one_colour_png(30_000, 1660)
    assert len(bomb) < 9000
    assert weight_of(bomb) == Weight(30_000, 1660, 49_800_000)


def test_the_largest_of_a_batch_are_left_out_until_the_rest_keeps_the_budget() -> None:
    weights = [Weight(10, 10, 100), Weight(30, 10, 300), None, Weight(20, 10, 200), Weight(10, 1, 10)]
    assert list(too_much(weights, 610)) == []
    (left_out,) = too_much(weights, 310)
    assert left_out[0] == 1
    assert left_out[1] == (
        "the image has 30 x 10 pixels, and its batch 610 to decode, over the limit of 310: scale it down, or send fewer"
        " at once"
    )
    assert [index for index, _ in too_much(weights, 109)] == [1, 3, 0]


@given(st.lists(st.integers(0, 100), max_size=20), st.integers(1, 300))
def test_what_is_left_keeps_the_budget_and_nothing_smaller_is_left_out(works: list[int], budget: int) -> None:
    out = [index for index, _ in too_much([Weight(work, 1, work) for work in works], budget)]
    kept = [work for index, work in enumerate(works) if index not in out]
    assert sum(kept) <= budget
    assert max(kept, default=0) <= min((works[index] for index in out), default=100)
    if out:
        assert sum(kept) + works[out[-1]] > budget
