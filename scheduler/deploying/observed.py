"""What there is: functions as the provider describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Provisioned:
    """Instances kept for an alias: how many shall be, how many are, and why the others are missing."""

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
    """An alias, and the configuration of the version that it points to.

    Parameters:
        name: the qualifier.
        version_id: the main version.
        weights: shares of its calls that go to other versions.
        description: the mark, if it was made here.
        configuration: the version's, in the provider's fields.
        provisioned: instances kept for it.
    """

    name: str
    version_id: str
    weights: Mapping[str, float]
    description: str
    configuration: Mapping[str, Any]
    provisioned: Provisioned


@dataclass(frozen=True, slots=True)
class Function:
    """A function and what hangs on it.

    Parameters:
        name: its name.
        latest: the configuration of LATEST, with description and states, in the provider's fields.
        versions: the published ones.
        aliases: by name.
        reserved: its reserved concurrency; None without one.
        triggers: names of its triggers.
        provisioned: qualifiers for which instances are kept.
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
        """Whether its versions answer; what became of the latest update is another matter."""
        return self.latest.get("state") in (None, "Active")

    @property
    def condition(self) -> str:
        """How it is, in the provider's words."""
        state, update = str(self.latest.get("state") or "Active"), str(self.latest.get("lastUpdateStatus") or "")
        return state if update in ("", "Successful") or state != "Active" else f"{state}, update {update}"
