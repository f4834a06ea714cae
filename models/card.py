"""A model's card: what `model.toml` in the model's folder says. Standard library only; reading is `card_reader`'s."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from models.errors import ModelError
from models.pictures.weight import MAX_BATCH_PIXELS, MAX_PIXELS
from models.preprocess_settings import Preprocess

Format = Literal["torchscript", "torch-export", "onnx", "state-dict", "python"]
Activation = Literal["softmax", "sigmoid", "none"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]

CARD_FILE = "model.toml"
ITEM_ERROR = "item_error"
"""Name of the output that models with pictures have too: a sentence for each item that failed, else empty."""
ROWS_SUFFIX = "_rows"
_READ_BYTES = 2**20
# Stands in an identity for the file that a card leaves to the host; no file of a folder has that name.
_WEIGHTS = "/weights"


class CardError(ModelError):
    """Error: a card cannot be used; the message names file, line and key."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a model.

    Attributes:
        name: the tensor's name.
        datatype: its Open Inference Protocol datatype.
        shape: the shape of one item, without the batch axis; -1: any length, and only equal shapes share a batch.
        picture: whether each element is an encoded picture.
        ragged: whether items have unlike numbers of rows: the first axis has the rows of all items, one after the
            other, `shape` is that of one row, and the output NAME_rows counts the rows of each item.
        finite: of an output of floats: whether NaN and infinity are faults of the place that gives them.
    """

    name: str
    datatype: str
    shape: tuple[int, ...] = ()
    picture: bool = False
    ragged: bool = False
    finite: bool = True

    @property
    def rows_name(self) -> str:
        """Name of the output that counts a ragged output's rows: INT64, one for each item."""
        return self.name + ROWS_SUFFIX

    def metadata(self) -> dict[str, Any]:
        """Returns name, datatype and shape as the Open Inference Protocol shows them."""
        return {"name": self.name, "datatype": self.datatype, "shape": [-1, *self.shape]}

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Returns whether a tensor of this shape, batch axis included, holds items of this kind.

        >>> TensorSpec("x", "FP32", (3, -1)).fits((2, 3, 7))
        True
        """
        item = shape[1:]
        if item == self.shape:
            return True
        return len(item) == len(self.shape) and all(
            wanted in (-1, given) for wanted, given in zip(self.shape, item, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Card:
    """What a model takes and gives, and how it is loaded.

    Attributes:
        name: name for clients; that of the folder unless the card says otherwise.
        folder: the folder with the card and its files.
        format: how the model is stored.
        inputs: the inputs, at least one.
        outputs: the outputs of the network, at least one; `all_outputs` has those that are added.
        file: file of the model or of its weights, relative to the folder; "" if it has none.
        architecture: of a state dictionary: `torchvision:NAME` or `timm:NAME`.
        arguments: keyword arguments of the architecture, or of the handler's class.
        handler: `FILE.py:CLASS` of a handler in Python.
        further_files: other files that belong to it, relative to the folder.
        preprocess: how a picture becomes the network's input; None: not at all.
        activation: what is applied to the first output, along its last axis.
        labels: names of the classes, in the order of the first output's last axis; may be empty.
        max_batch: largest number of items in a batch.
        max_pixels: most pixels of a picture.
        max_batch_pixels: most pixels that the pictures of a batch have to decode; baseline JPEG files count an eighth.
        precision: "auto": the fastest whose outputs agree.
        tolerance: largest difference between outputs of two runtimes that agree, where 1 is the larger of 1 and the
            output's largest value.
        summary: one sentence for users.
        sha256: declared hash of files, by their path relative to the folder.
        text: the card as it is written, for its hash.
    """

    name: str
    folder: Path
    format: Format
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    file: str = ""
    architecture: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    handler: str = ""
    further_files: tuple[str, ...] = ()
    preprocess: Preprocess | None = None
    activation: Activation = "none"
    labels: tuple[str, ...] = ()
    max_batch: int = 32
    max_pixels: int = MAX_PIXELS
    max_batch_pixels: int = MAX_BATCH_PIXELS
    precision: Precision = "auto"
    tolerance: float = 1e-2
    summary: str = ""
    sha256: Mapping[str, str] = field(default_factory=dict)
    text: bytes = b""

    @property
    def has_pictures(self) -> bool:
        """Whether at least one input takes encoded pictures."""
        return any(spec.picture for spec in self.inputs)

    def all_outputs(self) -> tuple[TensorSpec, ...]:
        """Returns the outputs that a server of the model answers with: rows of ragged outputs and `item_error` too."""
        rows = (TensorSpec(spec.rows_name, "INT64") for spec in self.outputs if spec.ragged)
        failed = (TensorSpec(ITEM_ERROR, "BYTES"),) if self.has_pictures else ()
        return (*self.outputs, *rows, *failed)

    def files(self) -> tuple[str, ...]:
        """Returns every file that the card names, relative to the folder, without the card itself."""
        handler = self.handler.rpartition(":")[0]
        return tuple(dict.fromkeys(name for name in (self.file, handler, *self.further_files) if name))

    def path(self, name: str) -> Path:
        """Returns the path of one of its files."""
        return self.folder / name

    def identity(self, weights: str = "") -> str | None:
        """Returns `sha256:HEX` of the card and its files; None if one is neither here nor declared by its hash.

        It is the SHA-256 of lines in the format of sha256sum, sorted: one for the card, one for each file. An
        architecture whose card names no file of weights has none until a host brings some.

        Args:
            weights: SHA-256 of the file that a host uses in place of `file`, or "random"; "": it uses that of the card.
        """
        hashes = self.file_hashes(weights)
        if hashes is None:
            return None
        lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
        return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()

    def file_hashes(self, weights: str = "") -> dict[str, str] | None:
        """Returns the SHA-256 in hexadecimal of the card and of each file, by name: what `identity` is made of.

        Args:
            weights: as for `identity`.
        """
        hashes = {CARD_FILE: hashlib.sha256(self.text).hexdigest()}
        if weights:
            hashes[self.file or _WEIGHTS] = weights
        elif self.format == "state-dict" and not self.file:
            return None
        for name in self.files():
            known = hashes.get(name) or self.sha256.get(name) or _hash_if_there(self.path(name))
            if known is None:
                return None
            hashes[name] = known
        return hashes

    def check_files(self) -> None:
        """Checks that every file is there and has its declared hash.

        Raises:
            CardError: a file is missing or has another hash.
        """
        for name, problem in self._file_problems():
            raise CardError(f"{self.folder / CARD_FILE}: file {name!r} {problem}")

    def _file_problems(self) -> Iterator[tuple[str, str]]:
        for name in self.files():
            found = _hash_if_there(self.path(name))
            declared = self.sha256.get(name)
            if found is None:
                yield name, "is not there or cannot be read: put it into the folder, or correct its name"
            elif declared is not None and declared != found:
                yield name, f"has SHA-256 {found}, not {declared}: fetch it again or correct the hash"


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _hash_if_there(path: Path) -> str | None:
    try:
        found = path.stat()
        return _known_sha256(path, found.st_ino, found.st_size, found.st_mtime_ns)
    except OSError:
        return None


# One load asks several times, and each time takes a second for a large file.
@lru_cache(maxsize=256)
def _known_sha256(path: Path, _inode: int, _size: int, _changed_ns: int) -> str:
    return file_sha256(path)
