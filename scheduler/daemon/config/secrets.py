"""Secrets by the name of what holds them: an environment variable, or a credential that systemd passes."""

from __future__ import annotations

from collections.abc import Mapping

from scheduler.systemd import credential


def secret_of(name: str, environ: Mapping[str, str]) -> str:
    """Returns the secret in a variable, or else in systemd's credential of that name; empty where there is none.

    >>> secret_of("TOKEN", {"TOKEN": "x"}), secret_of("TOKEN", {}), secret_of("", {})
    ('x', '', '')
    """
    return (environ.get(name, "") if name else "") or credential(name, environ)
