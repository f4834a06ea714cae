"""Settings of the container, read once from its command line and its environment variables."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn, get_args
from urllib.parse import urlsplit

from models.errors import ModelError
from models.runtime_names import RuntimeNames, read_runtimes
from scheduler.program_options import add_everywhere

Tensors = Literal["binary", "json"]

HELP = """\
Serves models inside a Function Compute container: POST /invoke, POST /initialize, GET /pre-stop, GET /healthz.
Environment variables, whose place options take where there is one:
  MODELS                  folder whose folders with model.toml are served (--models)
  MODEL                   model to serve: one of those in MODELS, a shipped one, or a folder (--model; digits)
  MODEL_IDENTITY          what the models must be, NAME=sha256:HEX with commas between; `fc apply` sets it
  WEIGHTS_PATH            file of weights, if the model's folder has none
  WEIGHTS_SHA256          its SHA-256, checked before loading
  RANDOM_WEIGHTS          name of a model, to run it with random weights
  RUNTIME                 what computes the models: NAME or MODEL=NAME, with commas between (--runtime; auto)
  EDGEBURST_EMULATE       profile whose predicted service times are emulated
  DEVICE                  cpu or cuda (cpu)
  TORCH_THREADS           threads of one prediction (1)
  MAX_BATCH               largest number of items in an invocation, where it is below that of the model's card
  FC_CUSTOM_LISTEN_PORT   port (9000)
  EDGEBURST_LISTEN_HOST   address (0.0.0.0, which the platform requires)
"""
_EPILOG = """\
examples:
  edgeburst-function --models /srv/models
  edgeburst-function --forward http://127.0.0.1:8000 -- tritonserver --model-repository /models
"""
# Below the initializer's limit of 120 s, with which `fc apply` deploys, so that the sentence reaches the caller.
_FORWARD_LIMIT_S = 110.0


class SettingsError(ValueError):
    """Error: an option or environment variable cannot be used; the message names it."""


@dataclass(frozen=True, slots=True)
class Forwarding:
    """Another server in the same container that answers the batches.

    Attributes:
        url: --forward, its address without a path.
        tensors: --forward-tensors, the form in which it takes tensors.
        limit_s: --forward-limit-s, seconds within which it must be ready, and answer a batch.
        command: the command that starts it; empty: something else does.
    """

    url: str
    tensors: Tensors = "binary"
    limit_s: float = _FORWARD_LIMIT_S
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one instance.

    Attributes:
        models: --model or MODEL, shipped models or folders to serve.
        folders: --models or MODELS, folders of models.
        only: MODEL beside MODELS, the one model to serve: of those folders, else a shipped one; None: all.
        identities: MODEL_IDENTITY, by model: the identity that card and files must have.
        weights: WEIGHTS_PATH, a file of weights; None for those of the card.
        weights_sha256: WEIGHTS_SHA256, the file's SHA-256 in hexadecimal.
        random_weights: RANDOM_WEIGHTS, name of the model that runs without trained weights; None: none.
        runtimes: --runtime or RUNTIME, the runtime of each model; "auto": the usual one.
        emulate: EDGEBURST_EMULATE, the profile whose predicted service times are emulated; None for own speed.
        device: DEVICE, "cpu" or "cuda".
        torch_threads: TORCH_THREADS; 1 by default, because an instance has about one vCPU.
        max_batch: MAX_BATCH, the largest number of items in an invocation; None for that of the emulated profile or
            the card.
        host: EDGEBURST_LISTEN_HOST; the platform requires all addresses, the local endpoint sets loopback.
        port: FC_CUSTOM_LISTEN_PORT, 9000 by default as on the platform.
        instance_id: FC_INSTANCE_ID, set by the platform.
        forwarding: --forward, another server that answers instead; None: this program serves the models.
    """

    models: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    only: str | None = None
    identities: Mapping[str, str] = field(default_factory=dict)
    weights: Path | None = None
    weights_sha256: str | None = None
    random_weights: str | None = None
    runtimes: RuntimeNames = RuntimeNames()
    emulate: str | None = None
    device: str = "cpu"
    torch_threads: int = 1
    max_batch: int | None = None
    host: str = "0.0.0.0"
    port: int = 9000
    instance_id: str = ""
    forwarding: Forwarding | None = None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(message)


def read_settings(environ: Mapping[str, str], argv: Sequence[str] = ()) -> Settings:
    """Returns the settings of a command line and an environment; prints the help and ends the process if asked to.

    Raises:
        SettingsError: an option is unknown, or a value cannot be used.
    """
    argv = list(argv)
    command = argv[argv.index("--") + 1 :] if "--" in argv else []
    given = _parser().parse_args(argv[: len(argv) - len(command) - 1] if "--" in argv else argv)
    named = bool(given.model or given.models)
    model, folder = ("", "") if named else (environ.get("MODEL", ""), environ.get("MODELS", ""))
    weights = environ.get("WEIGHTS_PATH")
    return Settings(
        models=(model,) if model and not folder else tuple(dict.fromkeys(given.model)),
        folders=(Path(folder),) if folder else tuple(map(Path, given.models)),
        only=model if model and folder else None,
        identities=_identities(environ.get("MODEL_IDENTITY", "")),
        weights=Path(weights) if weights else None,
        weights_sha256=environ.get("WEIGHTS_SHA256") or None,
        random_weights=environ.get("RANDOM_WEIGHTS") or None,
        runtimes=_runtimes(given.runtime or environ.get("RUNTIME", "").split(",")),
        emulate=environ.get("EDGEBURST_EMULATE") or None,
        device=environ.get("DEVICE") or "cpu",
        torch_threads=_number(environ, "TORCH_THREADS", 1, 256) or 1,
        max_batch=_number(environ, "MAX_BATCH", 1, 4096),
        host=environ.get("EDGEBURST_LISTEN_HOST") or "0.0.0.0",
        port=_number(environ, "FC_CUSTOM_LISTEN_PORT", 1, 65535) or 9000,
        instance_id=environ.get("FC_INSTANCE_ID", ""),
        forwarding=_forwarding(given, tuple(command)),
    )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="edgeburst-function",
        description=HELP,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="edgeburst-function [options] [-- COMMAND ...]",
    )
    add_everywhere(parser)
    add = parser.add_argument
    add("--model", action="append", default=[], metavar="NAME|FOLDER", help="model to serve, repeatable")
    add("--models", action="append", default=[], metavar="DIR", help="serve every folder in it with a model.toml")
    add(
        "--runtime",
        action="append",
        metavar="[MODEL=]NAME",
        help="what computes all models, or one, repeatable (default auto: the usual one of the format)",
    )
    add(
        "--forward",
        metavar="URL",
        help="pass batches on to another server of the Open Inference Protocol in this container, instead of"
        " serving models; a command after -- starts it and ends with this program",
    )
    add("--forward-tensors", choices=get_args(Tensors), default="binary", help="how it takes tensors (%(default)s)")
    add(
        "--forward-limit-s",
        type=float,
        default=_FORWARD_LIMIT_S,
        metavar="S",
        help="seconds within which it must be ready, and answer a batch (%(default)g)",
    )
    return parser


def _forwarding(given: argparse.Namespace, command: tuple[str, ...]) -> Forwarding | None:
    if given.forward is None:
        if command:
            raise SettingsError("a command after -- starts the server that --forward names: add --forward")
        return None
    if given.model or given.models or given.runtime:
        raise SettingsError("--forward leaves the models to another server: leave out --model, --models and --runtime")
    parts = urlsplit(given.forward)
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise SettingsError(f"--forward is {given.forward!r}; write a URL without a path, like http://127.0.0.1:8000")
    if not (math.isfinite(given.forward_limit_s) and given.forward_limit_s > 0):
        raise SettingsError(f"--forward-limit-s is {given.forward_limit_s}; set it to a number of seconds above 0")
    return Forwarding(given.forward.rstrip("/"), given.forward_tensors, given.forward_limit_s, command)


def _runtimes(texts: Sequence[str]) -> RuntimeNames:
    try:
        return read_runtimes(text for text in texts if text.strip())
    except ModelError as error:
        raise SettingsError(str(error)) from None


def _identities(text: str) -> Mapping[str, str]:
    found = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, identity = entry.partition("=")
        if not name or not re.fullmatch(r"sha256:[0-9a-f]{64}", identity):
            raise SettingsError(f"MODEL_IDENTITY has {entry!r}; write NAME=sha256:HEX, with commas between")
        found[name] = identity
    return found


def _number(environ: Mapping[str, str], name: str, low: int, high: int) -> int | None:
    text = environ.get(name)
    if not text:
        return None
    if not text.isdecimal() or not low <= int(text) <= high:
        raise SettingsError(f"{name} is {text!r}; set it to a whole number from {low} to {high}")
    return int(text)
