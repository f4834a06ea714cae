"""`edgeburst config`: writes a configuration after five questions, or prints the example with every key."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scheduler.daemon.config.config import load_config
from scheduler.daemon.config.contradictions import is_loopback
from scheduler.domain.errors import ConfigError, EdgeburstError

EXAMPLE = "example.toml"
"""Beside the modules of the configuration; in the source tree it is scripts/edgeburst.example.toml."""
SYSTEM = Path("/etc")
SYSTEM_STATE = "/var/lib/edgeburst"
"""What the shipped unit makes (StateDirectory)."""

_DESCRIPTION = """\
`init` asks five questions, or takes the answers as options, and writes a valid configuration; `example` prints the
example in which every key is explained."""

_INIT = """\
Writes a configuration: where the edge server is, which model it serves, how soon requests have to be answered, which
function serves the model too, and what functions may cost a day. What an option says is not asked; without a terminal
nothing is asked, and what no option says has its default. An existing file stays, unless --force is given.

Exit status: 0 written, 2 not."""

_EPILOG = """\
examples:
  edgeburst config init
  edgeburst config init --out /etc/edgeburst/edgeburst.toml --edge http://192.168.1.20:8700 --model digits --slo-s 0.5
  edgeburst config example"""


@dataclass(frozen=True, slots=True)
class Question:
    """One of the five."""

    option: str
    """Without its dashes; the name of the answer too."""
    asks: str
    default: str
    help: str


QUESTIONS = (
    Question("edge", "URL of the edge server (- for none)", "http://127.0.0.1:8700", "URL of the edge server; -: none"),
    Question("model", "Model: a shipped one, or the folder of its card", "digits", "shipped model, or a card's folder"),
    Question("slo-s", "Seconds within which a request has to be answered", "1.0", "the SLO of its requests, seconds"),
    Question("function", "Name of the function that serves it too (- for none)", "-", "the function; -: none"),
    Question("per-day", "Most that functions may cost a day (- for any)", "-", "cap on a day's cost; -: none"),
)


def add_parser(subparsers: Any) -> None:
    """Adds the sub-command to the command line."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = subparsers.add_parser(
        "config", help="write a configuration", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=plain
    )
    actions = parser.add_subparsers(dest="action", metavar="init|example", required=True)
    init = actions.add_parser("init", help="write one", description=_INIT, epilog=_EPILOG, formatter_class=plain)
    add = init.add_argument
    add("--out", type=Path, default=Path("edgeburst.toml"), metavar="FILE", help="the file (default %(default)s)")
    for question in QUESTIONS:
        add(f"--{question.option}", metavar="ANSWER", help=f"{question.help} (default {question.default})")
    add("--force", action="store_true", help="overwrite an existing file")
    more = init.add_argument_group("more, which is never asked").add_argument
    more("--edge-token-env", metavar="NAME", help="variable with its token (default EDGE_TOKEN beyond this host)")
    more("--host", default="", help="address on which the daemon listens (default 127.0.0.1)")
    more("--open", action="store_true", help="whatever reaches that address may ask without a token")
    more("--state", metavar="FOLDER", help=f"what outlives the daemon (default {SYSTEM_STATE} for a file in /etc)")
    more("--region", default="cn-hangzhou", help="region of the function (default %(default)s)")
    more("--endpoint", default="", metavar="HOST", help="endpoint of the functions (default: the region's public one)")
    more("--protocol", choices=("https", "http"), default="https", help="towards it (default %(default)s)")
    more("--qualifier", default="tier-1gb", help="version or alias of the function (default %(default)s)")
    more("--function-profile", default="fc-resnet50-1gb", metavar="PROFILE", help="its latency (default %(default)s)")
    more("--memory-gb", type=float, default=1.0, metavar="GB", help="memory of an instance (default %(default)g)")
    more("--price-sheet", default="cny-gbs-2023", metavar="SHEET", help="prices (default %(default)s)")
    more("--image", default="", help="container image, with which `edgeburst fc apply` makes the function")
    actions.add_parser("example", help="print the example", description="Prints the example, with every key explained.")


def run(args: argparse.Namespace) -> int:
    """Writes a configuration, or prints the example; returns the exit status.

    Raises:
        EdgeburstError: it cannot be written, or an answer makes it not valid.
    """
    if args.action == "example":
        print(example(), end="")
        return 0
    if args.out.exists() and not args.force:
        raise EdgeburstError(f"{args.out} exists already; name another file with --out, or overwrite it with --force")
    answers = _answers(args, _ask if sys.stdin.isatty() else None)
    _write(args.out, text_of(args, answers))
    print(f"wrote {args.out}; next: edgeburst doctor --config {args.out}")
    return 0


def example() -> str:
    """Returns the example configuration."""
    return resources.files("scheduler.daemon.config").joinpath(EXAMPLE).read_text(encoding="utf-8")


def _ask(question: Question) -> str:
    try:
        return input(f"{question.asks} [{question.default}]: ").strip()
    except EOFError:
        raise EdgeburstError(
            f"there is no answer to --{question.option}: answer the question, or give the option"
        ) from None


def _answers(args: argparse.Namespace, ask: Callable[[Question], str] | None) -> dict[str, str]:
    """Returns the answers by question; empty where the answer is that there is none."""
    found: dict[str, str] = {}
    for question in QUESTIONS:
        given = getattr(args, question.option.replace("-", "_"))
        skips = question.option == "per-day" and not found["function"]
        if given is None and ask is not None and not skips:
            given = ask(question)
        answer = given or question.default
        found[question.option] = "" if answer == "-" else answer
    if not found["edge"] and not found["function"]:
        raise EdgeburstError("neither an edge nor a function would serve the model; give --edge or --function")
    return found


def text_of(args: argparse.Namespace, answers: dict[str, str]) -> str:
    """Returns the configuration.

    Raises:
        EdgeburstError: an answer that should be a number is none.
    """
    state = args.state or (SYSTEM_STATE if args.out.resolve().is_relative_to(SYSTEM) else "state")
    lines = [
        "# Made by `edgeburst config init`. `edgeburst config example` explains every key.",
        "[daemon]",
        f"state = {_text(state)}    # money under the caps, limits and estimates: they outlive the process",
    ]
    lines += [f"host = {_text(args.host)}"] if args.host else []
    lines += ["open = true"] if args.open else []
    if answers["edge"]:
        lines += ["", "[edge]", f"url = {_text(answers['edge'])}"]
        host = urlsplit(answers["edge"]).hostname or ""
        token = args.edge_token_env
        if token is None and host and not is_loopback(host):
            token = "EDGE_TOKEN"
        lines += [f"token_env = {_text(token)}    # variable with the edge's token"] if token else []
    if answers["function"]:
        lines += _function(args, answers)
    model = answers["model"]
    folder = Path(model)
    # The file may be read from another folder than this command runs in.
    named = str(folder.resolve()) if folder.is_dir() else model
    lines += ["", "[[model]]", f"card = {_text(named)}    # measured on the edge when the daemon starts"]
    lines += ["", "[[model.class]]", f"slo_s = {_number(answers['slo-s'], '--slo-s')}", "percentile = 0.99"]
    if answers["function"]:
        lines += [
            "",
            "[[model.tier]]",
            f"name = {_text('1gb' if args.memory_gb == 1 else f'{args.memory_gb:g}gb')}",
            f"function = {_text(answers['function'])}",
            f"qualifier = {_text(args.qualifier)}",
            f"profile = {_text(args.function_profile)}    # measure yours: edgeburst profile function",
            f"memory_gb = {args.memory_gb}",
        ]
    return "\n".join(lines) + "\n"


def _function(args: argparse.Namespace, answers: dict[str, str]) -> list[str]:
    lines = ["", "[function]    # the access key is in ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET"]
    lines += [f"region = {_text(args.region)}", f"price_sheet = {_text(args.price_sheet)}"]
    lines += [f"endpoint = {_text(args.endpoint)}"] if args.endpoint else []
    lines += [f"protocol = {_text(args.protocol)}"] if args.protocol != "https" else []
    if answers["per-day"]:
        lines += ["", "[spend]", f"per_day = {_number(answers['per-day'], '--per-day')}"]
    if args.image:
        lines += ["", "[deploy]", f"image = {_text(args.image)}"]
    return lines


def _text(value: str) -> str:
    # JSON's strings are TOML's.
    return json.dumps(value, ensure_ascii=False)


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise EdgeburstError(f"{option} is {text[:64]!r}, which is no number; give one, as 1.0") from None


def _write(path: Path, text: str) -> None:
    """Writes a configuration that is valid; another one leaves no file."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".toml", dir=path.parent)
    except OSError as error:
        raise EdgeburstError(
            f"{path} cannot be written ({error.strerror}); make its folder, or name another file with --out"
        ) from None
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        try:
            load_config(draft, {})
        except ConfigError as error:
            raise EdgeburstError(str(error).replace(str(draft), "the configuration of these answers")) from None
        # It holds no secret, and the daemon's own user has to read it.
        draft.chmod(0o644)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
