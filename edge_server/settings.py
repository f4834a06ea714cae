"""Settings of the server, from the command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_server.errors import StartupError

_EPILOG = """\
examples:
  edgeburst-edge                                    digits, whose weights are included
  edgeburst-edge --emulate orin-resnet50            as slow as a Jetson Orin with ResNet-50
  edgeburst-edge --model resnet50 \\
      --weights resnet50=resnet50.pth --weights-sha256 resnet50=0676ba61...
  edgeburst-edge --model resnet50 --random-weights resnet50    for timing only

When the server accepts requests, it prints its address as one line of JSON. Then for instance:
  curl http://127.0.0.1:8700/v2/models/digits
  curl http://127.0.0.1:8700/metrics
SIGTERM or Ctrl-C finishes the queued batches and exits with 0; a second signal ends the process at once.
"""


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Model to serve.

    Attributes:
        name: name in the catalogue.
        weights: a file of weights; None for the shipped weights.
        weights_sha256: the file's SHA-256.
        random_weights: whether to use random weights instead.
    """

    name: str
    weights: Path | None
    weights_sha256: str | None
    random_weights: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the server at its start.

    Attributes:
        host: address to listen on.
        port: TCP port; 0 for a free port.
        models: the models to serve.
        max_batch: the largest number of items in a batch.
        decode_threads: number of threads that decode pictures.
        device: "auto", "cpu" or "cuda".
        emulate: profile of the device to emulate; None for this machine's own speed.
        torch_threads: number of threads of one operation on the CPU.
        body_limit_bytes: the largest request body.
        log_level: a level of the logging module.
    """

    host: str
    port: int
    models: tuple[ModelChoice, ...]
    max_batch: int
    decode_threads: int
    device: str
    emulate: str | None
    torch_threads: int
    body_limit_bytes: int
    log_level: str


def parse_arguments(argv: Sequence[str] | None = None) -> Settings:
    """Reads the command line; exits with status 2 and a message if an argument is wrong.

    Raises:
        StartupError: weights are given for a model that is not served.
    """
    given = _parser().parse_args(argv)
    return Settings(
        host=given.host,
        port=given.port,
        models=_choices(given),
        max_batch=given.max_batch,
        decode_threads=given.decode_threads,
        device=given.device,
        emulate=given.emulate,
        torch_threads=given.torch_threads or _default_torch_threads(given),
        body_limit_bytes=given.body_limit_bytes,
        log_level=given.log_level,
    )


def _choices(given: argparse.Namespace) -> tuple[ModelChoice, ...]:
    names = tuple(dict.fromkeys(given.model or ["digits"]))
    weights, hashes = dict(given.weights), dict(given.weights_sha256)
    for named in (*weights, *hashes, *given.random_weights):
        if named not in names:
            raise StartupError(f"weights are given for model {named!r}, which is not served: add --model {named}")
    return tuple(
        ModelChoice(
            name=name,
            weights=Path(weights[name]) if name in weights else None,
            weights_sha256=hashes.get(name),
            random_weights=name in given.random_weights,
        )
        for name in names
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgeburst-edge",
        description="Serves neural networks on this device over the Open Inference Protocol v2, one batch at a time.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default %(default)s; 0.0.0.0 for all)")
    add("--port", type=_port, default=8700, help="TCP port, 0 for a free one (default %(default)s)")
    add("--model", action="append", metavar="NAME", help="model to serve, repeatable (default digits)")
    _add_weights(parser)
    add(
        "--max-batch",
        type=_count,
        default=64,
        metavar="N",
        help="largest number of items in a batch (default %(default)s)",
    )
    add(
        "--decode-threads",
        type=_count,
        default=_default_decode_threads(),
        metavar="N",
        help="threads that decode pictures while the device works (default here %(default)s)",
    )
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto uses CUDA if there is a GPU")
    add(
        "--emulate",
        metavar="PROFILE",
        help="real predictions, but each batch takes as long as this profile (a shipped one, or a file) predicts",
    )
    add(
        "--torch-threads",
        type=_count,
        metavar="N",
        help="CPU threads of one operation (default: the cores not used for decoding; 1 with --emulate)",
    )
    body_limit_bytes = 64 * 2**20
    add("--body-limit-bytes", type=_count, default=body_limit_bytes, metavar="N", help="largest body (%(default)s)")
    add("--log-level", choices=("debug", "info", "warning", "error"), default="info", help="(default %(default)s)")
    return parser


def _add_weights(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--weights",
        action="append",
        type=_named,
        default=[],
        metavar="NAME=PATH",
        help="file with a model's weights (a state dictionary by torch.save), repeatable",
    )
    add(
        "--weights-sha256",
        action="append",
        type=_named,
        default=[],
        metavar="NAME=HEX",
        help="the SHA-256 of that file, repeatable",
    )
    add(
        "--random-weights",
        action="append",
        default=[],
        metavar="NAME",
        help="serve this model with random weights: right speed, meaningless answers",
    )


def _default_decode_threads() -> int:
    return min(4, os.cpu_count() or 1)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _default_torch_threads(given: argparse.Namespace) -> int:
    """Returns the number of cores that decoding does not use; 1 with emulation.

    Torch's waiting threads keep their cores busy; on cores shared with decoding this costs half the throughput. An
    emulated edge shares the machine with the client, the scheduler and the functions.
    """
    return 1 if given.emulate else max(1, (os.cpu_count() or 1) - given.decode_threads)


def _port(text: str) -> int:
    port = _whole(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is not a TCP port (0 to 65535)")
    return port


def _count(text: str) -> int:
    count = _whole(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{count} is below 1")
    return count


def _named(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return name, value
