"""Applications from a TOML file, or one application from a trace or an arrival process."""

import importlib
import sys
from pathlib import Path

import numpy as np

from scheduler.planner.catalogue.json_fields import Fields, PlanInputError
from scheduler.planner.functions.problem import Application
from scheduler.planner.functions.size_classes import SizeClass
from scheduler.planner.queueing.map_fit import fit_arrivals
from scheduler.planner.queueing.map_process import ArrivalError, MarkovianArrivals
from scheduler.workloads import WorkloadError, read_gaps, read_map

_MAX_APPLICATIONS = 2000
"""Largest number of applications. Judgement: the work grows with the square of the number, and 200 take up to 3 s."""
_MIN_ARRIVALS = 20
"""Fewest gaps of a trace that a process is fitted to, as in `map_fit`."""


def read_applications(path: Path) -> tuple[Application, ...]:
    """Reads `[[app]]` tables: name, slo_s, percentile, one of rps, map, arrivals, and sizes.

    Args:
        path: the TOML file.

    Raises:
        PlanInputError: the file cannot be read, or a field is wrong; the message names it.
    """
    parser = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        content = parser.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise PlanInputError(f"--apps: cannot read {path}: {error.strerror}; name a file") from error
    except (ValueError, RecursionError) as error:
        raise PlanInputError(f"--apps: {path} is not TOML: {error}") from error
    fields = Fields(content, where="", of=path.name)
    tables = fields.tables("app")
    fields.done()
    if len(tables) > _MAX_APPLICATIONS:
        raise fields.wrong("app", f"occurs {len(tables)} times; at most {_MAX_APPLICATIONS} can be planned at once")
    applications = tuple(_application(table, folder=path.parent) for table in tables)
    seen: set[str] = set()
    for number, application in enumerate(applications):
        if application.name in seen:
            raise fields.wrong(f"app[{number}].name", f"{application.name!r} occurs twice; names must differ")
        seen.add(application.name)
    return applications


def _application(fields: Fields, *, folder: Path) -> Application:
    name = fields.text("name")
    slo_s = fields.number("slo_s", above=0)
    percentile = fields.number("percentile", 0.99, above=0)
    if percentile >= 1:
        raise fields.wrong("percentile", f"must be below 1, not {percentile:g}")
    given = [key for key in fields.known("rps", "map", "arrivals", "sizes") if key != "sizes" and fields.has(key)]
    if len(given) != 1:
        raise fields.wrong("rps", f"or map or arrivals must be given, exactly one, not {len(given)}")
    if given == ["rps"]:
        rate_rps, process = fields.number("rps", above=0), None
    else:
        read = _read_map if given == ["map"] else _read_arrivals
        try:
            rate_rps, process = read(folder / fields.text(given[0]))
        except WorkloadError as error:
            raise fields.wrong(given[0], f"cannot be used: {error}") from error
    sizes = _sizes(fields) if fields.has("sizes") else ()
    if sizes and process is not None:
        raise fields.wrong(
            "sizes", f"go with rps only; {given[0]} has no exact distribution for requests routed by size"
        )
    fields.done()
    return Application(name, slo_s, percentile, rate_rps, process, sizes)


def _sizes(fields: Fields) -> tuple[SizeClass, ...]:
    classes = []
    for part in fields.tables("sizes"):
        classes.append(SizeClass(part.number("bytes", above=0), part.number("share", above=0)))
        part.done()
    classes.sort(key=lambda one: one.size_bytes)
    if len({one.size_bytes for one in classes}) < len(classes):
        raise fields.wrong("sizes", "has the same bytes twice")
    total = sum(one.share for one in classes)
    if abs(total - 1) > 1e-6:
        raise fields.wrong("sizes", f"has shares that sum to {total:g}; they must sum to 1")
    return tuple(SizeClass(one.size_bytes, one.share / total) for one in classes)


def application_from_map(path: Path, *, slo_s: float, percentile: float) -> Application:
    """Returns one application whose arrivals are a Markovian process from a JSON file."""
    rate_rps, process = _read_map(path)
    return Application(path.stem, slo_s, percentile, rate_rps, process)


def application_from_gaps(
    path: Path, *, slo_s: float, percentile: float, from_s: float = 0.0, to_s: float | None = None
) -> Application:
    """Returns one application whose arrivals are fitted to a part of a trace.

    Args:
        path: the `.gaps` file.
        slo_s: the SLO.
        percentile: fraction of the requests that must meet the SLO.
        from_s: start of the part, seconds.
        to_s: end of the part, seconds; None: the end of the trace.
    """
    rate_rps, process = _read_arrivals(path, from_s=from_s, to_s=to_s)
    return Application(path.stem, slo_s, percentile, rate_rps, process)


def _read_map(path: Path) -> tuple[float, MarkovianArrivals]:
    process = read_map(path)
    return process.rate_rps, process


def _read_arrivals(
    path: Path, *, from_s: float = 0.0, to_s: float | None = None
) -> tuple[float, MarkovianArrivals | None]:
    """Returns the rate and the process; None instead of a process if the arrivals look like Poisson."""
    times_s = read_gaps(path).times_s
    end_s = float(times_s[-1]) if to_s is None else to_s
    if not 0 <= from_s < end_s:
        raise PlanInputError(f"--from-s is {from_s:g} and --to-s {end_s:g}; the part must start before it ends")
    times_s = times_s[(times_s >= from_s) & (times_s <= end_s)]
    gaps_s = np.diff(times_s)
    if len(gaps_s) < _MIN_ARRIVALS or not gaps_s.sum() > 0:
        raise PlanInputError(
            f"{path} has {len(times_s)} arrivals from {from_s:g} to {end_s:g} s; a fit needs {_MIN_ARRIVALS + 1}"
        )
    try:
        process = fit_arrivals(gaps_s).process
    except ArrivalError as error:
        raise PlanInputError(f"{path} has gaps that no arrival process fits: {error}; check its numbers") from error
    return process.rate_rps, process if process.phases > 1 else None
