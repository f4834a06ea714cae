"""How a network wants its pictures: the table `[preprocess]` of a model's card. Needs the standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, get_args

from models.errors import ModelError

Resize = Literal["shorter", "stretch", "letterbox"]
Layout = Literal["CHW", "HWC"]
Colour = Literal["RGB", "BGR", "GREY"]
Rgb = tuple[int, int, int]

# The largest input of a network of pictures that is in use is a tenth of this; a wrong digit must not take all memory.
_MAX_SIDE: Final = 8192
_NAMED: Final[Mapping[str, Rgb]] = {"white": (255, 255, 255), "black": (0, 0, 0)}


class PreprocessError(ModelError):
    """Error: a value of `[preprocess]` cannot be used; the message begins with its key.

    Attributes:
        key: the key.
    """

    def __init__(self, key: str, sentence: str) -> None:
        """Stores the key; `sentence` continues it."""
        super().__init__(f"{key} {sentence}")
        self.key = key


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """Steps from a decoded picture to the input of a network, in this order.

    The picture is rotated by its EXIF orientation, composed on `background`, scaled to `size`, and cropped; the
    values of its channels, divided by 255, become (value - mean) / std. Lists are taken for tuples.

    Attributes:
        size: height and width after scaling, pixels; one number for a square.
        resize: "shorter" keeps the shape, covers `size` and cuts off what sticks out evenly; for a square `size` the
            shorter side gets this length. "stretch" gives up the shape. "letterbox" keeps the shape, fits into `size`
            and fills the rest evenly with `fill`.
        crop: height and width of the centre that the network sees, pixels; one number for a square; None: all.
        mean: of values from 0 to 1, one for each channel in the order of `colour`, or one for all.
        std: standard deviation, like `mean`; a negative one inverts the picture.
        layout: order of the axes of one item.
        colour: the channels and their order.
        background: what transparent pixels show: "white", "black" or "#rrggbb".
        fill: colour of the rest in "letterbox": a grey value from 0 to 255, "white", "black" or "#rrggbb".

    Raises:
        PreprocessError: a value cannot be used.
    """

    size: int | tuple[int, int]
    resize: Resize = "shorter"
    crop: int | tuple[int, int] | None = None
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    layout: Layout = "CHW"
    colour: Colour = "RGB"
    background: str = "white"
    fill: int | str = 114

    def __post_init__(self) -> None:
        """Checks the values; `mean` and `std` become tuples with one number for each channel."""
        _check_choice("resize", self.resize, get_args(Resize))
        _check_choice("layout", self.layout, get_args(Layout))
        _check_choice("colour", self.colour, get_args(Colour))
        self._set("size", _pair("size", self.size))
        if self.crop is not None:
            self._set("crop", _pair("crop", self.crop))
            if self.height > self.scaled[0] or self.width > self.scaled[1]:
                raise PreprocessError("crop", f"is larger than size: {list(self.shape[:2])} of {list(self.scaled)}")
        self._set("mean", _each_channel("mean", self.mean, self.channels))
        self._set("std", _each_channel("std", self.std, self.channels))
        if 0.0 in self.stds:
            raise PreprocessError("std", "is 0, and values are divided by it: give 1 to leave them")
        _rgb("background", self.background)
        _rgb("fill", self.fill)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Preprocess:
        """Returns the settings of a TOML table.

        Raises:
            PreprocessError: a key is unknown or missing, or a value cannot be used.
        """
        keys = [field.name for field in fields(cls)]
        for key in table:
            if key not in keys:
                raise PreprocessError(key, f"is no key of [preprocess]: it has {', '.join(keys)}")
        if "size" not in table:
            raise PreprocessError("size", "is missing: give the height and width that pictures are scaled to")
        return cls(**table)

    @property
    def scaled(self) -> tuple[int, int]:
        """Height and width after scaling, pixels."""
        assert isinstance(self.size, tuple)
        return self.size

    @property
    def height(self) -> int:
        """Height that the network sees, pixels."""
        return self.scaled[0] if not isinstance(self.crop, tuple) else self.crop[0]

    @property
    def width(self) -> int:
        """Width that the network sees, pixels."""
        return self.scaled[1] if not isinstance(self.crop, tuple) else self.crop[1]

    @property
    def channels(self) -> int:
        """Number of channels."""
        return 1 if self.colour == "GREY" else 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one prepared picture: height, width, channels, whatever `layout` says of the network's input."""
        return self.height, self.width, self.channels

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one item of the network's input, as `layout` says."""
        if self.layout == "HWC":
            return self.shape
        return self.channels, self.height, self.width

    @property
    def means(self) -> tuple[float, ...]:
        """`mean` of each channel."""
        assert isinstance(self.mean, tuple)
        return self.mean

    @property
    def stds(self) -> tuple[float, ...]:
        """`std` of each channel."""
        assert isinstance(self.std, tuple)
        return self.std

    @property
    def scales(self) -> tuple[float, ...]:
        """What each channel's value from 0 to 255 is multiplied by, before `offsets` are added."""
        return tuple(1 / (255 * std) for std in self.stds)

    @property
    def offsets(self) -> tuple[float, ...]:
        """See `scales`."""
        return tuple(-mean / std for mean, std in zip(self.means, self.stds, strict=True))

    @property
    def background_rgb(self) -> Rgb:
        """What transparent pixels show: red, green, blue."""
        return _rgb("background", self.background)

    @property
    def fill_rgb(self) -> Rgb:
        """Colour of the rest in "letterbox": red, green, blue."""
        return _rgb("fill", self.fill)


def _check_choice(key: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise PreprocessError(key, f"is {value!r}: choose {', '.join(choices[:-1])} or {choices[-1]}")


def _pair(key: str, value: object) -> tuple[int, int]:
    sides = (value, value) if _is_whole(value) else tuple(value) if isinstance(value, (list, tuple)) else ()
    if len(sides) != 2 or not all(_is_whole(side) for side in sides):
        raise PreprocessError(key, f"is {value!r}: give a number of pixels, or [height, width]")
    if not all(1 <= side <= _MAX_SIDE for side in sides):
        raise PreprocessError(key, f"is {value!r}: give 1 to {_MAX_SIDE} pixels")
    return sides[0], sides[1]


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _each_channel(key: str, value: object, channels: int) -> tuple[float, ...]:
    numbers = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if not all(_is_whole(number) or isinstance(number, float) for number in numbers):
        raise PreprocessError(key, f"is {value!r}: give a number, or a list of numbers")
    if not all(math.isfinite(number) for number in numbers):
        raise PreprocessError(key, f"is {value!r}: give finite numbers")
    if len(numbers) not in (1, channels):
        raise PreprocessError(key, f"has {len(numbers)} numbers: give one, or one for each channel ({channels})")
    return tuple(float(number) for number in (numbers * channels if len(numbers) == 1 else numbers))


def _rgb(key: str, value: object) -> Rgb:
    if key == "fill" and isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255:
        return value, value, value
    if isinstance(value, str):
        if value in _NAMED:
            return _NAMED[value]
        digits = value.removeprefix("#")
        if len(digits) == 6 and len(value) == 7 and all(digit in "0123456789abcdefABCDEF" for digit in digits):
            red, green, blue = bytes.fromhex(digits)
            return red, green, blue
    grey = "a grey value from 0 to 255, " if key == "fill" else ""
    raise PreprocessError(key, f"is {value!r}: give {grey}white, black or #rrggbb")


DIGITS: Final = Preprocess(size=28, resize="stretch", colour="GREY", mean=1.0, std=-1.0)
"""Dark ink on light paper, as the mean ink of each cell: from 0 for white paper to 1 for black ink."""

IMAGENET: Final = Preprocess(size=256, crop=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""The values used to train torchvision's ImageNet weights (its documentation of ResNet50_Weights.IMAGENET1K_V1)."""
