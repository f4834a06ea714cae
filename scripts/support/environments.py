"""Environments of their own for the servers of others, whose releases would not suit ours; each is made once."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scheduler.domain.errors import EdgeburstError

_PINS = Path(__file__).resolve().parents[1] / "requirements"
_BUILD = _PINS / "build.txt"
_LIMIT_S = 900.0
_SHOWN = 2000
"""Characters of pip's output that an error repeats."""


class EnvironmentFailed(EdgeburstError):
    """An environment cannot be made."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What is installed into an environment.

    Attributes:
        name: of the environment.
        packages: those that are asked for, the rest comes with them.
        pins: a file of scripts/requirements with the release of each.
    """

    name: str
    packages: tuple[str, ...]
    pins: str

    @property
    def pins_path(self) -> Path:
        """The file of the releases."""
        return _PINS / self.pins

    def release(self, package: str) -> str:
        """Returns the pinned release of a package.

        >>> Environment("ray", (), "ray.txt").release("ray").count(".")
        2
        """
        for line in self.pins_path.read_text(encoding="utf-8").splitlines():
            name, found, rest = line.partition("==")
            if found and name == package:
                return rest.split()[0]
        raise EnvironmentFailed(f"{self.pins} pins no {package}")


def cache_folder() -> Path:
    """Returns the folder of all such environments, in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeburst" / "environments"


def python_of(environment: Environment) -> Path:
    """Returns the interpreter of an environment, which is made first where it is missing.

    Another release of a package or of Python makes another environment.

    Raises:
        EnvironmentFailed: pip has not succeeded; its last lines say why.
    """
    said = [sys.version, *environment.packages, environment.pins_path.read_text(), _BUILD.read_text()]
    digest = hashlib.sha256("\n".join(said).encode()).hexdigest()[:12]
    folder = cache_folder() / f"{environment.name}-{digest}"
    python, stamp = folder / "bin" / "python", folder / ".installed"
    if not stamp.exists():
        _run([sys.executable, "-m", "venv", "--clear", str(folder)], environment)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--constraint", str(_BUILD), "pip", "setuptools"], environment)
        pinned = str(environment.pins_path)
        which = (
            ["--constraint", pinned, *environment.packages]
            if environment.packages
            else ["--require-hashes", "--requirement", pinned]
        )
        _run([*pip, "--build-constraint", str(_BUILD), *which], environment)
        stamp.touch()
    return python


def _run(command: Sequence[str], environment: Environment) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=True)
    except subprocess.TimeoutExpired:
        raise EnvironmentFailed(f"{environment.name} is not installed within {_LIMIT_S:g} s; try again") from None
    except subprocess.CalledProcessError as error:
        said = f"{error.stdout}{error.stderr}".strip()[-_SHOWN:]
        raise EnvironmentFailed(
            f"{environment.name} cannot be installed for this Python; leave it out or try another: {said}"
        ) from None
