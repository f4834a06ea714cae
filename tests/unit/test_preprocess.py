"""Pictures to a network's input: the values of the closed form, the geometry of Pillow, one shape whatever is sent."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.wild_pictures import saved, smooth

from models.images import ImageError, decode_image
from models.preprocess import Pictures, digit_input, fitted, imagenet_input, normalise
from models.preprocess_settings import DIGITS, IMAGENET, Preprocess

PLAIN = Preprocess(size=8, resize="stretch")


def natural(height: int, width: int) -> np.ndarray:
    """Returns detail of all sizes up to a tenth of the picture, red-green-blue."""
    random = np.random.default_rng(2)
    total = np.full((height, width, 3), 128, np.float32)
    for size in (4, 16, 64):
        rough = random.normal(0, 4 * size**0.5, (height // size + 2, width // size + 2, 3)).astype(np.float32)
        total += cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(total, 0, 255).astype(np.uint8)


def by_pillow(data: bytes, settings: Preprocess) -> np.ndarray:
    """Returns the picture scaled over its shorter side and cropped, as torchvision does it with Pillow."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    shorter = min(image.size)
    size = tuple(settings.scaled[0] * side // shorter for side in image.size)
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = round((image.width - settings.width) / 2), round((image.height - settings.height) / 2)
    return np.asarray(image.crop((left, top, left + settings.width, top + settings.height)))


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
@pytest.mark.parametrize("colour", ["RGB", "BGR", "GREY"])
def test_a_batch_is_normalised_by_the_closed_form(layout: str, colour: str) -> None:
    channels = 1 if colour == "GREY" else 3
    mean, std = (0.3, 0.4, 0.5)[:channels], (0.1, 0.2, -0.3)[:channels]
    settings = Preprocess(size=(5, 7), layout=layout, colour=colour, mean=mean, std=std)
    batch = np.random.default_rng(1).integers(0, 256, (4, 5, 7, channels), dtype=np.uint8)

    found = normalise(batch, settings)

    expected = (batch / 255 - np.array(mean)) / np.array(std)
    expected = expected if layout == "HWC" else expected.transpose(0, 3, 1, 2)
    assert (found.dtype, found.shape, found.flags.c_contiguous) == (np.float32, (4, *settings.input_shape), True)
    assert np.allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert np.allclose(found[0], normalise(batch[:1], settings)[0], rtol=0, atol=0)
    by_device = batch * np.array(settings.scales) + np.array(settings.offsets)
    assert np.allclose(by_device if layout == "HWC" else by_device.transpose(0, 3, 1, 2), expected)


def test_a_batch_that_is_a_view_is_normalised_too() -> None:
    batch = np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)

    assert np.array_equal(normalise(batch[::2, :, ::-1], PLAIN), normalise(batch[::2, :, ::-1].copy(), PLAIN))


def test_digits_are_the_mean_ink_of_each_cell() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (280, 280), dtype=np.uint8)

    found = normalise(Pictures(DIGITS).prepare(saved(picture, "PNG"))[np.newaxis], DIGITS)

    cells = np.rint(picture.reshape(28, 10, 28, 10).mean(axis=(1, 3)))
    assert found.shape == (1, 1, 28, 28)
    assert np.abs(found[0, 0] - (1 - cells / 255)).max() < 1.01 / 255
    assert np.array_equal(found[0], digit_input(decode_image(saved(picture, "PNG"))))
    assert not np.signbit(normalise(np.full((1, 28, 28, 1), 255, np.uint8), DIGITS)).any()


@pytest.mark.parametrize(
    ("kind", "size", "distance"),
    [
        ("PNG", (375, 500), 0.5),
        ("PNG", (500, 333), 0.5),
        ("PNG", (700, 511), 0.5),
        ("PNG", (100, 120), 0.5),
        ("JPEG", (375, 500), 0.5),
        ("JPEG", (1080, 1920), 1.2),
        ("JPEG", (1500, 2000), 1.2),
    ],
)
def test_pictures_of_imagenet_are_what_torchvision_makes_of_them(
    kind: str, size: tuple[int, int], distance: float
) -> None:
    data = saved(natural(*size), kind, **({"quality": 92} if kind == "JPEG" else {}))

    found = Pictures(IMAGENET).prepare(data)

    assert np.abs(found.astype(float) - by_pillow(data, IMAGENET)).mean() < distance


def test_the_old_functions_give_the_same() -> None:
    picture = natural(300, 400)
    data = saved(picture, "PNG")

    prepared = Pictures(IMAGENET).prepare(data)

    assert np.array_equal(normalise(prepared[np.newaxis], IMAGENET)[0], imagenet_input(decode_image(data)))


@pytest.mark.parametrize("colour", ["RGB", "BGR", "GREY"])
def test_the_colours_come_in_the_order_of_the_card(colour: str) -> None:
    data = saved(np.full((9, 9, 3), (200, 100, 50), np.uint8), "PNG")

    found = Pictures(replace(PLAIN, colour=colour, mean=0.0, std=1.0)).prepare(data)

    grey = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert found[3, 3].tolist() == {"RGB": [200, 100, 50], "BGR": [50, 100, 200], "GREY": [grey]}[colour]


@pytest.mark.parametrize(("colour", "fill"), [("RGB", [10, 20, 30]), ("BGR", [30, 20, 10]), ("GREY", [18])])
def test_a_letterbox_is_filled_evenly(colour: str, fill: list[int]) -> None:
    settings = Preprocess(size=(40, 60), resize="letterbox", colour=colour, fill="#0a141e")

    wide = Pictures(settings).prepare(saved(np.full((10, 30, 3), 200, np.uint8), "PNG"))
    high = Pictures(settings).prepare(saved(np.full((80, 20, 3), 200, np.uint8), "PNG"))

    assert (wide[:10] == fill).all()
    assert (wide[30:] == fill).all()
    assert (wide[10:30] == 200).all()
    assert (high[:, :25] == fill).all()
    assert (high[:, 35:] == fill).all()
    assert (high[:, 25:35] == 200).all()


def test_the_usual_grey_fills_a_letterbox() -> None:
    found = Pictures(Preprocess(size=10, resize="letterbox")).prepare(saved(np.zeros((1, 10, 3), np.uint8), "PNG"))

    assert (found[0] == 114).all()


def test_stretching_may_shrink_one_axis_and_enlarge_the_other() -> None:
    ramp = np.tile(np.arange(0, 240, dtype=np.uint8), (4, 1))

    found = Pictures(Preprocess(size=(20, 24), resize="stretch", colour="GREY")).prepare(saved(ramp, "PNG"))

    assert np.abs(found[:, :, 0] - (np.arange(24) * 10 + 4.5)).max() <= 0.5


def test_a_size_that_is_no_square_is_covered() -> None:
    halves = np.zeros((100, 100, 3), np.uint8)
    halves[:, 50:] = 250

    found = Pictures(Preprocess(size=(20, 40))).prepare(saved(halves, "PNG"))

    assert found.shape == (20, 40, 3)
    assert (found[:, :19] == 0).all()
    assert (found[:, 21:] == 250).all()


def test_transparent_pixels_show_the_background_of_the_card() -> None:
    clear = saved(np.zeros((8, 8, 4), np.uint8), "PNG")

    assert (Pictures(PLAIN).prepare(clear) == 255).all()
    assert (Pictures(replace(PLAIN, background="black")).prepare(clear) == 0).all()
    assert (Pictures(replace(PLAIN, background="#010203")).prepare(clear) == (1, 2, 3)).all()


def test_the_limit_of_pixels_can_be_lowered() -> None:
    with pytest.raises(ImageError, match="over the limit of 63"):
        Pictures(PLAIN, max_pixels=63).prepare(saved(np.zeros((8, 8, 3), np.uint8), "PNG"))


@given(
    height=st.sampled_from([1, 2, 7, 8, 15, 64, 333]),
    width=st.sampled_from([1, 3, 8, 31, 200, 1024]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    resize=st.sampled_from(["shorter", "stretch", "letterbox"]),
    colour=st.sampled_from(["RGB", "GREY"]),
    jpeg=st.booleans(),
)
def test_every_picture_gets_the_shape_of_the_card(
    height: int, width: int, size: tuple[int, int], resize: str, colour: str, jpeg: bool
) -> None:
    crop = (max(1, size[0] - 3), max(1, size[1] // 2))
    settings = Preprocess(size=size, crop=crop, resize=resize, colour=colour)

    found = Pictures(settings).prepare(saved(np.full((height, width, 3), 90, np.uint8), "JPEG" if jpeg else "PNG"))

    assert (found.shape, found.dtype, found.flags.c_contiguous) == (settings.shape, np.uint8, True)
    assert set(np.unique(found)) <= {90, 114}


@pytest.mark.parametrize("settings", [DIGITS, IMAGENET, Preprocess(size=(90, 60), resize="letterbox")], ids=str)
@pytest.mark.parametrize("size", [(600, 800), (601, 803), (777, 431)], ids=str)
def test_decoding_at_a_reduced_scale_changes_little(settings: Preprocess, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(smooth(*size), "JPEG", quality=92, exif=exif)

    found = Pictures(settings).prepare(data).astype(int)

    difference = np.abs(found - fitted(decode_image(data), settings))
    assert difference.mean() < 0.6
    assert np.percentile(difference, 99) <= 4


def test_any_number_of_threads_may_prepare_pictures() -> None:
    pictures = Pictures(IMAGENET)
    files = [saved(natural(300 + index, 400), "JPEG") for index in range(6)]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(pictures.prepare, files * 4))

    alone = [pictures.prepare(file) for file in files]
    assert all(np.array_equal(one, alone[index % 6]) for index, one in enumerate(found))
