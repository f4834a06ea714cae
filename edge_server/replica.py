"""One of several servers behind an address that others keep, such as Ray Serve: its options, and how many there are."""

from __future__ import annotations

import logging
import shlex
import threading
import time
from collections.abc import Callable

from edge_server.errors import StartupError
from edge_server.settings import Settings, parse_arguments

_log = logging.getLogger("edge_server")
_COUNT_S = 1.0
"""How often a replica asks how many there are."""


class Replicas:
    """How many replicas there are, as was last seen; at least this one.

    Args:
        running: asks for the number of replicas that run.
    """

    def __init__(self, running: Callable[[], int]) -> None:
        """Takes this one for the only one; `ask` or `watch` finds the others."""
        self._running = running
        self._count = 1
        self._fails = False

    def count(self) -> int:
        """Returns the number."""
        return self._count

    def watch(self) -> None:
        """Asks again and again from now on, on a thread: an answer may take long."""
        threading.Thread(target=self._watch, name="replicas", daemon=True).start()

    def ask(self) -> None:
        """Asks once; where that fails, the number stays, and the log says so once."""
        try:
            self._count = max(1, self._running())
            self._fails = False
        except Exception:  # noqa: BLE001 - the controller may be anything while it starts again
            if not self._fails:
                _log.exception("The number of replicas is not to be had; it stays %d", self._count)
            self._fails = True

    def _watch(self) -> None:
        while True:
            self.ask()
            time.sleep(_COUNT_S)


def settings_of(options: str) -> Settings:
    """Returns the settings of a replica.

    Args:
        options: those of `python -m edge_server`.

    Raises:
        StartupError: one is wrong, or is for Ray to decide; or it is not said which clients may send batches.
        ModelError: there is no such model, or a card cannot be used.
    """
    try:
        given = shlex.split(options)
    except ValueError as error:
        raise StartupError(f"the options {options!r} are wrong: {error}") from None
    try:
        settings = parse_arguments(given)
    except SystemExit:
        raise StartupError(f"the options {options!r} are wrong: see python -m edge_server --help") from None
    if settings.tls is not None:
        raise StartupError("--certificate, --key and --client-ca are not for Ray Serve: put TLS in front of its port")
    if settings.share is not None:
        raise StartupError("--mps-percentage is not for Ray Serve: set num_gpus below 1 in its ray_actor_options")
    if settings.token_env is None and not settings.is_open:
        raise StartupError(
            "Ray decides which machines reach a replica: add --token-env NAME, or --open in a network of your own"
        )
    return settings
