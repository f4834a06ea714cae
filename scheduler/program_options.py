"""Options that every program and sub-command understands, and what several take their numbers by."""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import os
import traceback
from collections.abc import Sequence

from scheduler.terminal import be_quiet

EVERYWHERE = {
    "--quiet": "no progress and no notes on stderr",
    "--no-color": "no colours, as with NO_COLOR=1",
    "--debug": "after an error, also where in the program it was found",
}
"""Options that may stand anywhere on the command line, with what they do."""

_debug = [False]


def take_everywhere(arguments: Sequence[str]) -> list[str]:
    """Takes out of the arguments, and obeys, what every sub-command understands; returns the others.

    >>> take_everywhere(["fc", "plan", "--no-color", "--", "--quiet"])
    ['fc', 'plan', '--', '--quiet']
    """
    words = list(arguments)
    end = words.index("--") if "--" in words else len(words)
    given = [word for word in words[:end] if word in EVERYWHERE]
    be_quiet("--quiet" in given)
    _debug[0] = "--debug" in given
    if "--no-color" in given:
        os.environ["NO_COLOR"] = "1"  # rich follows it, and child processes do
    return [word for word in words[:end] if word not in EVERYWHERE] + words[end:]


def show_where() -> None:
    """Shows on stderr where the error that is being handled was found, if --debug was given."""
    if _debug[0]:
        traceback.print_exc()


def add_everywhere(parser: argparse.ArgumentParser) -> None:
    """Adds --version, and the others for the help text: `take_everywhere` has taken them out before."""
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="print the version and exit")
    for option, words in EVERYWHERE.items():
        parser.add_argument(option, action="store_true", help=f"{words}; everywhere on the command line")


class ShowVersion(argparse.Action):
    """Prints the name of the program and its version, and ends it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Prints them."""
        try:
            version = importlib.metadata.version("edgeburst")
        except importlib.metadata.PackageNotFoundError:
            version = "(not installed: run from a source tree)"
        print(f"{parser.prog} {version}")
        parser.exit(0)


def positive(text: str) -> float:
    """Returns a finite number above 0, as the type of an option.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0")
    return value
