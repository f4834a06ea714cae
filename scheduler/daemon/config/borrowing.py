"""Contradictions between the keys of money that is borrowed from another daemon, or lent to others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from models import toml_lines

if TYPE_CHECKING:
    from scheduler.daemon.config.config import Config

_NEED_FROM = ("from_name", "from_token_env", "from_ca_file", "from_client_certificate", "from_client_key")


def borrowing(config: Config) -> Iterator[tuple[toml_lines.KeyPath, str]]:
    """Yields the path of each contradiction, and a sentence about it."""
    spend = config.spend
    if not spend.lender:
        for key in _NEED_FROM:
            if getattr(spend, key):
                yield ("spend", key), f"`{key}` in [spend] needs `from`, the URL of the daemon to borrow from; add it"
    else:
        yield from _borrower(config)
    for index, token in enumerate(config.tokens):
        if "spend" in token.scopes and (lacks := _lends_not(config)):
            yield ("token", index, "scopes"), f"token {token.name} has the scope spend, but {lacks}"


def _borrower(config: Config) -> Iterator[tuple[toml_lines.KeyPath, str]]:
    spend = config.spend
    if config.function is None:
        yield ("spend", "from"), "`from` in [spend] has no use without functions; add a [function] table, or remove it"
    for key in ("from_ca_file", "from_client_certificate"):
        if getattr(spend, key) and not spend.lender.startswith("https://"):
            yield ("spend", key), f"`{key}` in [spend] is for a daemon with https; correct `from`, or remove it"
    if spend.from_client_key and not spend.from_client_certificate:
        yield (
            ("spend", "from_client_key"),
            "`from_client_key` in [spend] needs a `from_client_certificate`; add one, or remove it",
        )
    try:
        host, port = urlsplit(spend.lender).hostname, urlsplit(spend.lender).port
    except ValueError:
        return  # said of the URL itself
    if port == config.daemon.port and port and host in (config.daemon.host, "localhost", "127.0.0.1"):
        yield (
            ("spend", "from"),
            "`from` in [spend] is this daemon itself; name the daemon that has the caps, or remove it there",
        )


def _lends_not(config: Config) -> str:
    """Returns why a daemon lends nothing, and what to do; empty: it does."""
    if config.spend.lender:
        return f"this daemon borrows itself; let borrowers name {config.spend.lender.rstrip('/')}"
    if config.spend.per_hour is None and config.spend.per_day is None:
        return "[spend] has no cap to lend from; set `per_hour` or `per_day`"
    if not config.daemon.state:
        return "there is no ledger to lend from; name a folder in `state` of [daemon]"
    return ""
