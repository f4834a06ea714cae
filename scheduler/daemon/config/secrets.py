"""Secrets by the name of what holds them: an environment variable, or a credential that systemd passes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""The variable in which systemd names the folder of LoadCredential=."""
_MAX_BYTES = 65536


def secret_of(name: str, environ: Mapping[str, str]) -> str:
    """Returns the secret in a variable, or else in systemd's credential of that name; empty where there is none.

    >>> secret_of("TOKEN", {"TOKEN": "x"}), secret_of("TOKEN", {}), secret_of("", {})
    ('x', '', '')
    """
    value = environ.get(name, "") if name else ""
    folder = environ.get(CREDENTIALS, "")
    if value or not name or not folder:
        return value
    try:
        with (Path(folder) / name).open(encoding="utf-8-sig") as file:
            return file.read(_MAX_BYTES).strip()
    except (OSError, ValueError):
        return ""
