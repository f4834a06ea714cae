"""From measured rows to a profile: the fitted latency model, and the provenance of both."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from models.latency_fit import fit_latency
from models.profile import AtOnceRow, Profile, ProfileError, ProfileRow, save_profile
from scheduler.measuring import board
from scheduler.measuring.errors import MeasuringError

MAX_DEFAULT_BATCH = 64
AT_ONCE_COLUMNS = ("at once", "batch", "p50 ms", "p95 ms", "items/s")
COLUMNS = ("batch", "p50 ms", "p95 ms", "p99 ms", "items/s", "model ms", "model off by")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The provenance of a measurement.

    Attributes:
        name: name of the profile.
        backend: "edge" or "function".
        model: name of the neural network.
        device: the measured device.
        source: the program that measured, and how.
        note: limits of the measurement.
        environment: clocks, power mode and the like, as texts.
    """

    name: str
    backend: str
    model: str
    device: str
    source: str
    note: str
    environment: Mapping[str, str] = field(default_factory=dict)


def default_batches(parameters: Mapping[str, Any]) -> list[int]:
    """Returns 1, 2, 4, ... up to the largest batch that a server accepts, and that size.

    >>> default_batches({"max_batch": 24})
    [1, 2, 4, 8, 16, 24]
    """
    largest = parameters.get("max_batch")
    if type(largest) is not int or largest < 2:
        largest = MAX_DEFAULT_BATCH
    powers = [2**exponent for exponent in range(10) if 2**exponent < min(largest, MAX_DEFAULT_BATCH)]
    return [*powers, min(largest, MAX_DEFAULT_BATCH)]


def edge_provenance(url: str, model: str, *, name: str, device: str, parameters: Mapping[str, Any]) -> Provenance:
    """Returns the provenance of a measurement of an edge server.

    Args:
        url: URL of the server. This machine's clocks and board are read only if the server is on this machine.
        model: name of the model.
        name: name of the profile; if empty, it is made from the model's.
        device: the user's description of the device; if empty, the board's name.
        parameters: the server's own facts (device, weights, emulated).
    """
    facts = {key: str(parameters[key]) for key in ("device", "weights", "emulated") if parameters.get(key)}
    if on_this_machine(url):
        facts.update(board.environment())
    else:
        facts["clocks"] = "not read: the server is on another machine; run scripts/bench_edge.py there"
    notes = ["Measured without pauses between batches, so clocks stayed high; a batch after a pause may take longer."]
    if emulated := parameters.get("emulated"):
        notes.insert(0, f"Emulated: the server delayed its answers to match the profile {emulated}.")
    if parameters.get("weights") == "random":
        notes.append("The weights were random, so only the times are meaningful.")
    machine = facts.get("board") or facts.get("cpu") or f"the server at {urlsplit(url).netloc}"
    return Provenance(
        name=name or f"edge-{model}",
        backend="edge",
        model=model,
        device=device or (f"{emulated}, emulated on {machine}" if emulated else machine),
        source=f"edgeburst profile: round trips to {urlsplit(url).netloc}, as a client sees them",
        note=" ".join(notes),
        environment=facts,
    )


def on_this_machine(url: str) -> bool:
    """Returns whether the host of a URL is the loopback."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def make_profile(rows: Sequence[ProfileRow], provenance: Provenance, at_once: Sequence[AtOnceRow] = ()) -> Profile:
    """Fits the latency model and builds the profile.

    Raises:
        MeasuringError: no latency model can be fitted to the rows.
    """
    try:
        latency = fit_latency(rows)
        return Profile(
            name=provenance.name,
            backend=provenance.backend,
            model=provenance.model,
            device=provenance.device,
            source=provenance.source,
            date=date.today().isoformat(),
            note=provenance.note,
            rows=tuple(rows),
            alpha_s=latency.alpha_s,
            beta_s=latency.beta_s,
            alpha_stderr_s=latency.alpha_stderr_s,
            beta_stderr_s=latency.beta_stderr_s,
            max_batch=max(row.batch for row in rows),
            environment=provenance.environment,
            at_once=tuple(at_once),
        )
    except ProfileError as error:
        raise MeasuringError(str(error)) from error


def write_profile(profile: Profile, path: Path) -> None:
    """Writes a profile to a file that the daemon can read.

    Raises:
        MeasuringError: the file cannot be written.
    """
    try:
        save_profile(profile, path)
    except ProfileError as error:
        raise MeasuringError(str(error)) from error


def table_rows(profile: Profile) -> list[tuple[str, ...]]:
    """Returns the rows as texts, for the columns COLUMNS."""
    return [_words(profile, row) for row in profile.rows]


def at_once_rows(profile: Profile) -> list[tuple[str, ...]]:
    """Returns the rows of several batches at once as texts, for the columns AT_ONCE_COLUMNS."""
    return [
        (str(row.parallel), str(row.batch), _ms(row.p50_s), _ms(row.p95_s), f"{row.items_per_s:.1f}")
        for row in profile.at_once
    ]


def parallel_sentence(profile: Profile) -> str:
    """Returns how many batches at once suffice, as a sentence; empty where that was not measured."""
    number = profile.parallel()
    if number is None:
        return ""
    what = "one batch at a time is" if number == 1 else f"{number} batches at once are"
    return (
        f"{what} worth sending, one more adds less than half of what one alone answers: parallel = {number} in [edge]"
    )


def _words(profile: Profile, row: ProfileRow) -> tuple[str, ...]:
    model_s = profile.predict_s(row.batch)
    return (
        str(row.batch),
        _ms(row.p50_s),
        _ms(row.p95_s),
        "" if row.p99_s is None else _ms(row.p99_s),
        f"{row.items_per_s:.1f}",
        _ms(model_s),
        f"{model_s / row.p50_s - 1:+.1%}",
    )


def model_sentence(profile: Profile) -> str:
    """Returns the fitted latency model and its standard errors as a sentence."""
    alpha, beta = (
        f"{value_s * 1e3:.3f}" + ("" if error_s is None else f" ± {error_s * 1e3:.3f}")
        for value_s, error_s in (
            (profile.alpha_s, profile.alpha_stderr_s),
            (profile.beta_s, profile.beta_stderr_s),
        )
    )
    return f"latency of b items = ({alpha}) + ({beta}) b ms, for b up to {profile.max_batch}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}"
