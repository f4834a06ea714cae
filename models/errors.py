"""Base class of the errors of this package, and what a sentence says of an error of others."""

from __future__ import annotations


class ModelError(ValueError):
    """Error: a model, picture or profile cannot be used; the message names it and says what to do."""


def last_line(error: BaseException) -> str:
    """Returns the last line of an error as a traceback shows it, shortened: what a sentence can carry."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1]}"[:400] if lines else type(error).__name__
