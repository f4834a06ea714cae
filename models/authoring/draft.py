"""A card before it is written, and its text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.card import CARD_FILE, Format, TensorSpec, file_sha256
from models.errors import ModelError


class AuthoringError(ModelError):
    """Error: no card can be written from what is given; the message says what to add."""


@dataclass(slots=True)
class Draft:
    """What a card will say.

    Attributes:
        format: how the model is stored.
        inputs: the inputs.
        outputs: the outputs.
        files: by name in the folder, the file to copy there.
        file: name of the model's file; "" without one.
        architecture: of a state dictionary.
        arguments: of the architecture or the handler.
        handler: FILE.py:CLASS.
        preprocess: the table [preprocess]; None without one.
        activation: of the first output.
        labels: names of the classes, or the name of a file of them.
        max_batch: largest batch; None: the card's default.
        name: the model's name for clients; "" for that of the folder.
        notes: what could not be carried over, or should be looked at: one sentence each.
    """

    format: Format
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    files: dict[str, Path] = field(default_factory=dict)
    file: str = ""
    architecture: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    handler: str = ""
    preprocess: Mapping[str, Any] | None = None
    activation: str = "none"
    labels: Sequence[str] | str = ()
    max_batch: int | None = None
    name: str = ""
    notes: list[str] = field(default_factory=list)


IMAGENET = {
    "size": 256,
    "crop": 224,
    "resize": "shorter",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
"""What most networks of photographs were trained with; the table of the shipped ones."""


def as_picture(draft: Draft) -> None:
    """Makes the draft's inputs of numbers pictures with ImageNet's normalisation, scaled to the inputs' size.

    Raises:
        AuthoringError: an input is not one picture (channels x height x width, or height x width x channels), or they
            differ.
    """
    if len({(spec.shape, spec.datatype) for spec in draft.inputs}) != 1 or len(draft.inputs[0].shape) != 3:
        raise AuthoringError(
            "--picture needs a model with one input of three axes, channels first or last, or several of equal shapes"
        )
    spec = draft.inputs[0]
    if spec.shape[0] in (1, 3):
        layout, (channels, height, width) = "CHW", spec.shape
    elif spec.shape[2] in (1, 3):
        layout, (height, width, channels) = "HWC", spec.shape
    else:
        raise AuthoringError(f"--picture needs an input of 1 or 3 channels; {spec.name!r} has shape {list(spec.shape)}")
    if -1 in (height, width):
        height = width = 224
        draft.notes.append("the network takes pictures of any size; the card scales them to 224 x 224: see `size`")
    table: dict[str, Any] = {"size": [height, width], "resize": "stretch"}
    if channels == 3:
        # As in ImageNet's evaluation, the picture is scaled a little larger than the network's input, and cropped.
        table = dict(IMAGENET, size=[round(height * 256 / 224), round(width * 256 / 224)], crop=[height, width])
    else:
        table["colour"] = "GREY"
    if layout != "CHW":
        table["layout"] = layout
    draft.preprocess = table
    draft.inputs = tuple(TensorSpec(each.name, "BYTES", picture=True) for each in draft.inputs)
    draft.notes.append("[preprocess] has ImageNet's values: correct them if the network was trained with others")


def write(draft: Draft, folder: Path, *, name: str, overwrite: bool) -> Path:
    """Copies the files into the folder and writes the card.

    Returns:
        The card's path.

    Raises:
        AuthoringError: the card is there already, or a file cannot be copied.
    """
    card = folder / CARD_FILE
    if card.exists() and not overwrite:
        raise AuthoringError(f"{card} is there already: choose another folder, or replace it with --overwrite")
    hashes = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for wanted, source in draft.files.items():
            target = folder / wanted
            if not (target.exists() and target.samefile(source)):
                # A copy, since the folder is what travels to the edge and into the function's image.
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
            hashes[wanted] = file_sha256(target)
        name = name or draft.name
        card.write_text(card_text(draft, name=name if name != folder.resolve().name else "", hashes=hashes), "utf-8")
    except OSError as error:
        raise AuthoringError(f"{error.filename} cannot be written or read: {error.strerror}") from None
    return card


def card_text(draft: Draft, *, name: str = "", hashes: Mapping[str, str] | None = None) -> str:
    """Returns the card as TOML.

    Args:
        draft: what it says.
        name: the model's name; "" for that of the folder.
        hashes: SHA-256 of its files, by name.
    """
    lines = ["# What this model is; models/README.md of edgeburst explains every key."]

    def add(key: str, value: object, *, unless: object = None) -> None:
        if value != unless:
            lines.append(f"{key} = {_toml(value)}")

    add("name", name, unless="")
    add("format", draft.format)
    add("file", draft.file, unless="")
    known = dict(hashes or {})
    add("sha256", known[draft.file] if list(known) == [draft.file] else known, unless={})
    add("architecture", draft.architecture, unless="")
    add("arguments", dict(draft.arguments), unless={})
    add("class", draft.handler, unless="")
    main = {draft.file, draft.handler.rpartition(":")[0], draft.labels if isinstance(draft.labels, str) else ""}
    add("files", [file for file in draft.files if file not in main], unless=[])
    for key, specs in (("inputs", draft.inputs), ("outputs", draft.outputs)):
        lines += [f"{key} = [", *(f"    {_toml(_tensor(spec))}," for spec in specs), "]"]
    add("activation", draft.activation, unless="none")
    add("labels", draft.labels if isinstance(draft.labels, str) else list(draft.labels), unless=[])
    add("max_batch", draft.max_batch, unless=None)
    if draft.preprocess is not None:
        lines += ["", "[preprocess]", *(f"{key} = {_toml(value)}" for key, value in draft.preprocess.items())]
    return "\n".join(lines) + "\n"


def _tensor(spec: TensorSpec) -> dict[str, object]:
    entry: dict[str, object] = {"name": spec.name, "datatype": spec.datatype}
    if spec.shape or not spec.picture:
        entry["shape"] = list(spec.shape)
    if spec.picture:
        entry["picture"] = True
    if spec.ragged:
        entry["ragged"] = True
    return entry


def _toml(value: object) -> str:
    if isinstance(value, str | bool):
        # JSON's form of texts, true and false is TOML's too.
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_toml(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value)


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)
