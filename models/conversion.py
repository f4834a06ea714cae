"""ONNX files made of torch's formats: checked against torch, kept beside the model, never used for a changed model."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from models import hints
from models.agreement import disagreement
from models.card import Card
from models.errors import ModelError, last_line
from models.formats.onnx_format import OnnxRuntime, open_session
from models.formats.torch_runtime import TorchRuntime
from models.onnx_file import clean
from models.packages import needed
from models.prepared import prepared_rehearsal
from models.runtime import RuntimeReport
from models.weights_file import Weights

FOLDER: Final = ".converted"
"""Folder beside a card with what was made of it; no part of the model's identity."""
# Changes when the same model would be converted to another file.
_VERSION: Final = 1
_CHECKED_BATCHES: Final = (1, 2, 5)
# A length of open axes other than that of the export, so that one that was fixed there is found.
_OTHER_LENGTH: Final = 11


def converted(card: Card, weights: Weights) -> Path | None:
    """Returns the ONNX file that was made of this very model; None if there is none."""
    name = _name(card, weights)
    for folder in (card.folder / FOLDER, _cache_folder()):
        if (path := folder / name).is_file():
            return path
    return None


def convert(card: Card, weights: Weights, network: Any) -> Path:
    """Makes an ONNX file of a network of torch, checks it against torch, and keeps it for `converted`.

    Args:
        card: of a format of torch.
        weights: where its weights come from.
        network: on the CPU, where it stays, as `torch_networks.network_of` returns it.

    Raises:
        ModelError: a package is missing, torch cannot export the network, or the file's outputs differ.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        needed(package, f"converting model {card.name} to ONNX")
    folder = _writable_folder(card)
    with tempfile.TemporaryDirectory(dir=folder, prefix="new-") as scratch:
        made = Path(scratch) / _name(card, weights)
        _export(card, weights, network, made)
        for old in folder.glob(f"{weights.origin}-*"):
            old.unlink(missing_ok=True)
        # The file that names the other comes last, so that it is never there alone.
        for path in sorted(Path(scratch).iterdir(), key=lambda path: path.suffix == ".onnx"):
            path.replace(folder / path.name)
        return folder / made.name


def _name(card: Card, weights: Weights) -> str:
    """Returns the file's name: another one for each card, weights and way to convert."""
    key = f"{_VERSION} {card.identity(weights.identity)} {weights.sha256 or 'random'}"
    return f"{weights.origin}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.onnx"


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edgeburst" / "converted"


def _writable_folder(card: Card) -> Path:
    for folder in (card.folder / FOLDER, _cache_folder()):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    raise ModelError(
        f"model {card.name} cannot be converted: neither {card.folder / FOLDER} nor {_cache_folder()} is writable"
    )


def _export(card: Card, weights: Weights, network: Any, path: Path) -> None:
    """Exports and checks, by the exporter that takes the format; architectures by the older one first, if it can.

    The older one takes a third of the time, but follows one run of the network; what that fixes by mistake, the check
    finds.
    """
    runtime = TorchRuntime(card, network, device="cpu")
    inputs = prepared_rehearsal(card, min(2, card.max_batch))
    if any(isinstance(value, list) for value in runtime.run(inputs).values()):
        raise ModelError(
            f"model {card.name} cannot be converted to ONNX: its outputs are lists with one tensor for each item"
        )
    arguments = runtime.arguments(inputs)
    if card.format == "state-dict":
        with contextlib.suppress(ModelError):
            _exported(card, network, arguments, path, dynamo=False)
            return _check(card, runtime, path)
    torch: Any = needed("torch", f"converting model {card.name}")
    program = torch.export.load(str(weights.file)) if card.format == "torch-export" else network
    _exported(card, program, arguments, path, dynamo=card.format != "torchscript")
    return _check(card, runtime, path)


def _exported(card: Card, program: Any, arguments: tuple[Any, ...], path: Path, *, dynamo: bool) -> None:
    torch: Any = needed("torch", f"converting model {card.name}")
    options: dict[str, Any] = {"input_names": [spec.name for spec in card.inputs]}
    axes = {spec.name: [0] + [1 + at for at, length in enumerate(spec.shape) if length == -1] for spec in card.inputs}
    if not dynamo:
        outputs = [spec.name for spec in card.outputs]
        options["dynamic_axes"] = {
            name: {axis: f"{name}_{axis}" if axis else "items" for axis in opened} for name, opened in axes.items()
        } | {name: {0: "items"} for name in outputs}
    else:
        options["external_data"] = False
        if card.format != "torch-export":
            dynamic = torch.export.Dim.DYNAMIC
            options["dynamic_shapes"] = tuple(dict.fromkeys(opened, dynamic) for opened in axes.values())
    try:
        with _quiet():
            torch.onnx.export(program, arguments, str(path), dynamo=dynamo, **options)
    except Exception as error:  # noqa: BLE001 - the exporters raise whatever their passes raise.
        raise ModelError(
            f"model {card.name} cannot be converted to ONNX, torch cannot export it: {last_line(error)}"
        ) from error
    clean(path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back the hints to developers of exporters; what counts is the check of the outputs."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        # What tracing fixes comes as TracerWarning, what an exporter leaves out as UserWarning.
        traced: type[Warning] = needed("torch", "converting to ONNX").jit.TracerWarning
        with hints.kept_back(UserWarning, traced), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _check(card: Card, torch_runtime: TorchRuntime, path: Path) -> None:
    """Compares the file with torch on batches of several sizes, and on another length of open axes.

    Raises:
        ModelError: it fails on one of them, or its outputs differ by more than the card's tolerance.
    """
    session = open_session(path, device="cpu", threads=1, name=card.name)
    runtime = OnnxRuntime(card, session, RuntimeReport("onnxruntime", "cpu"))
    for items in _CHECKED_BATCHES:
        for other in (False, True):
            shaped = _other_lengths(card) if other else card
            if other and shaped == card:
                continue
            inputs = prepared_rehearsal(shaped, min(items, card.max_batch))
            problem = disagreement(card, torch_runtime.run(inputs), runtime.run(inputs))
            if problem is not None:
                raise ModelError(f"model {card.name} cannot be converted to ONNX, at a batch of {items} {problem}")


def _other_lengths(card: Card) -> Card:
    """Returns the card with another length in place of each open one."""
    inputs = tuple(
        replace(spec, shape=tuple(_OTHER_LENGTH if length == -1 else length for length in spec.shape))
        for spec in card.inputs
    )
    return replace(card, inputs=inputs)
