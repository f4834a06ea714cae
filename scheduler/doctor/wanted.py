"""What a configuration expects of the hosts, as plain values that the checks compare with what is found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from models.card import TensorSpec


@dataclass(frozen=True, slots=True)
class WantedTier:
    """A tier of a model."""

    name: str
    function: str
    qualifier: str
    profile: str
    one_item_s: float
    memory_gb: float


@dataclass(frozen=True, slots=True)
class WantedModel:
    """A model as it is configured."""

    name: str
    inputs: tuple[TensorSpec, ...]
    identity: str
    """Of card and files; empty: any."""
    folder: str
    """Of the card; empty: none is named."""
    files: Mapping[str, str]
    """SHA-256 of the card and its files, by name; empty: not known here."""
    edge_batches: Mapping[str, int]
    """By edge server: the largest batch that is planned there."""
    edge_one_item_s: Mapping[str, float]
    """By edge server: what its profile predicts for one item."""
    edge_profiles: Mapping[str, str]
    tightest_by_function_s: float | None
    """The shortest SLO of its classes that functions may serve."""
    tiers: tuple[WantedTier, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The expectations of a configuration."""

    path: str
    models: Mapping[str, WantedModel]
    sheet: str
    """Name of the price sheet; empty without functions."""
    sheet_date: date | None
    warnings: tuple[str, ...] = field(default=())
    """What `edgeburst check-config` warns of."""
