"""The endpoint's configuration: one TOML file, read once into one frozen object."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serverless_fn.local_fc.errors import FcError
from serverless_fn.local_fc.fields import Fields
from serverless_fn.local_fc.function_spec import read_spec

# The same parser under two names: the standard library has it from 3.11 on.
tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


class ConfigError(ValueError):
    """Error: the configuration cannot be used; the message names the key."""


@dataclass(frozen=True, slots=True)
class Image:
    """Program on this machine that stands for a container image.

    Attributes:
        command: program and arguments, unless the function sets an entrypoint.
        env: variables with lower priority than those of the function.
    """

    command: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Account:
    """Limits and timing of the emulated account.

    Attributes:
        id: account id in ARNs and headers.
        region: region in ARNs and headers.
        max_instances: limit of the instances of all functions together.
        burst_instances: number of instances that may be started at once.
        growth_per_min: number of instances a minute that may be started beyond the burst.
        idle_s: seconds without a request after which an on-demand instance is stopped.
        ready_limit_s: seconds within which an instance must open its port; otherwise FunctionNotStarted.
        stop_limit_s: seconds between SIGTERM and SIGKILL of an instance.
        update_s: seconds that a function stays Pending after creation and InProgress after an update.
        wake_s: seconds that it takes to wake a hibernated provisioned instance.
    """

    id: str = "1234567890123456"
    region: str = "cn-hangzhou"
    max_instances: int = 300
    burst_instances: int = 100
    growth_per_min: float = 100.0
    idle_s: float = 240.0
    ready_limit_s: float = 120.0
    stop_limit_s: float = 5.0
    update_s: float = 0.0
    wake_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PredefinedFunction:
    """Function that exists from the start.

    Attributes:
        content: the body of CreateFunction.
        provision: the body of PutProvisionConfig, for LATEST.
        reserved_concurrency: value of PutConcurrencyConfig; None for no limit.
    """

    content: Mapping[str, Any]
    provision: Mapping[str, Any]
    reserved_concurrency: int | None


@dataclass(frozen=True, slots=True)
class Config:
    """Configuration of the endpoint.

    Attributes:
        access_keys: secrets by access key id.
        images: programs by image name.
        account: limits and timing of the account.
        functions: functions that exist from the start.
    """

    access_keys: Mapping[str, str]
    images: Mapping[str, Image] = field(default_factory=dict)
    account: Account = field(default_factory=Account)
    functions: Sequence[PredefinedFunction] = ()


_TABLES = ("access_keys", "images", "account", "function")


def load_config(path: Path) -> Config:
    """Reads the configuration file.

    Raises:
        ConfigError: the file is missing, is not TOML, or has a wrong value.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    try:
        return read_config(content)
    except FcError as error:
        raise ConfigError(f"{path}: {error.message}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def read_config(content: Mapping[str, Any]) -> Config:
    """Returns the configuration of a parsed file.

    Raises:
        ConfigError: a key is unknown or missing.
        FcError: a value is of the wrong type or out of range.
    """
    _refuse_unknown(content, _TABLES, "the file")
    keys = Fields(content).text_map("access_keys")
    if not keys:
        raise ConfigError('[access_keys] is missing; add a line like my-key = "my-secret".')
    images = {name: _image(name, image) for name, image in _table(content, "images").items()}
    functions = content.get("function", [])
    if not isinstance(functions, list):
        raise ConfigError("function must be a list of tables; write [[function]]")
    predefined = tuple(map(_function, functions))
    names = [function.content["functionName"] for function in predefined]
    for name in {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"two [[function]] have the functionName {name!r}; rename one")
    return Config(keys, images, _account(_table(content, "account")), predefined)


def _image(name: str, content: Any) -> Image:
    fields = Fields(content, f"images.{name!r}.")
    _refuse_unknown(content, ("command", "env"), f"[images.{name!r}]")
    command = fields.texts("command")
    if not command:
        raise ConfigError(f"[images.{name!r}] needs command = [program, arguments...]")
    return Image(command, fields.text_map("env"))


def _account(content: Mapping[str, Any]) -> Account:
    _refuse_unknown(content, tuple(Account.__dataclass_fields__), "[account]")
    fields, default = Fields(content, "account."), Account()
    return Account(
        id=fields.text("id", default.id),
        region=fields.text("region", default.region),
        max_instances=fields.whole("max_instances", 1, 10_000, default.max_instances),
        burst_instances=fields.whole("burst_instances", 1, 10_000, default.burst_instances),
        growth_per_min=fields.number("growth_per_min", 0, 1e6, default.growth_per_min),
        idle_s=fields.number("idle_s", 0, 86_400, default.idle_s),
        ready_limit_s=fields.number("ready_limit_s", 0.01, 3600, default.ready_limit_s),
        stop_limit_s=fields.number("stop_limit_s", 0, 600, default.stop_limit_s),
        update_s=fields.number("update_s", 0, 600, default.update_s),
        wake_s=fields.number("wake_s", 0, 600, default.wake_s),
    )


def _function(content: Any) -> PredefinedFunction:
    fields = Fields(content, "function.")
    created = {key: value for key, value in content.items() if key not in ("provisionConfig", "concurrencyConfig")}
    read_spec(created)
    fields.inside("provisionConfig").whole("defaultTarget", 0, 10_000, 0)
    concurrency = fields.inside("concurrencyConfig")
    reserved = concurrency.whole("reservedConcurrency", 0, 10_000) if concurrency.has("reservedConcurrency") else None
    return PredefinedFunction(created, content.get("provisionConfig", {}), reserved)


def _table(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    table = content.get(key, {})
    if not isinstance(table, Mapping):
        raise ConfigError(f"{key} must be a table; write [{key}]")
    return table


def _refuse_unknown(content: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(known)}"
            raise ConfigError(f"unknown key {key!r} in {where}: {hint}")
