"""Warnings of frameworks for developers, which do not help the owner of a model: kept back by their category."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Final

_FOR_DEVELOPERS: Final[tuple[type[Warning], ...]] = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)


@contextlib.contextmanager
def kept_back(*further: type[Warning]) -> Iterator[None]:
    """Keeps back what is deprecated or will change, and warnings of further categories; all others are shown."""
    with warnings.catch_warnings():
        for category in (*_FOR_DEVELOPERS, *further):
            warnings.simplefilter("ignore", category)
        yield
