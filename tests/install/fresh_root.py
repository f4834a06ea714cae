"""A fresh Debian root made by debootstrap, in which commands run by chroot, and units without an init."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT_S = 600
MIRROR = os.environ.get("EDGEBURST_DEBIAN", "http://deb.debian.org/debian")
SUITE = "bookworm"
CHROOT = shutil.which("chroot", path="/usr/sbin:/usr/bin:/sbin:/bin") or "chroot"
TYPED = pytest.StashKey[list[str]]()
"""The commands that a test typed."""
USER_ID = 61184
"""The first that systemd gives to DynamicUser=."""


@dataclass
class FreshRoot:
    """The root, and the processes that its units stand for."""

    path: Path
    environ: Mapping[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command of the shell as root, in the source tree where that is there."""
        words = f"cd /root/edgeburst 2>/dev/null || cd /root; {command}"
        done = subprocess.run(
            [CHROOT, str(self.path), "/bin/sh", "-c", words],
            env=dict(self.environ),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def begin(self, command: str) -> None:
        """Runs a command beside the test, until its end."""
        words = f"cd /root/edgeburst; exec {command}"
        self._start([CHROOT, str(self.path), "/bin/sh", "-c", words], self.environ, command)

    def start_unit(self, name: str) -> None:
        """Runs ExecStart of an installed service as systemd would: its user, credentials, folders and environment."""
        text = "\n".join(path.read_text() for path in self._texts(name))
        [command] = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
        environ = {"PATH": "/usr/bin:/bin", "HOME": f"/var/lib/{name}", "RUNTIME_DIRECTORY": f"/run/{name}"}
        for line in re.findall(r'^Environment="?([^"\n]*)"?$', text, re.MULTILINE):
            environ.update([line.split("=", 1)])
        for file in re.findall(r"^EnvironmentFile=-?(.*)$", text, re.MULTILINE):
            environ.update(_assignments(self.path / file.lstrip("/")))
        folder = f"/run/credentials/{name}"
        for key, source in re.findall(r"^LoadCredential=([^:]*):(.*)$", text, re.MULTILINE):
            self._own(folder)
            copy = self.path / folder.lstrip("/") / key
            shutil.copy(self.path / source.lstrip("/"), copy)
            os.chown(copy, USER_ID, USER_ID)
            environ["CREDENTIALS_DIRECTORY"] = folder
        for made in (f"/var/lib/{name}", f"/run/{name}", f"/var/log/{name}"):
            self._own(made)
        for key in environ:
            command = command.replace(f"${key}", environ[key])
        chroot = [CHROOT, f"--userspec={USER_ID}:{USER_ID}", str(self.path)]
        self._start([*chroot, *shlex.split(command)], environ, name)

    def _texts(self, name: str) -> Iterator[Path]:
        units = self.path / "etc/systemd/system"
        yield units / f"{name}.service"
        yield from sorted((units / f"{name}.service.d").glob("*.conf"))

    def _own(self, folder: str) -> None:
        path = self.path / folder.lstrip("/")
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, USER_ID, USER_ID)

    def _start(self, command: list[str], environ: Mapping[str, str], what: str) -> None:
        log = (self.path / "root" / f"{shlex.split(what)[0].rsplit('/', 1)[-1]}.log").open("wb")
        self.processes.append(subprocess.Popen(command, env=dict(environ), stdout=log, stderr=log))
        log.close()

    def logs(self) -> str:
        """Returns what the processes wrote."""
        return "\n".join(f"{path.name}:\n{path.read_text()}" for path in (self.path / "root").glob("*.log"))

    def until_answered(self, url: str) -> None:
        """Waits until a server answers with 200."""
        end_s = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(url, timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                assert time.monotonic() < end_s, f"{url} does not answer:\n{self.logs()}"
                time.sleep(0.2)


def _assignments(path: Path) -> Mapping[str, str]:
    lines = path.read_text().splitlines() if path.exists() else []
    pairs = (line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {key: value.strip('"') for key, value in pairs}


@contextmanager
def fresh_root(folder: Path) -> Iterator[FreshRoot]:
    """Makes the root, hands it over, and takes it away with all that runs in it; skips where it cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("the installer is tried as root only")
    if shutil.which("debootstrap") is None:
        pytest.skip("there is no debootstrap: apt-get install debootstrap")
    path = folder / "root"
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, str(path), MIRROR],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip(f"debootstrap makes no root here: {(made.stdout + made.stderr).strip().splitlines()[-1]}")
    root = FreshRoot(path, _environment())
    with ExitStack() as stack:
        for source in _package_folders():
            _mounted(stack, ["--bind", str(source)], path / str(source).lstrip("/"))
        _mounted(stack, ["-t", "proc", "proc"], path / "proc")
        _copy_settings(path)
        try:
            yield root
        finally:
            for process in root.processes:
                process.terminate()
            for process in root.processes:
                try:
                    process.wait(timeout=45)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _mounted(stack: ExitStack, what: list[str], at: Path) -> None:
    at.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *what, str(at)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    stack.callback(subprocess.run, ["umount", "--lazy", str(at)], check=False)


def _environment() -> Mapping[str, str]:
    """How this host reaches packages, and nothing else of its environment."""
    kept = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy") or name[:4] == "PIP_"}
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {**kept, "PATH": path, "HOME": "/root", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}


def _package_folders() -> list[Path]:
    """Folders of this host that pip takes packages from."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    named = {Path(found) for found in re.findall(r"(?:file://|')(/[^\s']+)", listed)}
    roots = {path.parent if path.name == "simple" else path for path in named if path.is_dir()}
    return sorted(roots)


def _copy_settings(path: Path) -> None:
    for name in ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt"):
        if Path(name).is_file():
            (path / name.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, path / name.lstrip("/"))
    for name in ("/etc/xdg/pip",):
        if Path(name).is_dir():
            shutil.copytree(name, path / name.lstrip("/"), dirs_exist_ok=True)
