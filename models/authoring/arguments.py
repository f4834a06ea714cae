"""The command line of `edgeburst-model`; it imports no framework, so that the shell's completion can read it."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from models.card import TensorSpec
from models.card_reader import DATATYPES
from scheduler.program_options import add_everywhere

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
_TENSOR = re.compile(r"(?P<name>[^=]+)=(?P<datatype>[A-Z0-9]+)(?:\[(?P<shape>[-0-9, ]*)\])?")


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="edgeburst-model",
        description="Makes a model's folder (model.toml and its files) that edge, function and daemon read.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_everywhere(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_new(commands.add_parser("new", help="write a card from a model's file, or from Triton's or MLServer's"))
    check = commands.add_parser("check", help="load a model, run batches of 1, 2 and the largest size, measure")
    check.add_argument("folder", type=Path, metavar="FOLDER", help="the model's folder")
    check.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default %(default)s)")
    check.add_argument("--runtime", default="auto", help="runtime to use (default: the fastest here)")
    check.add_argument("--threads", type=_count, default=1, metavar="N", help="CPU threads (default %(default)s)")
    convert = commands.add_parser("convert", help="make an ONNX file of a model of torch, and check that they agree")
    convert.add_argument("folder", type=Path, metavar="FOLDER", help="the model's folder")
    convert.add_argument("--weights", type=Path, metavar="FILE", help="weights that the folder does not hold")
    convert.add_argument("--weights-sha256", metavar="HEX", help="their SHA-256, needed with --weights")
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
