"""What requests send: pictures from files, or drawn here from a seed without OpenCV, which a client host may lack."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.pictures.header import ImageError
from models.pictures.kinds import read_header
from scheduler.measuring.errors import MeasuringError
from scheduler.wire import Tensor, WireError, concat

PICTURE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".gif", ".webp", ".avif", ".bmp", ".tif", ".tiff"),
    *(".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"),
)
_UNREADABLE_SUFFIXES = (
    ".heic",
    ".heif",
    ".jxl",
    ".svg",
    ".psd",
    ".ico",
    ".exr",
    ".hdr",
    ".pbm",
    ".pgm",
    ".pnm",
    ".ppm",
)
"""Pictures too, which are named rather than left out."""
_NAMED = 3
"""How many files a sentence names."""
MAX_BYTES = 2**30
"""Maximum of all pictures together, which are held in memory."""
_SYNTHETIC = 8
_SIDE = 224


@dataclass(frozen=True, slots=True)
class Payload:
    """What one request sends, and its name: an encoded picture, or one item of each of a model's inputs."""

    name: str
    data: bytes = b""
    tensors: tuple[Tensor, ...] = ()
    """One item of each input, batch axis first; empty: `data` is the picture."""

    def inputs(self, picture_input: str) -> tuple[Tensor, ...]:
        """Returns one item of each input; a picture is for the input of that name."""
        return self.tensors or (Tensor.from_elements(picture_input, [self.data]),)


def batch_of(payloads: Sequence[tuple[Tensor, ...]], items: int) -> tuple[Tensor, ...]:
    """Returns the inputs of a batch, which takes the payloads in turn.

    Raises:
        MeasuringError: their shapes differ, so that they cannot share a batch.
    """
    taken = [payloads[index % len(payloads)] for index in range(items)]
    try:
        return tuple(concat(tensors) for tensors in zip(*taken, strict=True))
    except WireError as error:
        raise MeasuringError(f"the payloads cannot share a batch: {error}; send payloads of equal shapes") from None


def read_pictures(folder: Path) -> tuple[Payload, ...]:
    """Reads the pictures in a folder, in the order of their names; hidden files are none, as a Mac leaves on a stick.

    Raises:
        MeasuringError: the folder does not exist, has no pictures, or some of them cannot be read; names these.
    """
    if not folder.is_dir():
        raise MeasuringError(f"{folder} is not a folder; name a folder with pictures")
    try:
        visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise MeasuringError(f"cannot read the folder {folder}: {error.strerror}") from error
    files = [path for path in visible if path.suffix.lower() in PICTURE_SUFFIXES + _UNREADABLE_SUFFIXES]
    if not files:
        raise MeasuringError(f"the folder {folder} has no pictures ({', '.join(PICTURE_SUFFIXES)}); name another")
    pictures = read_files(files)
    if unreadable := [f"{picture.name} ({why})" for picture in pictures if (why := _fault(picture.data))]:
        more = f" and {len(unreadable) - _NAMED} more" if len(unreadable) > _NAMED else ""
        raise MeasuringError(
            f"{len(unreadable)} of {len(files)} pictures in the folder {folder} cannot be read:"
            f" {'; '.join(unreadable[:_NAMED])}{more}; convert or remove them"
        )
    return pictures


def _fault(data: bytes) -> str:
    """Returns what the header of a picture lacks; empty: nothing."""
    try:
        read_header(memoryview(data))
    except ImageError as error:
        return str(error)
    return ""


def read_files(paths: Sequence[Path]) -> tuple[Payload, ...]:
    """Reads files unchanged; the server decides whether each is a picture.

    Raises:
        MeasuringError: a file cannot be read or is empty, or all together are too large.
    """
    payloads, total_bytes = [], 0
    for path in paths:
        try:
            total_bytes += path.stat().st_size
            if total_bytes > MAX_BYTES:
                raise MeasuringError(f"the pictures up to {path} have more than {MAX_BYTES} bytes; name fewer")
            payloads.append(Payload(path.name, path.read_bytes()))
        except OSError as error:
            raise MeasuringError(f"cannot read the picture {path}: {error.strerror}") from error
        if not payloads[-1].data:
            raise MeasuringError(f"the picture {path} is empty; remove or replace it")
    return tuple(payloads)


def synthetic_pictures(seed: int) -> tuple[Payload, ...]:
    """Draws eight PNG pictures of smooth stripes with noise, 224 x 224 pixels and about 17 KB each.

    >>> [picture.name for picture in synthetic_pictures(1)[:2]]
    ['synthetic-0.png', 'synthetic-1.png']
    """
    rng = np.random.default_rng(seed)
    return tuple(Payload(f"synthetic-{index}.png", png(_stripes(rng, _SIDE))) for index in range(_SYNTHETIC))


def _stripes(rng: np.random.Generator, side: int) -> npt.NDArray[np.uint8]:
    y, x = np.mgrid[0:side, 0:side] / side
    waves = rng.uniform(2, 12, 2)
    stripes = np.sin(waves[0] * x + waves[1] * y + rng.uniform(0, 2 * np.pi)) * 96 + 128
    noise = rng.integers(0, 2, (side, side))
    return np.asarray(stripes // 8 * 8 + noise, dtype=np.uint8)


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encodes a grey picture as PNG.

    Args:
        pixels: shape (height, width).

    References:
        PNG specification, third edition: https://www.w3.org/TR/png-3/ (5 datastream, 9.2 filter type 0, 11.2.1 IHDR).
    """
    height, width = pixels.shape
    lines = np.zeros((height, 1 + width), dtype=np.uint8)
    lines[:, 1:] = pixels
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
