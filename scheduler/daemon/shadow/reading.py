"""The shadow's configuration, as far as it matters beside the live one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from scheduler.daemon.config.config import Config, load_config
from scheduler.domain.errors import ConfigError
from scheduler.domain.plans import EngineSettings


@dataclass(frozen=True, slots=True)
class Reading:
    """What a comparison is of; another one is counted from its own start."""

    live: EngineSettings
    shadow: EngineSettings
    answer_reserve_s: float
    currencies: tuple[str, str]
    """Of the live configuration's prices, and of the shadow's; empty without functions."""


def read_shadow(path: Path, environ: Mapping[str, str], live: Config) -> Reading:
    """Reads the shadow's file. Its addresses, secrets, folders and tokens are not used.

    Raises:
        ConfigError: the file is not valid, or has no model of the live configuration.
    """
    config = load_config(path, environ)
    config.recall_measured(live)
    served, ours = [model.name for model in live.models], {model.name for model in config.models}
    if ours.isdisjoint(served):
        raise ConfigError(
            f"{path}: its models ({', '.join(sorted(ours))}) are none of those that the daemon serves "
            f"({', '.join(served)}), so no request could be compared; name one of them in [[model]]"
        )
    # Caps are its own, from this start on: what the live engine spent is none of it, and no ledger is asked.
    settings = replace(config.engine_settings(), spend_leased="")
    reserve_s = config.daemon.answer_reserve_s
    return Reading(live.engine_settings(), settings, reserve_s, (live.currency(), config.currency()))
