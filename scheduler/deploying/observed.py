"""The observed state: functions as the provider describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Provisioned:
    """Provisioned instances of an alias: how many are desired, how many exist, and why the others are missing."""

    target: int = 0
    current: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    """A published version."""

    version_id: str
    description: str


@dataclass(frozen=True, slots=True)
class Alias:
    """An alias, and the configuration of its version.

    Attributes:
        name: the qualifier.
        version_id: the main version.
        weights: shares of the calls that go to other versions.
        description: the mark, if it was made here.
        configuration: the version's configuration, in the provider's fields.
        provisioned: its provisioned instances.
    """

    name: str
    version_id: str
    weights: Mapping[str, float]
    description: str
    configuration: Mapping[str, Any]
    provisioned: Provisioned


@dataclass(frozen=True, slots=True)
class Function:
    """A function and its parts.

    Attributes:
        name: its name.
        latest: the configuration of LATEST, with description and states, in the provider's fields.
        versions: the published versions.
        aliases: the aliases by name.
        reserved: its reserved concurrency; None without one.
        triggers: names of its triggers.
        provisioned: the provisioned instances by qualifier.
    """

    name: str
    latest: Mapping[str, Any]
    versions: tuple[Version, ...]
    aliases: Mapping[str, Alias]
    reserved: int | None
    triggers: tuple[str, ...]
    provisioned: Mapping[str, Provisioned]

    @property
    def description(self) -> str:
        """Its description."""
        return str(self.latest.get("description") or "")

    @property
    def is_active(self) -> bool:
        """Whether its versions answer, without regard to the latest update."""
        return self.latest.get("state") in (None, "Active")

    @property
    def condition(self) -> str:
        """Its state in the provider's terms."""
        state, update = str(self.latest.get("state") or "Active"), str(self.latest.get("lastUpdateStatus") or "")
        return state if update in ("", "Successful") or state != "Active" else f"{state}, update {update}"
