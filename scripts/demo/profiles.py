"""Profiles of edge and function: shipped ones for emulation, measured ones for the speed of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scripts.demo.configuration import KEY_ID_VARIABLE, KEY_SECRET_VARIABLE, Places, key_variables
from scripts.demo.processes import Processes
from scripts.demo.settings import FUNCTION, MODEL, Settings

_EDGE_BATCHES = "1,2,4,8,16,32,64"
_FUNCTION_BATCHES = "1,2,4,8,16"
_REPETITIONS = "8"
_PICTURES = 64
_LIMIT_S = 180.0


def shipped_places(settings: Settings, *, edge_url: str, function_endpoint: str) -> Places:
    """Returns the places with the shipped profiles that edge and functions emulate."""
    return Places(edge_url, function_endpoint, settings.emulate or "", settings.function_emulate or "")


def measured_places(settings: Settings, processes: Processes, *, edge_url: str, function_endpoint: str) -> Places:
    """Measures edge and function, one after the other, and returns the places with the measured profiles.

    Raises:
        DemoError: a measurement failed.
    """
    folder = settings.out.resolve() / "profiles"
    folder.mkdir(parents=True, exist_ok=True)
    edge, function = folder / "edge.json", folder / "function.json"
    common = _common(settings.out / "pictures")
    where = ("--url", edge_url, "--batches", _EDGE_BATCHES, "--out", str(edge))
    _measure(processes, "profile-edge", ("edge", *where, *common))
    where = ("--function", FUNCTION, "--endpoint", function_endpoint, "--protocol", "http")
    keys = ("--access-key-id-env", KEY_ID_VARIABLE, "--access-key-secret-env", KEY_SECRET_VARIABLE)
    what = ("--batches", _FUNCTION_BATCHES, "--out", str(function))
    _measure(processes, "profile-function", ("function", *where, *keys, *what, *common))
    return Places(edge_url, function_endpoint, str(edge), str(function))


def _common(pictures: Path) -> Sequence[str]:
    payload = (str(path) for path in sorted(pictures.iterdir())[:_PICTURES])
    return ("--model", MODEL, "--repetitions", _REPETITIONS, "--payload", *payload)


def _measure(processes: Processes, name: str, arguments: Sequence[str]) -> None:
    started = processes.start(name, ["scheduler.cli", "profile", *arguments], **key_variables())
    started.wait_to_end(limit_s=_LIMIT_S)
