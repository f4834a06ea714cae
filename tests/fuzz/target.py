"""What can be fuzzed: a check that any bytes must pass, and how to begin."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from fuzz.mutators import Mutate

CORPUS = Path(__file__).parent / "corpus"
"""One folder for each target; each file is an input that found something once, or that reaches far."""

NAMES = (
    "wire",
    "frame",
    "grpc",
    "images",
    "config",
    "traces",
    "state",
    "explain",
    "cards",
    "sheets",
    "profiles",
)

SENTENCE_CHARACTERS = 2000
"""More than any sentence has; one that grows with its input would fill logs and answers."""


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of input.

    Attributes:
        name: also of its module and of its folder in the corpus.
        check: raises where bytes get anything but a value that keeps its promises or the documented error.
        seeds: valid and nearly valid inputs, from which others are made.
        instrumented: modules whose coverage guides the search, with all below them.
        words: that mutations put in.
        longest_bytes: of an input.
        mutate: a mutation that knows the form of the input, for every second one; None: bytes only.
    """

    name: str
    check: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    instrumented: tuple[str, ...]
    words: tuple[bytes, ...] = ()
    longest_bytes: int = 2048
    mutate: Mutate | None = None


def load(name: str) -> Target:
    """Returns a target by its name; imports what it needs only now."""
    target: Target = importlib.import_module(f"fuzz.targets.{name}").TARGET
    assert target.name == name
    return target


def one_sentence(error: Exception) -> None:
    """Checks what a user or a client is told."""
    message = str(error)
    assert message, "an error without a message"
    assert len(message) <= SENTENCE_CHARACTERS, f"a message of {len(message)} characters"
    assert not re.search(r"Traceback|<class '|object at 0x", message), f"internals in a message: {message!r}"


def in_corpus(name: str) -> list[Path]:
    """Returns the kept inputs of a target."""
    folder = CORPUS / name
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
