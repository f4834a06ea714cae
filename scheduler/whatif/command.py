"""`edgeburst simulate`: workloads that are drawn or described by flags, and traffic that really came."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from scheduler.daemon.config.config import Config, load_config
from scheduler.domain.errors import EdgeburstError
from scheduler.domain.plans import EngineSettings, ServiceClass
from scheduler.plotting import require_plots
from scheduler.recordings.layout import RecordingError
from scheduler.recordings.moments import moment_s
from scheduler.recordings.recorded import read_recorded, within
from scheduler.recordings.tables import Columns
from scheduler.recordings.traces import read_traffic
from scheduler.recordings.traffic import Traffic
from scheduler.simulator import command as simulator_command
from scheduler.simulator.report import write_rows
from scheduler.simulator.scenario import Scenario, SimulatedClass, SimulatedModel
from scheduler.simulator.world import generators
from scheduler.terminal import note
from scheduler.whatif.changes import changed_site, words
from scheduler.whatif.comparison import compared, plot_comparison, print_comparison
from scheduler.whatif.flags import add_flags, given, mark_defaults
from scheduler.whatif.requests import make_requests
from scheduler.whatif.running import Outcome, currency_of, run_site
from scheduler.whatif.site import Site, configured_site

_OTHER_SOURCES = ("arrivals", "rates", "map", "poisson", "clients")
_ONLY_TRAFFIC = (
    *("trace_format", "time_column", "time_unit", "trace_row", "begin", "end", "config", "changed", "per_hour_cny"),
    *("per_day_cny", "tiers", "compare", "plot"),
)
"""Flags that mean something only with traffic that really came."""
_FLAG_OF = {"begin": "--from", "end": "--to"}
_DRAWN_ONLY = ("bound", "limit", "explain", "edge_parallel_learned", "edge_silent", "daemons")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the subcommand `simulate` with its arguments."""
    parser = simulator_command.add_parser(subparsers)
    add_flags(parser)
    mark_defaults(parser)


def run(args: argparse.Namespace) -> int:
    """Runs `simulate` and prints its report; returns the exit status.

    Raises:
        EdgeburstError: a file or a value cannot be used.
    """
    if args.recorded is None and args.trace is None:
        _refuse(args, _ONLY_TRAFFIC, "--recorded or --trace, which give the traffic")
        return simulator_command.run(args)
    _check(args)
    simulator_command.check_flags(args)
    traffic, when = _traffic(args)
    configured, changed = _sites(args, traffic)
    outcome = _run(args, traffic, changed, scale=given(args, "rate_scale"))
    about: dict[str, Any] = {**when, "notes": [*traffic.notes, *changed.notes, *outcome.notes]}
    if args.compare:
        _compare(args, _run(args, traffic, configured), outcome, about)
        _write_rows(args, outcome)
        return 0
    summary = {**about, **outcome.summary}
    if args.json:
        print(json.dumps(summary))
    else:
        _tell(about["notes"])
        simulator_command.print_table({key: _inline(value) for key, value in summary.items() if key != "notes"})
    _write_rows(args, outcome)
    return 0


def _write_rows(args: argparse.Namespace, outcome: Outcome) -> None:
    # After the summary: a file that cannot be written takes nothing from it.
    if args.rows is not None:
        sys.stdout.flush()
        write_rows(outcome.journal, args.rows)


def _check(args: argparse.Namespace) -> None:
    """Checks that the flags go together.

    Raises:
        EdgeburstError: they do not; the sentence names them.
    """
    if args.recorded is not None and args.trace is not None:
        raise EdgeburstError("--recorded and --trace both give the traffic; leave one of them out")
    _refuse_with(args, (*_OTHER_SOURCES, *_DRAWN_ONLY), "traffic that really came")
    if args.recorded is not None:
        _refuse_with(args, ("trace_format", "time_column", "time_unit", "trace_row"), "--recorded")
    if args.config is None:
        _refuse(args, ("changed", "compare", "tiers", "per_hour_cny", "per_day_cny"), "--config, the configuration")
    elif args.scenario is not None:
        raise EdgeburstError("--config and --scenario both describe the site; leave one of them out")
    if args.plot is not None and not args.compare:
        raise EdgeburstError("--plot draws a comparison; add --compare")
    if args.compare and not words(args):
        raise EdgeburstError("--compare needs something that is changed: --slo-s, --changed or another flag")
    if args.plot is not None:
        require_plots("--plot")


def _refuse(args: argparse.Namespace, names: Sequence[str], needed: str) -> None:
    for name in names:
        if given(args, name) is not None:
            raise EdgeburstError(f"{_flag(name)} needs {needed}")


def _refuse_with(args: argparse.Namespace, names: Sequence[str], what: str) -> None:
    for name in names:
        if given(args, name) is not None:
            raise EdgeburstError(f"{_flag(name)} does not go with {what}; leave it out")


def _flag(name: str) -> str:
    return _FLAG_OF.get(name, f"--{name.replace('_', '-')}")


def _traffic(args: argparse.Namespace) -> tuple[Traffic, dict[str, Any]]:
    """Returns the requests between --from and --to, and what they are, for the report."""
    begin_s, end_s = _moment(args.begin, "--from", -np.inf), _moment(args.end, "--to", np.inf)
    if begin_s >= end_s:
        raise EdgeburstError("--from must be earlier than --to; change one of them")
    if args.recorded is not None:
        path, traffic = args.recorded, read_recorded(args.recorded, begin_s=begin_s, end_s=end_s)
    else:
        path, columns = args.trace, Columns(args.time_column, args.time_unit, args.trace_row)
        whole = read_traffic(path, columns=columns, rng=generators(args.seed)[0], format_name=args.trace_format)
        if not whole.dated and (args.begin is not None or args.end is not None):
            raise RecordingError(f"{path} has no dates; {within(whole)}; use --duration-s or --requests")
        traffic = whole.between(begin_s, end_s)
        if not len(traffic):
            raise RecordingError(f"{path} has no request in that time; {within(whole)}")
    if args.duration_s is not None:
        traffic = traffic.between(-np.inf, float(traffic.times_s[0]) + args.duration_s)
    if args.requests is not None:
        traffic = traffic.at(slice(max(1, args.requests)))
    return traffic, {"traffic": f"{path}: {within(traffic)}"}


def _moment(text: str | None, flag: str, absent: float) -> float:
    if text is None:
        return absent
    try:
        at_s, zone = moment_s(text)
    except ValueError:
        raise EdgeburstError(
            f"{flag} must be a date like 2026-11-29T08:00 or seconds since 1970, not {text!r}"
        ) from None
    note(f"{flag} {text} is read as {zone}: {np.datetime64(round(at_s), 's')}Z")
    return at_s


def _sites(args: argparse.Namespace, traffic: Traffic) -> tuple[Site, Site]:
    """Returns the site as configured and as changed."""
    if args.config is None:
        site = _described_site(args, traffic)
        return site, site
    configured = _configured(args, load_config(args.config, os.environ))
    other = configured if args.changed is None else _configured(args, load_config(args.changed, os.environ))
    before, after = currency_of(configured), currency_of(other)
    if args.compare and before and after and before != after:
        raise EdgeburstError(
            f"{args.config} has prices in {before} and {args.changed} in {after}, so their money cannot be compared;"
            " name price sheets of one currency, or leave --compare out"
        )
    return configured, changed_site(other, args)


def _configured(args: argparse.Namespace, config: Config) -> Site:
    return configured_site(config, request_bytes=int(args.request_bytes), seed=args.seed)


def _described_site(args: argparse.Namespace, traffic: Traffic) -> Site:
    """Returns the site that flags and a scenario describe; without models there, those of the traffic."""
    scenario = simulator_command.scenario_of(args)
    return Site(scenario if scenario.models else replace(scenario, models=_named(scenario, traffic)))


def _named(scenario: Scenario, traffic: Traffic) -> tuple[SimulatedModel, ...]:
    (only,) = scenario.served()
    present = [traffic.kinds[index] for index in np.unique(traffic.kind)]
    classes: Mapping[str, set[str]] = {kind.model: set() for kind in present}
    for kind in present:
        classes[kind.model].add(kind.class_name)
    described = only.classes[0].service_class
    return tuple(
        replace(only, name=model or only.name, classes=tuple(_class(described, name) for name in sorted(names)))
        for model, names in sorted(classes.items())
    )


def _class(described: ServiceClass, name: str) -> SimulatedClass:
    return SimulatedClass(replace(described, name=name or described.name))


def _run(args: argparse.Namespace, traffic: Traffic, site: Site, *, scale: float | None = None) -> Outcome:
    settings: EngineSettings = site.engine_settings()
    requests = make_requests(
        traffic,
        settings,
        reserve_s=site.reserve_s,
        request_bytes=int(args.request_bytes),
        rate_scale=1.0 if scale is None else float(scale),
    )
    outcome = run_site(site, requests)
    return replace(outcome, notes=(*requests.notes, *outcome.notes))


def _compare(args: argparse.Namespace, before: Outcome, after: Outcome, about: Mapping[str, Any]) -> None:
    found, change = compared(before, after), words(args)
    if args.json:
        print(json.dumps({**about, "change": change, "currency": before.currency, **found}))
    else:
        _tell(about["notes"])
        print(about["traffic"])
        print_comparison(found, change=change, currency=before.currency)
    # Last: a file that cannot be written costs no figures.
    if args.plot is not None:
        plot_comparison(found, args.plot, change=change, currency=before.currency)


def _tell(notes: Sequence[str]) -> None:
    for sentence in dict.fromkeys(notes):
        note(sentence)


def _inline(value: Any) -> Any:
    """Returns a value that fits in a line: figures of groups as text."""
    if not isinstance(value, dict) or not all(isinstance(part, dict) for part in value.values()):
        return value
    return {
        f"{name}:": ", ".join(f"{key} {_short(part)}" for key, part in each.items()) for name, each in value.items()
    }


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
