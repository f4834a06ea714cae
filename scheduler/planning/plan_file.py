"""The output of `edgeburst plan --json`, read back: functions, batches and waits of its groups."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scheduler.domain.errors import EdgeburstError
from scheduler.planning.instance_sizes import Size

_MAX_FILE_BYTES = 10_000_000
"""Bytes of a plan file that are read: a plan of 2000 applications has less than a megabyte."""
_KINDS = ("cpu", "gpu")
_MAX_NUMBER = 1e15
"""Bound on every size, time, money and number of bytes in a plan."""


class PlanFileError(EdgeburstError):
    """A plan file cannot be used. The message names file and field."""


@dataclass(frozen=True, slots=True)
class Group:
    """Applications that share a buffer and its function.

    Attributes:
        apps: names of the applications.
        kind: "cpu" or "gpu".
        vcpu: vCPUs of an instance; 0 if the plan does not give them.
        memory_gb: memory of an instance; 0 if the plan does not give it.
        gpu_gb: its share of a card's memory.
        batch: largest number of items of one invocation; a batch leaves at once when it has them.
        timeouts_s: longest wait of a request for others, by application; empty if the plan does not give it.
        promises: percentile and latency at it in seconds, by application; empty if the plan does not give them.
        cost_per_request: expected money; 0 if the plan does not give it.
        up_to_bytes: largest request of the buffer where requests go by size; None: any.
        provisioned: proposed number of provisioned instances; 0 if the plan does not give it.
    """

    apps: tuple[str, ...]
    kind: str
    vcpu: float
    memory_gb: float
    gpu_gb: float
    batch: int
    timeouts_s: Mapping[str, float] = field(default_factory=dict)
    promises: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    cost_per_request: float = 0.0
    up_to_bytes: float | None = None
    provisioned: int = 0

    @property
    def name(self) -> str:
        """The group's name in a message."""
        return f"the group of {', '.join(self.apps)}"

    def size(self, gpu_type: str = "") -> Size:
        """Returns the resources of its function, not yet in the provider's steps."""
        return Size(vcpu=self.vcpu, memory_gb=self.memory_gb, gpu_gb=self.gpu_gb, gpu_type=gpu_type)


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A plan.

    Attributes:
        groups: its groups; each needs a function.
        infeasible: reason why the plan does not meet its SLOs; "" if it does.
        currency: currency of its costs; "" if the plan does not give it.
    """

    groups: tuple[Group, ...]
    infeasible: str
    currency: str = ""

    @property
    def apps(self) -> tuple[str, ...]:
        """The applications, each once."""
        return tuple(dict.fromkeys(app for group in self.groups for app in group.apps))


def read_plan(path: Path) -> PlanFile:
    """Reads a plan.

    Raises:
        PlanFileError: the file is missing or is not a plan; the message names file and field.
    """
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_MAX_FILE_BYTES))
    except OSError as error:
        raise PlanFileError(f"{path}: the plan cannot be read ({error.strerror}); name another") from None
    except (ValueError, RecursionError):
        raise PlanFileError(f"{path}: this is not JSON; write it with `edgeburst plan --json`") from None
    groups = content.get("groups") if isinstance(content, Mapping) else None
    if isinstance(content, Mapping) and "plan_id" in content:
        raise PlanFileError(
            f"{path}: this plan was made for a configuration; plan with `edgeburst plan --apps` instead"
        )
    if not isinstance(groups, list) or not groups:
        raise PlanFileError(f"{path}: there is no list `groups`; write the plan with `edgeburst plan --json`")
    reason = content.get("infeasible")
    said = reason.get("reason") if isinstance(reason, Mapping) else reason
    words = str(said or "no reason given") if reason else ""
    currency = content.get("currency", "")
    if not isinstance(currency, str):
        raise PlanFileError(f"{path}: currency must be a text")
    return PlanFile(tuple(_group(path, index, group) for index, group in enumerate(groups)), words, currency)


def _group(path: Path, index: int, content: Any) -> Group:
    where = f"{path}: groups[{index}]"
    if not isinstance(content, Mapping):
        raise PlanFileError(f"{where} must be an object")
    apps, kind = content.get("apps"), content.get("kind")
    if not isinstance(apps, list) or not apps or not all(isinstance(app, str) for app in apps):
        raise PlanFileError(f"{where}.apps must be a list of names")
    if kind not in _KINDS:
        raise PlanFileError(f"{where}.kind is {kind!r}; only {' and '.join(_KINDS)} functions can be used")
    gpu_gb = _number(content, "gpu_gb", where)
    if (kind == "gpu") != (gpu_gb > 0):
        raise PlanFileError(f"{where} is of kind {kind} with gpu_gb = {gpu_gb:g}; plan again")
    timeouts = _table(content, "timeouts_s", where)
    return Group(
        apps=tuple(apps),
        kind=kind,
        vcpu=_number(content, "vcpu", where),
        memory_gb=_number(content, "memory_gb", where),
        gpu_gb=gpu_gb,
        batch=_batch(content, where),
        timeouts_s={app: _number(timeouts, app, f"{where}.timeouts_s") for app in timeouts},
        promises=_promises(content, where),
        cost_per_request=_number(content, "cost_per_request", where),
        up_to_bytes=None if content.get("up_to_bytes") is None else _number(content, "up_to_bytes", where),
        provisioned=round(_number(_table(content, "provisioned", where), "instances", f"{where}.provisioned")),
    )


def _promises(content: Mapping[str, Any], where: str) -> dict[str, tuple[float, float]]:
    promises = {}
    for app, promise in _table(content, "latency_s", where).items():
        if not isinstance(promise, Mapping):
            raise PlanFileError(f"{where}.latency_s.{app} must be an object")
        place = f"{where}.latency_s.{app}"
        promises[app] = _number(promise, "percentile", place), _number(promise, "value", place)
    return promises


def _table(content: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = content.get(key, {})
    if not isinstance(value, Mapping):
        raise PlanFileError(f"{where}.{key} must be an object")
    return value


def _number(content: Mapping[str, Any], key: str, where: str) -> float:
    """Returns a number of at least 0; a missing value or null is 0."""
    value = content.get(key)
    value = 0.0 if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_NUMBER:
        raise PlanFileError(f"{where}.{key} must be a number from 0 to {_MAX_NUMBER:g}")
    return float(value)


def _batch(content: Mapping[str, Any], where: str) -> int:
    batch = content.get("batch")
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise PlanFileError(f"{where}.batch must be a whole number of at least 1")
    return batch
