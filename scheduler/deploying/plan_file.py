"""What `edgeburst plan --json` wrote: which functions its groups want."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scheduler.deploying.errors import DeployError

_LARGEST_FILE_BYTES = 10_000_000
_KINDS = ("cpu", "gpu")


@dataclass(frozen=True, slots=True)
class Group:
    """Applications that share a function.

    Parameters:
        apps: their names.
        kind: "cpu" or "gpu".
        vcpu: vCPUs of an instance; 0 where the plan does not say.
        memory_gb: memory of an instance; 0 where the plan does not say.
        gpu_gb: its share of a card's memory.
        batch: most items of one invocation.
    """

    apps: tuple[str, ...]
    kind: str
    vcpu: float
    memory_gb: float
    gpu_gb: float
    batch: int

    @property
    def name(self) -> str:
        """It in a message."""
        return f"the group of {', '.join(self.apps)}"


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A plan.

    Parameters:
        groups: each wants a function.
        infeasible: why the plan does not keep its objectives; "" if it does.
    """

    groups: tuple[Group, ...]
    infeasible: str


def read_plan(path: Path) -> PlanFile:
    """Reads a plan.

    Raises:
        DeployError: it is not there, or not a plan; the message names file and field.
    """
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_LARGEST_FILE_BYTES))
    except OSError as error:
        raise DeployError(f"{path}: the plan cannot be read ({error.strerror}); name another") from None
    except (ValueError, RecursionError):
        raise DeployError(f"{path}: this is not JSON; write it with `edgeburst plan --json`") from None
    groups = content.get("groups") if isinstance(content, Mapping) else None
    if not isinstance(groups, list) or not groups:
        raise DeployError(f"{path}: there is no list `groups`; write the plan with `edgeburst plan --json`")
    reason = content.get("infeasible")
    words = str(reason.get("reason") or "no reason given") if isinstance(reason, Mapping) else ""
    return PlanFile(tuple(_group(path, index, group) for index, group in enumerate(groups)), words)


def _group(path: Path, index: int, content: Any) -> Group:
    where = f"{path}: groups[{index}]"
    if not isinstance(content, Mapping):
        raise DeployError(f"{where} must be an object")
    apps, kind = content.get("apps"), content.get("kind")
    if not isinstance(apps, list) or not apps or not all(isinstance(app, str) for app in apps):
        raise DeployError(f"{where}.apps must be a list of names")
    if kind not in _KINDS:
        raise DeployError(f"{where}.kind is {kind!r}; only {' and '.join(_KINDS)} functions can be deployed")
    gpu_gb = _number(content, "gpu_gb", where)
    if (kind == "gpu") != (gpu_gb > 0):
        raise DeployError(f"{where} is of kind {kind} with gpu_gb = {gpu_gb:g}; plan again")
    return Group(
        apps=tuple(apps),
        kind=kind,
        vcpu=_number(content, "vcpu", where),
        memory_gb=_number(content, "memory_gb", where),
        gpu_gb=gpu_gb,
        batch=_batch(content, where),
    )


def _number(content: Mapping[str, Any], key: str, where: str) -> float:
    """A number of at least 0; absent or null is 0."""
    value = content.get(key)
    value = 0.0 if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise DeployError(f"{where}.{key} must be a number of at least 0")
    return float(value)


def _batch(content: Mapping[str, Any], where: str) -> int:
    batch = content.get("batch")
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise DeployError(f"{where}.batch must be a whole number of at least 1")
    return batch
