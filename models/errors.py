"""The base of everything that this package refuses."""

from __future__ import annotations


class ModelError(ValueError):
    """A model, picture or profile cannot be used; the message is one sentence that names it and the next step."""
