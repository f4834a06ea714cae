"""What shall be: functions, their tiers, and the marks by which they are known again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from scheduler.wire import InferRequest


@dataclass(frozen=True, slots=True)
class Tier:
    """A function's version with an alias to it: what the daemon calls, and moves to, by qualifier.

    Parameters:
        name: by which the configuration names it.
        function: the function's name.
        alias: the qualifier.
        model: the neural network that it serves.
        configuration: the function's, in the provider's fields.
        provisioned: instances that are kept for the alias.
        probe: a batch of one that the model must answer.
    """

    name: str
    function: str
    alias: str
    model: str
    configuration: Mapping[str, Any]
    provisioned: int
    probe: InferRequest

    @property
    def address(self) -> str:
        """Function and qualifier, as people write them."""
        return f"{self.function}:{self.alias}"

    @property
    def has_gpu(self) -> bool:
        """Whether it needs one."""
        return "gpuConfig" in self.configuration


@dataclass(frozen=True, slots=True)
class Deployment:
    """All that one file asks for.

    Parameters:
        name: is part of the mark.
        tiers: in the order of the file.
        reserved_concurrency: most instances of each function; None sets no limit.
    """

    name: str
    tiers: tuple[Tier, ...]
    reserved_concurrency: int | None = None

    @property
    def functions(self) -> tuple[str, ...]:
        """The functions' names, each once."""
        return tuple(dict.fromkeys(tier.function for tier in self.tiers))

    def tiers_of(self, function: str) -> tuple[Tier, ...]:
        """Returns the tiers of one function."""
        return tuple(tier for tier in self.tiers if tier.function == function)

    @property
    def mark(self) -> str:
        """Begins the description of everything that is made here, and is nowhere else."""
        return f"[edgeburst fc: {self.name}]"

    def made(self, description: str | None) -> bool:
        """Returns whether something with this description was made by this deployment."""
        return (description or "").startswith(self.mark)

    @property
    def function_description(self) -> str:
        """The description of a function."""
        return f"{self.mark} changes by hand will be lost"

    def version_description(self, configuration: Mapping[str, Any]) -> str:
        """Returns the description of a version: an apply that was cut short finds by it what it had published."""
        return f"{self.mark} {fingerprint(configuration)}"


def fingerprint(configuration: Mapping[str, Any]) -> str:
    """Returns a short text that is another for every configuration.

    >>> fingerprint({"cpu": 1.0}) == fingerprint({"cpu": 2.0})
    False
    """
    return sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()[:16]
