"""The desired state: functions, their tiers, and the marks that identify what was made here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from scheduler.wire import InferRequest


@dataclass(frozen=True, slots=True)
class Tier:
    """A version of a function with an alias, which is the qualifier that the daemon calls.

    Attributes:
        name: name of the tier in the configuration.
        function: name of the function.
        alias: the qualifier.
        model: the neural network that it serves.
        configuration: the function's configuration, in the provider's fields.
        provisioned: number of instances that are kept for the alias.
        probe: a request with one item that the model must answer.
        ragged: names of the model's ragged outputs.
    """

    name: str
    function: str
    alias: str
    model: str
    configuration: Mapping[str, Any]
    provisioned: int
    probe: InferRequest
    ragged: frozenset[str] = frozenset()

    @property
    def address(self) -> str:
        """Function and qualifier, as FUNCTION:QUALIFIER."""
        return f"{self.function}:{self.alias}"

    @property
    def has_gpu(self) -> bool:
        """Whether the tier needs a GPU."""
        return "gpuConfig" in self.configuration


@dataclass(frozen=True, slots=True)
class Deployment:
    """Everything that one file asks for.

    Attributes:
        name: part of the mark.
        tiers: the tiers in the order of the file.
        reserved_concurrency: maximum of instances of each function; None sets no limit.
    """

    name: str
    tiers: tuple[Tier, ...]
    reserved_concurrency: int | None = None

    @property
    def functions(self) -> tuple[str, ...]:
        """The names of the functions, each once."""
        return tuple(dict.fromkeys(tier.function for tier in self.tiers))

    def tiers_of(self, function: str) -> tuple[Tier, ...]:
        """Returns the tiers of one function."""
        return tuple(tier for tier in self.tiers if tier.function == function)

    @property
    def mark(self) -> str:
        """Text that begins the description of everything that is made here, and of nothing else."""
        return f"[edgeburst fc: {self.name}]"

    def made(self, description: str | None) -> bool:
        """Returns whether this deployment made something with this description."""
        return (description or "").startswith(self.mark)

    @property
    def function_description(self) -> str:
        """The description of a function."""
        return f"{self.mark} changes by hand will be lost"

    def version_description(self, configuration: Mapping[str, Any]) -> str:
        """Returns the description of a version, by which the next apply finds it after an interruption."""
        return f"{self.mark} {fingerprint(configuration)}"


def fingerprint(configuration: Mapping[str, Any]) -> str:
    """Returns a short text that differs for every configuration.

    >>> fingerprint({"cpu": 1.0}) == fingerprint({"cpu": 2.0})
    False
    """
    return sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()[:16]
