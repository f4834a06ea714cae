"""The commands `edgeburst-model new`, `check` and `convert`."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.authoring import draft as drafts
from models.authoring.draft import AuthoringError, Draft
from models.card import CARD_FILE, TensorSpec
from models.card_reader import DATATYPES, read_card
from models.errors import ModelError
from scheduler.program_options import add_everywhere, show_where, take_everywhere
from scheduler.terminal import progress

_EPILOG = """\
examples:
  edgeburst-model new mynet --from mynet.onnx --picture --labels classes.txt
  edgeburst-model new mynet --from mynet.pt2                        torch.export.save
  edgeburst-model new mynet --from mynet.pt --input 'image=FP32[3,224,224]' --picture
  edgeburst-model new mynet --from weights.pth --architecture torchvision:resnet18 --argument num_classes=12 --picture
  edgeburst-model new mynet --from handler.py --class Net --file weights.npz --input 'x=FP32[4]' --output 'y=FP32[2]'
  edgeburst-model new mynet --from model_repository/mynet           Triton (config.pbtxt)
  edgeburst-model new mynet --from mynet/model-settings.json        MLServer
  edgeburst-model check mynet
  edgeburst-model convert mynet                                     for functions that start without torch
"""
_MEASURE_S = 10.0
"""Seconds in which `check` compares the runtimes, as an edge server does."""
_TENSOR = re.compile(r"(?P<name>[^=]+)=(?P<datatype>[A-Z0-9]+)(?:\[(?P<shape>[-0-9, ]*)\])?")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
        The exit status: 0, 1 if a check failed, 2 if an argument, a file or a card cannot be used, 130 if interrupted.
    """
    given = parser().parse_args(take_everywhere(sys.argv[1:] if argv is None else argv))
    try:
        return int(given.run(given))
    except ModelError as error:
        show_where()
        print(f"edgeburst-model: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="edgeburst-model",
        description="Makes a model's folder (model.toml and its files) that edge, function and daemon read.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_everywhere(parser)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_new(commands.add_parser("new", help="write a card from a model's file, or from Triton's or MLServer's"))
    check = commands.add_parser("check", help="load a model, run batches of 1, 2 and the largest size, measure")
    check.add_argument("folder", type=Path, metavar="FOLDER", help="the model's folder")
    check.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default %(default)s)")
    check.add_argument("--runtime", default="auto", help="runtime to use (default: the fastest here)")
    check.add_argument("--threads", type=_count, default=1, metavar="N", help="CPU threads (default %(default)s)")
    check.set_defaults(run=_check)
    convert = commands.add_parser("convert", help="make an ONNX file of a model of torch, and check that they agree")
    convert.add_argument("folder", type=Path, metavar="FOLDER", help="the model's folder")
    convert.add_argument("--weights", type=Path, metavar="FILE", help="weights that the folder does not hold")
    convert.add_argument("--weights-sha256", metavar="HEX", help="their SHA-256, needed with --weights")
    convert.set_defaults(run=_convert)
    for command in commands.choices.values():
        command.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _add_new(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="folder to write; its name becomes the model's")
    add("--from", type=Path, required=True, dest="source", metavar="FILE", help="what to read, see the examples")
    add("--name", default="", help="another name than the folder's")
    add("--picture", action="store_true", help="the one input is a picture: clients send PNG, JPEG and so on")
    add(
        "--input",
        action="append",
        type=_tensor,
        default=[],
        metavar="NAME=TYPE[SHAPE]",
        help="an input that the file does not describe, without the batch axis, -1 for any length; repeatable",
    )
    add("--output", action="append", type=_tensor, default=[], metavar="NAME=TYPE[SHAPE]", help="the same for outputs")
    add("--architecture", default="", help="of a state dictionary: torchvision:NAME or timm:NAME")
    add("--argument", action="append", type=_argument, default=[], metavar="KEY=VALUE", help="its arguments")
    add("--class", dest="handler", default="", metavar="CLASS", help="class of a handler in Python")
    add(
        "--file",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="another file that a handler reads, like weights or a module; repeatable",
    )
    add("--labels", type=Path, metavar="FILE", help="file with the name of one class a line")
    add("--activation", choices=("softmax", "sigmoid", "none"), help="applied to the first output (default none)")
    add("--max-batch", type=_count, metavar="N", help="largest batch (default 32, or what the file says)")
    add("--overwrite", action="store_true", help="replace a card that is there already")
    parser.set_defaults(run=_new)


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


def _tensor(text: str) -> TensorSpec:
    match = _TENSOR.fullmatch(text)
    if match is None or match["datatype"] not in (*DATATYPES, "BYTES"):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=TYPE[SHAPE], like image=FP32[3,224,224]")
    try:
        shape = tuple(int(length) for length in (match["shape"] or "").split(",") if length.strip())
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} has a length that is not a whole number") from None
    return TensorSpec(match["name"], match["datatype"], shape)


def _argument(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not (key and sign and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form KEY=VALUE")
    if value in ("true", "false"):
        return key, value == "true"
    for read in (int, float):
        try:
            return key, read(value)
        except ValueError:
            continue
    return key, value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
