"""The commands `edgeburst-model new`, `check` and `convert`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from models.authoring import draft as drafts
from models.authoring.arguments import parser
from models.authoring.draft import AuthoringError, Draft
from models.card import CARD_FILE
from models.card_reader import read_card
from models.errors import ModelError
from scheduler.program_options import show_where, take_everywhere
from scheduler.terminal import progress

_MEASURE_S = 10.0
"""Seconds in which `check` compares the runtimes, as an edge server does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
        The exit status: 0, 1 if a check failed, 2 if an argument, a file or a card cannot be used, 130 if interrupted.
    """
    given = parser().parse_args(take_everywhere(sys.argv[1:] if argv is None else argv))
    try:
        return _COMMANDS[given.command](given)
    except ModelError as error:
        show_where()
        print(f"edgeburst-model: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _new(given: argparse.Namespace) -> int:
    draft = _drafted(given)
    if given.output and draft.format != "python":
        raise AuthoringError(f"--output is for handlers in Python; a {draft.format} file describes its own outputs")
    if given.file and draft.format != "python":
        raise AuthoringError("--file is for handlers in Python; other formats have the files that --from names")
    if given.picture:
        drafts.as_picture(draft)
    if given.labels:
        draft.labels = given.labels.name
        draft.files[given.labels.name] = given.labels
    draft.activation = given.activation or draft.activation
    draft.max_batch = given.max_batch or draft.max_batch
    path = drafts.write(draft, given.folder, name=given.name, overwrite=given.overwrite)
    card = read_card(given.folder)
    if given.json:
        tensors = {"inputs": [asdict(spec) for spec in card.inputs], "outputs": [asdict(spec) for spec in card.outputs]}
        about = {"card": str(path), "model": card.name, "format": card.format, **tensors, "notes": list(draft.notes)}
        print(json.dumps(about, indent=2))
        return 0
    print(f"wrote {path}: {card.name}, {card.format}")
    for kind, specs in (("takes", card.inputs), ("gives", card.outputs)):
        for spec in specs:
            shape = ", ".join(
                ["rows" if spec.ragged else "n", *("any" if length == -1 else str(length) for length in spec.shape)]
            )
            print(f"  {kind} {spec.name}: {'pictures' if spec.picture else f'{spec.datatype} [{shape}]'}")
    for note in draft.notes:
        print(f"  note: {note}")
    print(f"next: edgeburst-model check {given.folder}")
    return 0


def _drafted(given: argparse.Namespace) -> Draft:
    from models.authoring import mlserver_settings, onnx_file, torch_file, triton_repository

    source: Path = given.source
    if source.is_dir() and (source / triton_repository.CONFIG).exists():
        return triton_repository.from_triton(source)
    if source.name == triton_repository.CONFIG:
        return triton_repository.from_triton(source.parent)
    if source.is_dir() and (source / mlserver_settings.SETTINGS).exists():
        source = source / mlserver_settings.SETTINGS
    if source.name == mlserver_settings.SETTINGS:
        return _with_handler(mlserver_settings.from_mlserver(source), given.folder, overwrite=given.overwrite)
    if not source.is_file():
        raise AuthoringError(f"{source} is not there, or is no folder with config.pbtxt or model-settings.json")
    if source.suffix == ".onnx":
        return onnx_file.from_onnx(source)
    if source.suffix == ".py":
        return _from_handler(source, given)
    kind = torch_file.kind_of(source)
    if kind == "torch-export":
        return torch_file.from_export(source)
    if kind == "torchscript":
        return torch_file.from_torchscript(source, given.input)
    return torch_file.from_state_dict(
        source, architecture=given.architecture, arguments=dict(given.argument), inputs=given.input
    )


def _from_handler(source: Path, given: argparse.Namespace) -> Draft:
    if not (given.handler and given.input and given.output):
        raise AuthoringError(
            f"a handler does not say what it takes: add --class CLASS, --input and --output to --from {source}"
        )
    return Draft(
        "python",
        tuple(given.input),
        tuple(given.output),
        files={file.name: file for file in (source, *given.file)},
        handler=f"{source.name}:{given.handler}",
        arguments=dict(given.argument),
        notes=[
            "what the handler reads or imports from other files comes along with --file FILE, and counts for the"
            " identity; packages that it needs go into requirements.txt"
        ]
        if not given.file
        else [],
    )


def _with_handler(draft: Draft, folder: Path, *, overwrite: bool) -> Draft:
    """Writes the handler that serves the draft's file into the folder."""
    from models.authoring.mlserver_settings import handler_text

    path = folder / draft.handler.rpartition(":")[0]
    if path.exists() and not overwrite:
        raise AuthoringError(f"{path} is there already: choose another folder, or replace it with --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(handler_text(draft), "utf-8")
    draft.files[path.name] = path
    return draft


def _check(given: argparse.Namespace) -> int:
    from models.authoring.check import CheckFailed, check_model
    from models.loading import load

    card = read_card(given.folder)
    with progress(f"loading {card.name} and comparing the runtimes"):
        model = load(card, device=given.device, runtime=given.runtime, threads=given.threads, measure_s=_MEASURE_S)
    try:
        with progress(f"checking {card.name}", unit="batches") as work:
            measured, difference = check_model(card, model, on_batch=work.advance)
    except CheckFailed as error:
        if given.json:
            print(json.dumps({"model": card.name, "ok": False, "error": str(error)}))
        print(f"edgeburst-model: {card.name}: {error}", file=sys.stderr)
        return 1
    report = model.runtime
    if given.json:
        found = {
            "model": card.name,
            "ok": True,
            "identity": model.identity,
            "runtime": report.name,
            "device": report.device,
            "precision": report.precision,
            "tried_s": dict(report.tried),
            "batches": [{**asdict(row), "items_per_s": row.items_per_s} for row in measured],
            "largest_difference": difference,
        }
        print(json.dumps(found, indent=2))
        return 0
    print(f"{card.name} ({CARD_FILE} and files: {model.identity or 'not all there'})")
    print(f"  runs on {report.name}, {report.device}, {report.precision}")
    for candidate, outcome in report.tried.items():
        print(f"    {candidate}: {outcome if isinstance(outcome, str) else f'{outcome * 1000:.2f} ms'}")
    for row in measured:
        print(f"  batch of {row.items}: {row.batch_s * 1000:.2f} ms, {row.items_per_s:.0f} items/s")
    print(f"  an item gets the same in a batch as alone (largest difference {difference:.2g})")
    return 0


def _convert(given: argparse.Namespace) -> int:
    from models.conversion import converted
    from models.loading import load
    from models.weights_file import weights_of

    card = read_card(given.folder)
    if card.format in ("onnx", "python"):
        raise AuthoringError(f"model {card.name} is of format {card.format}: only models of torch are converted")
    with progress(f"converting {card.name}"):
        load(card, device="cpu", runtime="onnxruntime", weights=given.weights, weights_sha256=given.weights_sha256)
        path = converted(card, weights_of(card, given.weights, given.weights_sha256, random=False))
    if given.json:
        print(json.dumps({"model": card.name, "onnx": str(path)}))
        return 0
    print(
        f"{card.name}: {path} gives the same answers; hosts with onnxruntime use it as long as the model stays the same"
    )
    return 0


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {"new": _new, "check": _check, "convert": _convert}
