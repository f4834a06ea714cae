"""Measures milliseconds a picture from file to network's input: decoding, scaling, normalising.

Compares the way before (decoded whole, scaled, and normalised one by one in floating point) with the present one, in
turns, for pictures of a camera, of the web, and of the demo. From the root of the repository:

    .venv/bin/python -m scripts.bench_pictures
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from models.digits_pictures import encode
from models.images import decode_image
from models.preprocess import Pictures, fitted, normalise
from models.preprocess_settings import DIGITS, IMAGENET, Preprocess
from scripts.support.script import run_script

_BATCH = 16
_LINE = "{:<26} {:<7} {:>8} {:>8} {:>10} {:>8} {:>9}"

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Steps:
    """Seconds a picture."""

    decode_s: float
    resize_s: float
    normalise_s: float

    @property
    def preprocess_over_decode(self) -> float:
        """What comes after decoding, in units of decoding."""
        return (self.resize_s + self.normalise_s) / self.decode_s


def main() -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="rounds of each way (default %(default)s)")
    arguments = parser.parse_args()
    # A server decodes pictures beside each other, each on one thread.
    cv2.setNumThreads(1)
    print(_LINE.format("picture", "way", "decode", "resize", "normalise", "sum", "pre/dec"))
    for name, data, settings in _cases():
        before, after = _alternated([_before(data, settings), _after(data, settings)], arguments.rounds)
        for way, steps in (("before", before), ("now", after)):
            numbers = [1000 * seconds for seconds in (steps.decode_s, steps.resize_s, steps.normalise_s)]
            print(
                _LINE.format(
                    name,
                    way,
                    *(f"{number:.3f}" for number in (*numbers, sum(numbers))),
                    f"{steps.preprocess_over_decode:.2f}",
                )
            )
    print(
        "milliseconds a picture, medians; normalise: a batch of 16 at once now; pre/dec: resize and normalise / decode"
    )
    return 0


def _cases() -> list[tuple[str, bytes, Preprocess]]:
    ink = np.zeros((8, 8))
    ink[1:7, 3:5] = 16.0
    return [
        ("JPEG 1920 x 1080 to 224", _photograph(1080, 1920), IMAGENET),
        ("JPEG 500 x 375 to 224", _photograph(375, 500), IMAGENET),
        ("demo's JPEG 224 to 28", encode(ink, "jpeg"), DIGITS),
        ("demo's PNG 224 to 28", encode(ink, "png"), DIGITS),
    ]


def _photograph(height: int, width: int) -> bytes:
    """Returns a JPEG with detail of all sizes, of about 0.3 bytes a pixel."""
    random = np.random.default_rng(1)
    total = np.full((height, width, 3), 128, np.float32)
    for size in (4, 16, 64, 256):
        rough = random.normal(0, 2.5 * size**0.5, (height // size + 2, width // size + 2, 3)).astype(np.float32)
        total += np.asarray(cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.float32)
    picture = np.clip(total, 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, 90))[1].tobytes()


def _alternated(ways: list[Callable[[], Steps]], rounds: int) -> list[Steps]:
    measured: list[list[Steps]] = [[] for _ in ways]
    for _ in range(rounds + 1):
        for way, of_way in zip(ways, measured, strict=True):
            of_way.append(way())
    # The first round of each warms up.
    return [
        Steps(
            *(statistics.median(getattr(steps, field) for steps in of_way[1:]) for field in Steps.__dataclass_fields__)
        )
        for of_way in measured
    ]


def _before(data: bytes, settings: Preprocess) -> Callable[[], Steps]:
    def measured() -> Steps:
        decode_s, image = _timed(lambda: decode_image(data))
        resize_s, small = _timed(lambda: _scaled_before(image, settings))
        normalise_s, _ = _timed(lambda: _normalised_before(small, settings))
        return Steps(decode_s, resize_s, normalise_s)

    return measured


def _scaled_before(image: Image, settings: Preprocess) -> Image:
    if settings.colour == "GREY":
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        return np.asarray(cv2.resize(grey, settings.scaled, interpolation=cv2.INTER_AREA), np.uint8)
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = image[top : top + side, left : left + side]
    scaled = cv2.resize(square, settings.scaled, interpolation=cv2.INTER_AREA)
    margin = (settings.scaled[0] - settings.height) // 2
    return np.asarray(scaled[margin : margin + settings.height, margin : margin + settings.width], np.uint8)


def _normalised_before(image: Image, settings: Preprocess) -> npt.NDArray[np.float32]:
    if settings.colour == "GREY":
        return (1.0 - np.asarray(image, dtype=np.float32) / 255.0)[np.newaxis]
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    mean, std = np.array(settings.means, np.float32), np.array(settings.stds, np.float32)
    return np.ascontiguousarray(((np.asarray(rgb, dtype=np.float32) / 255.0 - mean) / std).transpose(2, 0, 1))


def _after(data: bytes, settings: Preprocess) -> Callable[[], Steps]:
    pictures = Pictures(settings)
    # A thread of its own, as on a server, keeps the memory of its batches.
    device = ThreadPoolExecutor(1)

    def normalised(prepared: Image) -> float:
        batch = np.stack([prepared] * _BATCH)
        return _timed(lambda: normalise(batch, settings))[0]

    def measured() -> Steps:
        whole_s, prepared = _timed(lambda: pictures.prepare(data))
        decode_s, image = _timed(lambda: pictures.decode(data))
        resize_s, _ = _timed(lambda: fitted(image, settings))
        normalise_s = device.submit(normalised, prepared).result()
        # So that the sum is that of the function that servers call.
        share = whole_s / (decode_s + resize_s)
        return Steps(decode_s * share, resize_s * share, normalise_s / _BATCH)

    return measured


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    began_s = time.perf_counter()
    result = call()
    return time.perf_counter() - began_s, result


if __name__ == "__main__":
    sys.exit(run_script("bench_pictures", main))
