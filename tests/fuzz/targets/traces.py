"""Traces, rates, arrival processes and scenarios. First byte: which of them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from fuzz import scratch
from fuzz.mutators import of_json, of_lines
from fuzz.target import Target, one_sentence

from scheduler import workloads
from scheduler.planner.catalogue.json_fields import PlanInputError
from scheduler.planner.queueing.map_process import MarkovianArrivals
from scheduler.planning.applications import application_from_gaps, read_applications
from scheduler.simulator.scenario import Scenario, ScenarioError
from scheduler.simulator.scenario_file import read_scenario
from scheduler.workloads import Workload, WorkloadError, markovian, read_gaps, read_map, read_rates

INSTRUMENTED = ("scheduler.workloads", "scheduler.planning.applications", "scheduler.simulator.scenario_file")
LONGEST = 20_000
"""Requests of a workload here; the product allows 20 million, which take longer than a second by their number."""

GAPS, RATES, MAP, SCENARIO, APPLICATIONS, FITTED = range(6)


def check(data: bytes) -> None:
    """Reads a file of one of the kinds, and draws from what it holds."""
    if not data:
        return
    kind, path = data[0] % 6, scratch.written("trace.txt", data[1:])
    allowed, workloads.MAX_REQUESTS = workloads.MAX_REQUESTS, LONGEST
    try:
        _checked(kind, path)
    finally:
        workloads.MAX_REQUESTS = allowed


def _checked(kind: int, path: Path) -> None:
    try:
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            if kind == GAPS:
                _is_sound(read_gaps(path))
            elif kind == RATES:
                _is_sound(read_rates(path, unit_s=0.5, rng=np.random.default_rng(1), multiple=1.5))
            elif kind == MAP:
                process = read_map(path)
                assert isinstance(process, MarkovianArrivals)
                _is_sound(markovian(process, rng=np.random.default_rng(1), requests=20))
            elif kind == SCENARIO:
                read_scenario(path, Scenario())
            elif kind == APPLICATIONS:
                read_applications(path)
    except (WorkloadError, ScenarioError, PlanInputError) as error:
        one_sentence(error)
    if kind == FITTED:
        try:
            application_from_gaps(path, slo_s=1.0, percentile=0.99)
        except (WorkloadError, PlanInputError) as error:
            one_sentence(error)


def _is_sound(workload: Workload) -> None:
    times_s = workload.times_s
    assert np.isfinite(times_s).all()
    assert np.isfinite(workload.duration_s)
    assert (np.diff(times_s) >= 0).all()
    assert len(times_s) == 0 or (times_s[0] >= 0 and times_s[-1] <= workload.duration_s * (1 + 1e-9))
    assert workload.mean_rate_rps >= 0


def seeds() -> Iterable[bytes]:
    """Yields one or two of each kind."""
    yield b"\0" + b"0.5\n0.25\n0\n1e-3\n"
    yield b"\1" + b"3 0 2,5\n"
    yield b"\2" + b'{"D0":[[-3.0,1.0],[0.5,-1.5]],"D1":[[2.0,0.0],[0.0,1.0]]}'
    yield b"\2" + b'{"D0":' + b"[" * 1500
    yield b"\3" + (
        b"rate_steps = [[10, 20], [5, 0]]\nbursts = [[3, 1, 50]]\nmax_items = 4\nshapes = [[0.5], [0.5]]\n"
        b'function_concurrency = 3\nchangepoints = "off"\nbandwidth_steps = [[0, 1e6]]\n[spend]\nper_hour = 1.0\n'
        b'[[tenant]]\nname = "a"\nshare = 1.0\n[[class]]\nname = "c"\nslo_s = 1.0\npercentile = 0.9\n'
    )
    yield b"\3" + b"a = " + b"[" * 1500
    yield b"\4" + (
        b'[[app]]\nname = "a"\nslo_s = 1.0\npercentile = 0.9\nrps = 3.0\nsizes = [{ bytes = 10.0, share = 1.0 }]\n'
        b'[[app]]\nname = "b"\nslo_s = 0.5\nrps = 1.0\n'
    )
    yield b"\4" + b"a = " + b"[" * 1500
    yield b"\5" + b"\n".join(str(gap).encode() for gap in np.random.default_rng(2).exponential(0.1, 30).round(4))


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Changes values of JSON, lines of TOML, or words of a trace."""
    kind, content = data[:1] or b"\0", data[1:]
    if kind[0] % 6 == MAP:
        return kind + of_json(content, rng)
    if kind[0] % 6 in (SCENARIO, APPLICATIONS):
        return kind + of_lines(content, rng)
    words = content.split()
    for _ in range(rng.choice((1, 2, 3))):
        word = rng.choice((b"0", b"1e308", b"1e-320", b"19999", b"nan", b"-0.0", b"1_0", b"0x1", b"0.1", b"1e16", b","))
        if words and rng.random() < 0.6:
            words[rng.randrange(len(words))] = word
        else:
            words.insert(rng.randrange(len(words) + 1), word)
    return kind + rng.choice((b" ", b"\n", b",", b"\r\n")).join(words)


TARGET = Target(
    name="traces",
    check=check,
    seeds=seeds,
    instrumented=INSTRUMENTED,
    words=(
        b"1e308",
        b"1e-320",
        b"nan",
        b"inf",
        b"-1",
        b"D0",
        b"D1",
        b"[[",
        b"]]",
        b"\xef\xbb\xbf",
        b"1e999",
        b"[[app]]",
    ),
    longest_bytes=2048,
    mutate=mutated,
)
