"""What the header of a picture says, and the errors that all formats share."""

from __future__ import annotations

from dataclasses import dataclass

from models.errors import ModelError


class ImageError(ModelError):
    """Error: the bytes are not a picture that can be decoded; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What is known of a picture before it is decoded.

    Attributes:
        kind: name of the format.
        width: pixels as stored, before it is rotated.
        height: like `width`.
        data: bytes for the decoder: the first picture alone, without what follows or is animated.
        orientation: EXIF's number for the rotation and reflection that are still to be applied; 1 for none.
        whole: whether to decode everything that is stored, alpha channel and 16 bits, instead of three opaque channels.
        transparent_value: the grey value that is transparent, of `deepest`; None: none is.
        deepest: the largest value that a pixel can have where `transparent_value` is given.
        premultiplied: whether the colours are already multiplied by the alpha channel.
        memory: how many times the memory of three bytes a pixel its decoder takes, about.
        reducible: whether the decoder can decode at a half, a quarter or an eighth of the scale for less.
        padded: whether it can look whole although its end is missing: the rest would be a uniform grey.
        always_doubtful: whether that cannot be told from the last pixel.
        canvas: left, top, width and height where the picture is a part of a transparent canvas; None: it is all.
    """

    kind: str
    width: int
    height: int
    data: bytes | memoryview
    orientation: int = 1
    whole: bool = False
    transparent_value: int | None = None
    deepest: int = 255
    premultiplied: bool = False
    memory: int = 1
    reducible: bool = False
    padded: bool = False
    always_doubtful: bool = False
    canvas: tuple[int, int, int, int] | None = None

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height of the canvas, before it is rotated; those of the picture where there is none."""
        return self.canvas[2:] if self.canvas else (self.width, self.height)


def truncated(kind: str, size_bytes: int) -> ImageError:
    """Returns the error of a file whose end is missing."""
    return ImageError(f"the {kind} image is truncated after {size_bytes} bytes: send the whole file")


def damaged(kind: str = "") -> ImageError:
    """Returns the error of a file that contradicts its format."""
    return ImageError(f"the {kind + ' ' if kind else ''}image is damaged and cannot be decoded: encode it again")


def unreadable(kind: str, what: str) -> ImageError:
    """Returns the error of a variant that the decoder cannot read; `what` continues "the KIND image"."""
    return ImageError(f"the {kind} image {what}, which cannot be read here: convert it to an 8-bit PNG or JPEG")
