"""Which card and files a configuration expects of each model's places."""

from __future__ import annotations

from scheduler.daemon.config.config import Config
from scheduler.daemon.config.model_sections import ModelSection
from scheduler.daemon.identities import AcceptedBy


def expected_identities(config: Config) -> dict[str, tuple[str, AcceptedBy]]:
    """Returns by model which card and files its answers must come from, empty for any, and where it is said."""
    return {model.name: _expected(model, config) for model in config.models}


def _expected(model: ModelSection, config: Config) -> tuple[str, AcceptedBy]:
    if model.identity:
        return model.identity, AcceptedBy.CONFIG
    # That of a shipped model is not expected: another version of this package may serve it.
    return (config.identities()[model.name] if model.card else None) or "", AcceptedBy.CARD
