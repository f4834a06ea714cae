"""Settings of the server, from the command line."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_server.errors import StartupError
from edge_server.gpu_share import GpuShare
from models.card import Card
from models.catalogue import DEFAULT, card_of, cards_in
from models.runtime_names import RuntimeNames, read_runtimes
from scheduler.program_options import add_everywhere
from scheduler.wsgi.tls import TlsFiles

_EPILOG = """\
examples:
  edgeburst-edge                                    digits, whose weights are included
  edgeburst-edge --emulate orin-resnet50            as slow as a Jetson Orin with ResNet-50
  edgeburst-edge --model resnet50 \\
      --weights resnet50=resnet50.pth --weights-sha256 resnet50=0676ba61...
  edgeburst-edge --model resnet50 --random-weights resnet50    for timing only
  edgeburst-edge --models /srv/models               every folder in it with a model.toml
  EDGE_TOKEN=... edgeburst-edge --host 0.0.0.0 --token-env EDGE_TOKEN

When the server accepts requests, it prints its address as one line of JSON. Then for instance:
  curl http://127.0.0.1:8700/v2/models/digits
  curl http://127.0.0.1:8700/metrics
SIGTERM or Ctrl-C finishes the queued batches and exits with 0; a second signal ends the process at once.
"""


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Model to serve.

    Attributes:
        card: what it takes and gives, and its files.
        weights: a file of weights; None for those of the card.
        weights_sha256: the file's SHA-256.
        random_weights: whether to use random weights instead.
    """

    card: Card
    weights: Path | None = None
    weights_sha256: str | None = None
    random_weights: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the server at its start.

    Attributes:
        host: address to listen on.
        port: TCP port; 0 for a free port.
        models: the models to serve.
        runtimes: the runtime of each model; "auto": the fastest.
        max_batch: the largest number of items in a batch; None: that of each card.
        batch_limit_s: seconds after which a batch is given up.
        decode_threads: number of threads that decode pictures.
        device: "auto", "cpu" or "cuda".
        emulate: profile of the device to emulate; None for this machine's own speed.
        torch_threads: number of threads of one operation on the CPU.
        body_limit_bytes: the largest request body.
        token_env: name of the environment variable that holds the token of clients; None: they need none.
        is_open: whether all that reach the server may use it.
        tls: certificate, key and the authorities of clients; None: without TLS.
        share: what MPS is to give this process of the GPU; None without MPS.
        log_level: a level of the logging module.
    """

    host: str
    port: int
    models: tuple[ModelChoice, ...]
    runtimes: RuntimeNames
    max_batch: int | None
    batch_limit_s: float
    decode_threads: int
    device: str
    emulate: str | None
    torch_threads: int
    body_limit_bytes: int
    token_env: str | None
    is_open: bool
    tls: TlsFiles | None
    share: GpuShare | None
    log_level: str


def parse_arguments(argv: Sequence[str] | None = None) -> Settings:
    """Reads the command line; exits with status 2 and a message if an argument is wrong.

    Raises:
        StartupError: weights or a runtime are given for a model that is not served, or two models have the same name.
        ModelError: there is no such model, or a card cannot be used.
    """
    given = _parser().parse_args(argv)
    models = _choices(given)
    return Settings(
        host=given.host,
        port=given.port,
        models=models,
        runtimes=_runtimes(given.runtime, models),
        max_batch=given.max_batch,
        batch_limit_s=given.batch_limit_s,
        decode_threads=given.decode_threads,
        device=given.device,
        emulate=given.emulate,
        torch_threads=given.torch_threads or _default_torch_threads(given),
        body_limit_bytes=given.body_limit_bytes,
        token_env=given.token_env,
        is_open=given.open,
        tls=_tls(given),
        share=_share(given),
        log_level=given.log_level,
    )


def _share(given: argparse.Namespace) -> GpuShare | None:
    if given.mps_percentage is None:
        if given.mps_memory:
            raise StartupError("--mps-memory limits a share of the GPU by MPS: add --mps-percentage")
        return None
    if given.device == "cpu":
        raise StartupError("--mps-percentage shares a GPU, but --device is cpu: leave one of them out")
    return GpuShare(given.mps_percentage, given.mps_memory)


def _tls(given: argparse.Namespace) -> TlsFiles | None:
    if (given.certificate is None) != (given.key is None):
        raise StartupError("--certificate and --key belong together: give both, or none for HTTP without TLS")
    if given.certificate is None:
        if given.client_ca is not None:
            raise StartupError("--client-ca asks clients for certificates by TLS: add --certificate and --key")
        return None
    return TlsFiles(given.certificate, given.key, given.client_ca)


def _choices(given: argparse.Namespace) -> tuple[ModelChoice, ...]:
    cards = [card_of(model) for model in dict.fromkeys(given.model)]
    cards += [card for folder in given.models for card in cards_in(folder)]
    by_name: dict[str, Card] = {}
    for card in cards or [card_of(DEFAULT)]:
        other = by_name.setdefault(card.name, card)
        if other.folder.resolve() != card.folder.resolve():
            raise StartupError(f"{card.folder} and {other.folder} are both named {card.name}: rename one")
    weights, hashes = dict(given.weights), dict(given.weights_sha256)
    for named in (*weights, *hashes, *given.random_weights):
        if named not in by_name:
            raise StartupError(f"weights are given for model {named!r}, which is not served: add --model {named}")
    return tuple(
        ModelChoice(
            card=card,
            weights=Path(weights[name]) if name in weights else None,
            weights_sha256=hashes.get(name),
            random_weights=name in given.random_weights,
        )
        for name, card in by_name.items()
    )


def _runtimes(given: Sequence[str], models: Sequence[ModelChoice]) -> RuntimeNames:
    runtimes = read_runtimes(given)
    for named in runtimes.by_model:
        if all(choice.card.name != named for choice in models):
            raise StartupError(f"a runtime is given for model {named!r}, which is not served: add --model {named}")
    return runtimes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgeburst-edge",
        description="Serves neural networks on this device over the Open Inference Protocol v2, one batch at a time.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_everywhere(parser)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s); beyond it: --token-env or --open")
    add("--port", type=_port, default=8700, help="TCP port, 0 for a free one (default %(default)s)")
    _add_models(parser)
    add(
        "--max-batch",
        type=_count,
        metavar="N",
        help="largest number of items in a batch, where it is below that of the model's card",
    )
    add(
        "--batch-limit-s",
        type=_seconds,
        default=30.0,
        metavar="S",
        help="a batch that takes longer fails, and its model waits for it (default %(default)g)",
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
    add(
        "--mps-percentage",
        type=_percentage,
        metavar="P",
        help="share of the GPU's multiprocessors for this process, by NVIDIA MPS, whose control daemon must run",
    )
    add(
        "--mps-memory",
        type=_memory_limit,
        metavar="DEVICE=SIZE",
        help="with it: the most memory of the GPU that this process gets, like 0=4G",
    )
    body_limit_bytes = 64 * 2**20
    add("--body-limit-bytes", type=_count, default=body_limit_bytes, metavar="N", help="largest body (%(default)s)")
    _add_access(parser)
    add("--log-level", choices=("debug", "info", "warning", "error"), default="info", help="(default %(default)s)")
    return parser


def _add_models(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--model",
        action="append",
        default=[],
        metavar="NAME|FOLDER",
        help="model to serve: a shipped one or a folder with model.toml; repeatable (default digits)",
    )
    add(
        "--models",
        action="append",
        type=Path,
        default=[],
        metavar="DIR",
        help="serve every folder in this one that has a model.toml; repeatable",
    )
    add(
        "--runtime",
        action="append",
        default=[],
        metavar="[MODEL=]NAME",
        help="what computes all models, or one, like onnxruntime or torch (default auto: what is fastest here)",
    )
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


def _add_access(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--token-env",
        metavar="NAME",
        help="environment variable with the token that clients must send, as Authorization: Bearer",
    )
    add("--open", action="store_true", help="listen beyond this machine without token or client certificates")
    add(
        "--certificate",
        type=Path,
        metavar="FILE",
        help="serve HTTPS with this certificate (PEM); SIGHUP reads it again",
    )
    add("--key", type=Path, metavar="FILE", help="the certificate's private key (PEM, without a passphrase)")
    add("--client-ca", type=Path, metavar="FILE", help="clients must have a certificate of this authority (PEM)")


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


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and below a million")
    return seconds


def _percentage(text: str) -> float:
    try:
        percentage = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage") from None
    if not 0 < percentage <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not a percentage above 0, at most 100")
    return percentage


def _memory_limit(text: str) -> str:
    # The form that the variable of CUDA takes: no unit is bytes there, and a typing error would then be no memory.
    if not re.fullmatch(r"\d+=\d+[MG]B?(,\d+=\d+[MG]B?)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form DEVICE=SIZE, like 0=4G or 0=512M")
    return text


def _named(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return name, value
