"""Reads and checks a card, `model.toml`; every complaint names file, line and key."""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from models import toml_lines
from models.card import CARD_FILE, ITEM_ERROR, Activation, Card, CardError, Format, Precision, TensorSpec
from models.pictures.weight import MAX_BATCH_PIXELS, MAX_PIXELS
from models.preprocess_settings import Preprocess, PreprocessError

# The standard library has a TOML parser since 3.11; `tomli` is the same parser for 3.10.
_TOML = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

DATATYPES = ("BOOL", *(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)), "FP16", "FP32", "FP64")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_CARD_BYTES = 8_000_000
_MAX_BATCH = 4096
# More than OpenCV itself reads.
_MAX_PIXELS = 2**30
_ROOT_KEYS = (
    "name",
    "summary",
    "format",
    "file",
    "sha256",
    "architecture",
    "arguments",
    "class",
    "files",
    "inputs",
    "outputs",
    "preprocess",
    "activation",
    "labels",
    "max_batch",
    "max_pixels",
    "max_batch_pixels",
    "precision",
    "tolerance",
)
_OF_FORMATS: Mapping[str, tuple[str, ...]] = {
    "architecture": ("state-dict",),
    "arguments": ("state-dict", "python"),
    "class": ("python",),
}
_TENSOR_KEYS = ("name", "datatype", "shape", "picture", "ragged", "finite")


def read_card(folder: Path) -> Card:
    """Reads the card of a model's folder.

    Args:
        folder: the folder, which holds `model.toml`; the files that it names need not be there.

    Raises:
        CardError: there is no card, it is not TOML, or a key is unknown, missing or wrong.
    """
    path = folder / CARD_FILE
    content = _content(path)
    text = _text(path, content)
    try:
        tables = _TOML.loads(text)
    except (_TOML.TOMLDecodeError, RecursionError) as error:
        raise CardError(f"{path}: this is not TOML: {error}") from None
    return _Reader(folder, content, tables, toml_lines.line_index(text)).card()


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_CARD_BYTES + 1)
    except OSError as error:
        raise CardError(
            f"{path}: the card cannot be read ({error.strerror}); `edgeburst-model new FOLDER --from FILE` writes one"
        ) from None
    if len(content) > _MAX_CARD_BYTES:
        raise CardError(f"{path}: the file has over {_MAX_CARD_BYTES} bytes; check that it is a model's card")
    return content


def _text(path: Path, content: bytes) -> str:
    try:
        # Windows' editors put a mark in front, which is no part of the text.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise CardError(f"{path}:{line}: the file is not UTF-8 text; save it as UTF-8") from None


@dataclass(frozen=True, slots=True)
class _Reader:
    """The tables of one card and where each key stands."""

    folder: Path
    content: bytes
    tables: Mapping[str, Any]
    lines: Mapping[toml_lines.KeyPath, int]

    def card(self) -> Card:
        self._known_keys(self.tables, _ROOT_KEYS, ())
        card_format: Format = self._choice("format", get_args(Format))
        inputs, outputs = self._tensors("inputs"), self._tensors("outputs")
        file = self._text("file", self._needs_file(card_format))
        handler = self._handler(required=card_format == "python")
        further_files = tuple(self._texts("files"))
        labels, labels_file = self._labels()
        files = tuple(name for name in (*further_files, labels_file) if name)
        names = (file, handler.rpartition(":")[0], *files)
        self._inside("file", file)
        self._inside("class", handler.rpartition(":")[0])
        for name in further_files:
            self._inside("files", name)
        card = Card(
            name=self._name(),
            folder=self.folder,
            format=card_format,
            inputs=inputs,
            outputs=outputs,
            file=file,
            architecture=self._architecture(required=card_format == "state-dict"),
            arguments=self._arguments(),
            handler=handler,
            further_files=files,
            preprocess=self._preprocess(),
            activation=self._choice("activation", get_args(Activation), "none"),
            labels=labels,
            max_batch=self._whole("max_batch", 32, 1, _MAX_BATCH),
            max_pixels=self._whole("max_pixels", MAX_PIXELS, 1, _MAX_PIXELS),
            max_batch_pixels=self._whole("max_batch_pixels", MAX_BATCH_PIXELS, 1, _MAX_PIXELS),
            precision=self._choice("precision", get_args(Precision), "auto"),
            tolerance=self._tolerance(),
            summary=self._text("summary", required=False),
            sha256=self._hashes(file, tuple(filter(None, names))),
            text=self.content,
        )
        self._fits_together(card)
        return card

    # Each value: checked, or an error with its line.

    def error(self, at: toml_lines.KeyPath, sentence: str) -> CardError:
        line = toml_lines.line_of(at, self.lines)
        where = f"{self.folder / CARD_FILE}" + ("" if line is None else f":{line}")
        return CardError(f"{where}: {sentence}")

    def _known_keys(self, table: Mapping[str, Any], known: Sequence[str], at: toml_lines.KeyPath) -> None:
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known)}"
                raise self.error((*at, key), f"key `{key}` is unknown; {hint}")

    def _choice(self, key: str, choices: Sequence[str], default: str | None = None) -> Any:
        value = self.tables.get(key, default)
        if value not in choices:
            given = f"`{key}` is missing" if value is None else f"`{key}` is {value!r}"
            raise self.error((key,), f"{given}; choose one of {', '.join(choices)}")
        return value

    def _text(self, key: str, required: bool) -> str:
        value = self.tables.get(key, "")
        if not isinstance(value, str):
            raise self.error((key,), f"`{key}` must be a text, not {value!r}")
        if required and not value:
            raise self.error((key,), f"`{key}` is missing, which format {self.tables['format']} needs")
        return value

    def _texts(self, key: str) -> list[str]:
        value = self.tables.get(key, [])
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise self.error((key,), f"`{key}` must be a list of texts")
        return value

    def _whole(self, key: str, default: int, low: int, high: int) -> int:
        value = self.tables.get(key, default)
        if type(value) is not int or not low <= value <= high:
            raise self.error((key,), f"`{key}` must be a whole number from {low} to {high}, not {value!r}")
        return value

    def _tolerance(self) -> float:
        value = self.tables.get("tolerance", 1e-2)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise self.error(("tolerance",), f"`tolerance` must be a number above 0, at most 1, not {value!r}")
        return float(value)

    def _name(self) -> str:
        name = self._text("name", required=False) or self.folder.resolve().name
        if not _NAME.fullmatch(name):
            raise self.error(
                ("name",),
                f"the model's name {name!r} must be up to 64 letters, digits, dots, dashes and underscores;"
                " set `name`, or rename the folder",
            )
        return name

    def _needs_file(self, card_format: str) -> bool:
        # A state dictionary may be left to the user (`--weights`), a handler may need no weights.
        return card_format not in ("state-dict", "python")

    def _handler(self, *, required: bool) -> str:
        handler = self._text("class", required)
        file, colon, name = handler.rpartition(":")
        if handler and not (colon and file.endswith(".py") and name.isidentifier()):
            raise self.error(("class",), f"`class` is {handler!r}; write FILE.py:CLASS, like handler.py:Detector")
        return handler

    def _architecture(self, *, required: bool) -> str:
        architecture = self._text("architecture", required)
        library, _, name = architecture.partition(":")
        if architecture and (library not in ("torchvision", "timm") or not name):
            raise self.error(
                ("architecture",), f"`architecture` is {architecture!r}; write torchvision:NAME or timm:NAME"
            )
        return architecture

    def _arguments(self) -> Mapping[str, Any]:
        value = self.tables.get("arguments", {})
        if not isinstance(value, dict):
            raise self.error(("arguments",), "`arguments` must be a table, like { num_classes = 12 }")
        return value

    def _inside(self, key: str, name: str) -> None:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise self.error((key,), f"file {name!r} must be inside the folder of the card: copy it there")
        if "\0" in name:
            raise self.error((key,), f"file {name!r} is no name of a file: correct it")

    def _labels(self) -> tuple[tuple[str, ...], str]:
        """Returns the labels, and the file that they are in; "" if they are in the card."""
        if not isinstance(value := self.tables.get("labels"), str):
            return tuple(self._texts("labels")), ""
        self._inside("labels", value)
        try:
            lines = (self.folder / value).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise self.error(("labels",), f"the file of labels {value!r} cannot be read: {error}") from None
        return tuple(line.strip() for line in lines if line.strip()), value

    def _hashes(self, file: str, names: Sequence[str]) -> Mapping[str, str]:
        value = self.tables.get("sha256", {})
        table = {file: value} if isinstance(value, str) and file else value
        if not isinstance(table, dict):
            raise self.error(("sha256",), '`sha256` must be the hash of `file`, or a table { "FILE" = "HEX" }')
        for name, digest in table.items():
            if name not in names:
                raise self.error(("sha256",), f"`sha256` names {name!r}, but the card names only {', '.join(names)}")
            if not isinstance(digest, str) or not _SHA256.fullmatch(digest.lower()):
                raise self.error(
                    ("sha256",), f"the hash of {name!r} must have 64 hexadecimal digits: sha256sum prints it"
                )
        return {name: digest.lower() for name, digest in table.items()}

    def _preprocess(self) -> Preprocess | None:
        table = self.tables.get("preprocess", "none")
        if table == "none":
            return None
        if not isinstance(table, dict):
            raise self.error(("preprocess",), '`preprocess` must be a table, or "none"')
        try:
            return Preprocess.from_table(table)
        except PreprocessError as error:
            raise self.error(("preprocess", error.key), str(error)) from None

    def _tensors(self, key: str) -> tuple[TensorSpec, ...]:
        entries = self.tables.get(key)
        if not isinstance(entries, list) or not entries:
            raise self.error((key,), f"`{key}` must be a list with at least one tensor: {{ name, datatype, shape }}")
        specs = [self._tensor(key, index, entry) for index, entry in enumerate(entries)]
        names = [spec.name for spec in specs]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise self.error((key, index, "name"), f"the name {name!r} occurs twice in `{key}`; rename one")
        return tuple(specs)

    def _tensor(self, key: str, index: int, entry: object) -> TensorSpec:
        at = (key, index)
        if not isinstance(entry, dict):
            raise self.error(at, f"entry {index + 1} of `{key}` must be a table: {{ name, datatype, shape }}")
        self._known_keys(entry, _TENSOR_KEYS, at)
        name, datatype = entry.get("name"), entry.get("datatype")
        if not isinstance(name, str) or not 1 <= len(name) <= 128:
            raise self.error((*at, "name"), f"entry {index + 1} of `{key}` needs a `name` of at most 128 characters")
        if datatype not in (*DATATYPES, "BYTES"):
            raise self.error(
                (*at, "datatype"), f"{name!r} has datatype {datatype!r}; choose one of {', '.join(DATATYPES)}, BYTES"
            )
        picture, ragged = (self._flag(entry, flag, (*at, flag)) for flag in ("picture", "ragged"))
        if picture and (datatype != "BYTES" or key == "outputs"):
            raise self.error((*at, "picture"), f"{name!r} cannot be a picture: only inputs of datatype BYTES can")
        if ragged and key == "inputs":
            raise self.error((*at, "ragged"), f"{name!r} cannot be ragged: only outputs can")
        finite = self._flag(entry, "finite", (*at, "finite"), absent=True)
        if not finite and (key == "inputs" or not datatype.startswith("FP")):
            raise self.error((*at, "finite"), f"{name!r} needs no `finite`: only outputs of floats do; remove it")
        return TensorSpec(name, datatype, self._shape(entry, name, at), picture, ragged, finite)

    def _flag(self, entry: Mapping[str, Any], key: str, at: toml_lines.KeyPath, *, absent: bool = False) -> bool:
        value = entry.get(key, absent)
        if type(value) is not bool:
            raise self.error(at, f"`{key}` must be true or false, not {value!r}")
        return value

    def _shape(self, entry: Mapping[str, Any], name: str, at: toml_lines.KeyPath) -> tuple[int, ...]:
        shape = entry.get("shape", [])
        right = isinstance(shape, list) and all(
            type(length) is int and (length >= 1 or length == -1) for length in shape
        )
        if not right or len(shape) > 8:
            raise self.error(
                (*at, "shape"),
                f"the shape of {name!r} must be a list of at most 8 lengths of one item, without the batch; -1 is any",
            )
        return tuple(shape)

    def _fits_together(self, card: Card) -> None:
        for key, formats in _OF_FORMATS.items():
            if key in self.tables and card.format not in formats:
                meant = " or ".join(formats)
                raise self.error((key,), f"`{key}` is for format {meant}, not {card.format}; remove it")
        pictures = [spec for spec in card.inputs if spec.picture]
        if card.preprocess is not None and not pictures:
            raise self.error(("preprocess",), "there is `preprocess`, but no input is a picture; set picture = true")
        if pictures and card.preprocess is None and card.format != "python":
            raise self.error(
                ("inputs",),
                f"input {pictures[0].name!r} is a picture, but there is no [preprocess] that says what becomes of it",
            )
        names = [spec.name for spec in card.all_outputs()]
        for name in names:
            if names.count(name) > 1:
                raise self.error(("outputs",), f"the outputs have {name!r} twice: that name is added by the server")
        if ITEM_ERROR in {spec.name for spec in card.outputs}:
            raise self.error(("outputs",), f"the name {ITEM_ERROR!r} is the server's own; rename the output")
        first = card.outputs[0]
        if card.activation != "none" and not first.datatype.startswith("FP"):
            raise self.error(
                ("activation",), f"`activation` needs numbers, but output {first.name!r} is {first.datatype}"
            )
        if card.labels and len(first.shape) == 1 and first.shape[0] not in (-1, len(card.labels)) and not first.ragged:
            raise self.error(
                ("labels",),
                f"there are {len(card.labels)} labels, but output {first.name!r} has {first.shape[0]} values",
            )
