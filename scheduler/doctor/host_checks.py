"""What the facts of the client host mean, and the configuration's own warnings. Pure."""

from __future__ import annotations

import posixpath
from datetime import date

from scheduler.doctor.facts import HostFacts, StateFacts, UnitFacts
from scheduler.doctor.rows import CLIENT, Row, Rows, finding, ok
from scheduler.doctor.wanted import Wanted

LEAST_FILES = 1024
"""Open files that a daemon needs, for connections to all sides. Judgement: what systems give by default."""
LEAST_FREE_BYTES = 64 * 2**20
OLD_SHEET_DAYS = 365
"""Judgement: providers change prices about once a year."""
UNIT_FILES = 65536
"""LimitNOFILE of the shipped unit."""


def host_rows(found: HostFacts, wanted: Wanted, *, host: str, today: date) -> Rows:
    """Yields the rows of the client host.

    Args:
        found: its facts.
        wanted: the configuration's expectations.
        host: of the functions; empty: there are none.
        today: the date.
    """
    yield ok(CLIENT, "versions", f"edgeburst {found.version}, Python {found.python}")
    yield from _configuration(wanted)
    if wanted.sheet:
        yield _sheet(wanted, today)
    yield _open_files(found)
    if found.state is None:
        yield ok(CLIENT, "state", "no state folder is configured")
    else:
        yield _state(found.state, found.unit)
    yield _unit(found.unit, wanted.path)
    if host:
        yield _proxy(found.proxy, host)
    yield ok(CLIENT, "daemon", found.daemon or "no daemon with this configuration runs here")


def _configuration(wanted: Wanted) -> Rows:
    for warning in wanted.warnings:
        yield finding(CLIENT, "configuration", warning)
    if not wanted.warnings:
        yield ok(CLIENT, "configuration", f"{wanted.path} is valid, without warnings")


def _sheet(wanted: Wanted, today: date) -> Row:
    dated = wanted.sheet_date
    days = 0 if dated is None else (today - dated).days
    if days > OLD_SHEET_DAYS:
        return finding(
            CLIENT,
            "prices",
            f"price sheet {wanted.sheet} is of {dated}, {days} days ago; compare it with the provider's list, and name"
            " a sheet with a later date in `price_sheet` of [function]",
        )
    return ok(CLIENT, "prices", f"price sheet {wanted.sheet} is of {dated}")


def _open_files(found: HostFacts) -> Row:
    unit = found.unit
    if unit is not None and unit.open_files is not None:
        if unit.open_files < LEAST_FILES:
            return finding(
                CLIENT,
                "ulimits",
                f"LimitNOFILE in {unit.path} lets the daemon open {unit.open_files} files; set it to {UNIT_FILES}",
            )
        return ok(CLIENT, "ulimits", f"the unit lets the daemon open {unit.open_files} files")
    if found.open_files < LEAST_FILES:
        return finding(
            CLIENT,
            "ulimits",
            f"the limit of open files (nofile) is {found.open_files} here, too low for the connections of clients; run"
            f" `ulimit -n {UNIT_FILES}` before `edgeburst serve`, or start it by its unit",
        )
    return ok(CLIENT, "ulimits", f"{found.open_files} files may be open")


def _state(state: StateFacts, unit: UnitFacts | None) -> Row:
    if unit is not None and unit.confined and not any(_within(state.folder, root) for root in unit.state_folders):
        return finding(
            CLIENT,
            "state",
            f"{unit.path} leaves the state folder {state.folder} read-only; use {unit.state_folders[0]} as `state` in"
            f" [daemon], or add ReadWritePaths={state.folder} (systemctl edit)"
            if unit.state_folders
            else f"{unit.path} leaves the state folder {state.folder} read-only; add StateDirectory=edgeburst to it",
        )
    if state.problem and unit is not None and any(_within(state.folder, root) for root in unit.state_folders):
        return ok(CLIENT, "state", f"{state.folder} is made writable for the daemon's user by {unit.path}")
    if state.problem:
        return finding(
            CLIENT,
            "state",
            f"the state folder {state.folder} cannot be written ({state.problem}); make it writable for the daemon's"
            " user, or name another in `state` of [daemon]",
        )
    if state.free_bytes is not None and state.free_bytes < LEAST_FREE_BYTES:
        return finding(
            CLIENT,
            "state",
            f"the disk of the state folder {state.folder} has {state.free_bytes // 2**20} MB left; make room on it",
        )
    return ok(CLIENT, "state", f"{state.folder} can be written")


def _within(folder: str, root: str) -> bool:
    return posixpath.normpath(folder) == root or posixpath.normpath(folder).startswith(root.rstrip("/") + "/")


def _unit(unit: UnitFacts | None, config: str) -> Row:
    if unit is None:
        return ok(CLIENT, "unit", "no unit of systemd is installed")
    if not unit.program_is_there:
        return finding(
            CLIENT,
            "unit",
            f"{unit.path} starts {unit.program or 'nothing'}, which is not there; run scripts/install.sh client, or"
            " correct ExecStart",
        )
    if unit.config and posixpath.normpath(unit.config) != posixpath.normpath(config):
        return finding(
            CLIENT,
            "unit",
            f"{unit.path} starts the daemon with {unit.config}, not with {config}; check that file, or install this"
            " one there",
        )
    return ok(CLIENT, "unit", f"{unit.path} starts {unit.program} with this configuration")


def _proxy(variable: str, host: str) -> Row:
    if variable:
        return finding(
            CLIENT,
            "proxy",
            f"calls of functions go through the proxy in {variable}, which adds its time to every batch and may refuse"
            f" them; unset {variable} for the daemon, or add {host} to NO_PROXY",
        )
    return ok(CLIENT, "proxy", f"no proxy is between this host and {host}")
