"""Looks at the client host: limits, proxies, state folder, unit, a running daemon."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import resource
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import requests

from scheduler.daemon.admin_socket import ask, places
from scheduler.daemon.asking import daemon_url
from scheduler.daemon.config.config import Config
from scheduler.doctor.facts import HostFacts, StateFacts, UnitFacts
from scheduler.domain.errors import EdgeburstError
from scheduler.fc_client import proxy_variable

UNIT = Path("/etc/systemd/system/edgeburst.service")
_ASK_LIMIT_S = 2.0


def host_facts(config: Config, environ: Mapping[str, str], *, unit: Path, host: str) -> HostFacts:
    """Returns the facts of this host.

    Args:
        config: the daemon's configuration.
        environ: the environment.
        unit: the unit of systemd, which need not be there.
        host: of the functions; empty: there are none.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    folder = config.state_folder()
    return HostFacts(
        version=version(),
        python=platform.python_version(),
        # The daemon raises its own limit as far as it may.
        open_files=2**20 if hard == resource.RLIM_INFINITY else hard,
        proxy=proxy_variable(host) if host else "",
        state=None if folder is None else state_facts(folder),
        unit=unit_facts(unit),
        daemon=_daemon(config, environ),
    )


def version() -> str:
    """Returns the version of this program, as an edge server says its own."""
    try:
        return importlib.metadata.version("edgeburst")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def state_facts(folder: Path) -> StateFacts:
    """Returns whether this user can write into a folder, by writing a file that has no name there."""
    there = folder.absolute()
    try:
        # Not every user may look into a folder above it: that of a unit with a user of its own is closed.
        while not there.exists() and there != there.parent:
            there = there.parent
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x")
    except OSError as error:
        return StateFacts(str(folder.absolute()), error.strerror or str(error), None)
    return StateFacts(str(folder.absolute()), "", _free_bytes(there))


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def unit_facts(path: Path) -> UnitFacts | None:
    """Returns what a unit and its drop-ins say; None where there is none."""
    try:
        texts = [path.read_text(encoding="utf-8", errors="replace")]
        texts += [
            each.read_text(encoding="utf-8", errors="replace") for each in sorted(Path(f"{path}.d").glob("*.conf"))
        ]
    except OSError:
        return None
    values: dict[str, list[str]] = {}
    for line in "\n".join(texts).splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            # An empty value clears a list.
            values[key.strip()] = [*values.get(key.strip(), []), value.strip()] if value.strip() else []
    words = _words((values.get("ExecStart") or [""])[-1])
    program = words[0] if words else ""
    named = [after for word, after in zip(words, words[1:], strict=False) if word == "--config"]
    folders = [f"/var/lib/{name}" for each in values.get("StateDirectory", []) for name in each.split()]
    folders += [name.lstrip("-+") for each in values.get("ReadWritePaths", []) for name in each.split()]
    files = (values.get("LimitNOFILE") or [""])[-1].partition(":")[2] or (values.get("LimitNOFILE") or [""])[-1]
    return UnitFacts(
        path=str(path),
        open_files=int(files) if re.fullmatch(r"[0-9]+", files) else None,
        state_folders=tuple(folders),
        program=program,
        program_is_there=bool(program) and Path(program).exists(),
        config=named[0] if named else "",
        confined=(values.get("ProtectSystem") or [""])[-1] == "strict",
    )


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command.lstrip("-@:+!"))
    except ValueError:
        return command.split()


def _daemon(config: Config, environ: Mapping[str, str]) -> str:
    """Returns what a daemon with this configuration says of itself; empty where none answers."""
    for path in places(config, environ):
        try:
            status, _ = ask(path, "/v2/health/ready")
        except EdgeburstError:
            continue
        return _said(f"over {path}", status)
    try:
        url = daemon_url(config)
        with requests.Session() as session:
            session.trust_env = False
            response = session.get(f"{url}/v2/health/ready", timeout=_ASK_LIMIT_S, verify=False)
    except (EdgeburstError, requests.RequestException):
        return ""
    return _said(f"at {url}", response.status_code)


def _said(where: str, status: int) -> str:
    return f"a daemon answers {where}, and is {'ready' if status == 200 else f'not ready ({status})'}"
