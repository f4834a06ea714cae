"""Base class of the errors of this package."""

from __future__ import annotations


class ModelError(ValueError):
    """Error: a model, picture or profile cannot be used; the message names it and says what to do."""
