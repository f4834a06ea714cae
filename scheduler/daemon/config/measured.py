"""Edge profiles that the daemon measured itself, kept in the state folder: one for each model and server."""

from __future__ import annotations

from pathlib import Path

from models.profile import Profile, ProfileError, load_profile, save_profile
from scheduler.domain.errors import ConfigError
from scheduler.domain.requests import EDGE_NAME

FOLDER = "edge_profiles"
_OF_WHAT = ("identity", "edge")
"""Entries of a profile's environment: the card and files that were measured, and the URL of the edge server."""


def remembered(
    state: Path | None, model: str, *, identity: str | None, edge: str, name: str = EDGE_NAME
) -> Profile | None:
    """Returns the profile that was measured of the same card and files on the same edge; None if there is none.

    Args:
        state: the state folder; None: nothing is remembered.
        model: the model's name.
        identity: of its card and files; None: not known, so that no profile is known to be of them.
        edge: URL of the edge server.
        name: of the edge server.
    """
    if state is None or identity is None:
        return None
    path = _path(state, model, name)
    if not path.is_file():
        return None
    try:
        profile = load_profile(path)
    except ProfileError:
        return None  # It is measured again.
    same = [profile.environment.get(name) for name in _OF_WHAT] == [identity, edge]
    return profile if same and profile.backend == "edge" and profile.model == model else None


def remember(state: Path | None, profile: Profile, name: str = EDGE_NAME) -> None:
    """Keeps the profile of a model on the edge server of that name for `remembered`.

    Raises:
        ConfigError: the file cannot be written; the message names it.
    """
    if state is None or not profile.environment.get("identity"):
        return
    path = _path(state, profile.model, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_profile(profile, path)
    except (OSError, ProfileError) as error:
        raise ConfigError(f"the measured profile of model {profile.model} cannot be kept: {error}") from None


def _path(state: Path, model: str, edge: str) -> Path:
    # A name has no @, so that no two share a file.
    return state / FOLDER / (f"{model}.json" if edge == EDGE_NAME else f"{model}@{edge}.json")
