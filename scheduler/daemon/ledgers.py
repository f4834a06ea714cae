"""Where a daemon's money is leased from: its own state folder, another daemon, or nowhere."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import replace

from scheduler.daemon.config.config import Config
from scheduler.daemon.config.credentials import lender_access
from scheduler.daemon.state.borrowed import Borrower, Lender
from scheduler.daemon.state.keeper import StateKeeper
from scheduler.dispatch.spend_cap import LENDER, STATE
from scheduler.domain.plans import EngineSettings


def keeper_of(config: Config, *, wait_s: float) -> StateKeeper | None:
    """Returns what keeps the state folder, None where there is none.

    Raises:
        StateError: the folder cannot be used.
    """
    folder = config.state_folder()
    if folder is None:
        return None
    models = [model.name for model in config.models]
    return StateKeeper(folder, currency=config.currency(), wait_s=wait_s, models=models)


def borrower_of(config: Config, environ: Mapping[str, str]) -> Borrower | None:
    """Returns what borrows from another daemon, None where money is not borrowed; opens no connection.

    Raises:
        ConfigError: the token's variable is not set, or a file cannot be used.
    """
    spend = config.spend
    if not spend.lender:
        return None
    name = spend.from_name or f"{socket.gethostname()}:{config.daemon.port}"
    return Borrower(Lender(spend.lender, name, config.currency(), lender_access(config, environ)))


def leased_settings(config: Config, state: StateKeeper | None, borrower: Borrower | None) -> EngineSettings:
    """Returns the engine's settings, with the caps that hold where money is leased from.

    Raises:
        ConfigError: a profile or price sheet is missing, of the wrong kind, or not valid.
    """
    settings = config.engine_settings()
    if borrower is not None:
        return borrower.applied(replace(settings, spend_leased=LENDER))
    # A reload may name another source, which counts from the next start on.
    return replace(settings, spend_leased="" if state is None else STATE)
