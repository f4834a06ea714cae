"""Workloads: arrival times, read from traces or drawn from seeded generators, for the simulator and for replay.

A workload is pure data; no function here waits, sends or reads a clock. Every generator takes a
`numpy.random.Generator`, so that equal seeds give equal arrivals.
"""

import json
import math
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scheduler.domain.errors import EdgeburstError
from scheduler.planner.queueing.map_process import ArrivalError, MarkovianArrivals, mmpp2
from scheduler.planner.queueing.map_sampling import ArrivalStream

Seconds = npt.NDArray[np.float64]

MAX_REQUESTS = 20_000_000
"""More would fill the memory of a client host before the first request is sent."""
_LARGEST_NUMBER = 1e9
"""Of a gap in seconds, 30 years, or a count: sums of larger ones say nothing, or are infinite."""
_CHUNK = 4096
_LEAST_TOLD = 8
"""Numbers that rise all the way are taken for times from so many on. Derived: one in 40,000 files of gaps does."""


class WorkloadError(EdgeburstError):
    """Error: a trace or a pattern cannot be used; the message names it and says what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class RateSteps:
    """Rate that a workload was drawn from, constant between changes.

    Attributes:
        starts_s: start of each step, ascending seconds from 0, shape (steps,).
        rates_rps: requests a second in each step, shape (steps,).
    """

    starts_s: Seconds
    rates_rps: Seconds

    def at(self, at_s: float) -> float:
        """Returns the rate at `at_s`, requests a second; after the last change it stays the same."""
        return float(self.rates_rps[max(0, int(np.searchsorted(self.starts_s, at_s, side="right")) - 1)])

    def faster(self, factor: float) -> "RateSteps":
        """Returns the rate of the same arrivals with every gap divided by `factor`."""
        return RateSteps(self.starts_s / factor, self.rates_rps * factor)

    def raised(self, start_s: float, duration_s: float, by_rps: float) -> "RateSteps":
        """Returns the rate with `by_rps` more for a time."""
        starts_s = np.unique([*self.starts_s, start_s, start_s + duration_s])
        within = (starts_s >= start_s) & (starts_s < start_s + duration_s)
        return RateSteps(starts_s, np.array([self.at(at_s) for at_s in starts_s]) + by_rps * within)


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """Workload: arrival times and length.

    Attributes:
        times_s: arrival times, ascending seconds from the start, shape (requests,).
        duration_s: length in seconds, with the idle time after the last arrival.
        rate: the rate that the arrivals were drawn from, phases included; None where it is not known, as of a trace.
    """

    times_s: Seconds
    duration_s: float
    rate: RateSteps | None = None

    @property
    def mean_rate_rps(self) -> float:
        """Mean rate over the whole length, requests a second."""
        return len(self.times_s) / self.duration_s if self.duration_s > 0 else 0.0

    def faster(self, factor: float) -> "Workload":
        """Returns the same arrivals with every gap divided by `factor`."""
        _positive("the rate multiple", factor)
        rate = None if self.rate is None else self.rate.faster(factor)
        return Workload(self.times_s / factor, self.duration_s / factor, rate)

    def first(self, requests: int) -> "Workload":
        """Returns the first `requests` arrivals; the workload ends with the last of them."""
        if requests < 1:
            raise WorkloadError(f"the number of requests must be at least 1, not {requests}")
        if requests >= len(self.times_s):
            return self
        return Workload(self.times_s[:requests], float(self.times_s[requests - 1]), self.rate)

    def until(self, end_s: float) -> "Workload":
        """Returns the arrivals before `end_s`; a shorter workload is returned unchanged."""
        _positive("the duration", end_s)
        if end_s >= self.duration_s:
            return self
        return Workload(self.times_s[self.times_s < end_s], end_s, self.rate)

    def repeated(self, laps: int, *, gap_s: float = 0.0) -> "Workload":
        """Returns the workload repeated `laps` times, with `gap_s` seconds without arrivals between two laps."""
        if laps < 1 or laps * len(self.times_s) > MAX_REQUESTS:
            raise WorkloadError(f"the number of laps must be 1 to {_max_laps(self)}, not {laps}")
        if not math.isfinite(gap_s) or gap_s < 0:
            raise WorkloadError(f"the gap between two laps must be at least 0 s, not {gap_s}")
        lap_s = self.duration_s + gap_s
        times_s = np.concatenate([self.times_s + lap * lap_s for lap in range(laps)])
        return Workload(times_s, laps * lap_s - gap_s)


def _max_laps(workload: Workload) -> int:
    return max(1, MAX_REQUESTS // max(1, len(workload.times_s)))


def read_gaps(path: Path) -> Workload:
    """Reads a `.gaps` trace: gaps between arrivals in seconds, one a line; the first request follows the first gap.

    Raises:
        WorkloadError: the file does not exist or is empty, or a value is no gap; the message names file and position.
    """
    gaps_s = _numbers(path, "a gap")
    if len(gaps_s) >= _LEAST_TOLD and gaps_s[-1] > gaps_s[0] and bool((np.diff(gaps_s) >= 0).all()):
        raise WorkloadError(
            f"the numbers of {path} never fall, as times do and gaps do not; if they are times, give the file to"
            " `edgeburst simulate --trace`, otherwise change their order"
        )
    return Workload(np.cumsum(gaps_s), float(gaps_s.sum()))


def read_rates(path: Path, *, unit_s: float, rng: np.random.Generator, multiple: float = 1.0) -> Workload:
    """Reads a rate file: requests in each time unit, separated by white space or commas.

    Args:
        path: the `.txt` or `.csv` file.
        unit_s: length of a time unit, seconds.
        rng: draws the times within each unit, uniformly, as in a Poisson process with known counts.
        multiple: factor on the counts; fractions are rounded up or down at random.

    Raises:
        WorkloadError: the file does not exist, is empty or holds no request, or a value is no count.
    """
    _positive("the length of a time unit", unit_s)
    _positive("the rate multiple", multiple)
    expected = _numbers(path, "a number of requests") * multiple
    if expected.sum() > MAX_REQUESTS:
        raise WorkloadError(
            f"{path} holds {expected.sum():.3g} requests, above {MAX_REQUESTS}; lower the rate multiple"
        )
    counts = (
        np.floor(expected + rng.random(len(expected))).astype(np.int64) if multiple != 1.0 else expected.astype(int)
    )
    if counts.sum() == 0:
        raise WorkloadError(f"{path} holds no request: every time unit is 0; choose another trace or a higher multiple")
    units = np.repeat(np.arange(len(counts), dtype=np.float64), counts)
    return Workload(np.sort(units + rng.random(len(units))) * unit_s, len(counts) * unit_s)


def _numbers(path: Path, what: str) -> Seconds:
    try:
        words = path.read_bytes().removeprefix(BOM_UTF8).decode("ascii").replace(",", " ").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise WorkloadError(f"cannot read the trace {path}: {reason}") from error
    if not words:
        raise WorkloadError(f"the trace {path} is empty; it must hold at least one number")
    if len(words) > MAX_REQUESTS:
        raise WorkloadError(f"the trace {path} holds {len(words)} numbers, above {MAX_REQUESTS}; split it")
    try:
        values = np.array(words, dtype=np.float64)
    except ValueError:
        values = np.array([_number(word) for word in words])
    wrong = np.flatnonzero(~((values >= 0) & (values <= _LARGEST_NUMBER)))
    if len(wrong):
        word = words[wrong[0]]
        raise WorkloadError(f"value {wrong[0] + 1} of the trace {path} is {word!r}, not {what}; correct or remove it")
    return values


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan


def poisson(
    rate_rps: float, *, rng: np.random.Generator, requests: int | None = None, duration_s: float | None = None
) -> Workload:
    """Draws a Poisson process of `rate_rps` that ends after `requests` or `duration_s`, whichever comes first."""
    _positive("the rate", rate_rps)

    def more(_last: float) -> Seconds:
        return rng.exponential(1 / rate_rps, _CHUNK)

    drawn = _drawn(more, requests=requests, duration_s=duration_s)
    return replace(drawn, rate=RateSteps(np.zeros(1), np.array([rate_rps])))


def _drawn(more: Callable[[float], Seconds], *, requests: int | None, duration_s: float | None) -> Workload:
    """Draws chunks of gaps until there are enough requests or seconds; the end does not change earlier arrivals."""
    if requests is None and duration_s is None:
        raise WorkloadError("a drawn workload does not end; give a number of requests or a duration")
    max_requests = MAX_REQUESTS if requests is None else min(requests, MAX_REQUESTS)
    end_s = math.inf if duration_s is None else _positive("the duration", duration_s)
    chunks, count, last_s = [], 0, 0.0
    while count < max_requests and last_s < end_s:
        chunk = last_s + np.cumsum(more(last_s))
        chunks.append(chunk)
        count, last_s = count + len(chunk), float(chunk[-1])
    if count >= MAX_REQUESTS and requests is None:
        raise WorkloadError(f"the workload has more than {MAX_REQUESTS} requests; lower the rate or the duration")
    times_s = np.concatenate(chunks) if chunks else np.empty(0)
    whole = Workload(times_s, last_s) if requests is None else Workload(times_s, last_s).first(requests)
    if whole.duration_s < end_s:
        return whole
    return whole.until(end_s)


def markovian(
    process: MarkovianArrivals,
    *,
    rng: np.random.Generator,
    requests: int | None = None,
    duration_s: float | None = None,
) -> Workload:
    """Draws from a Markovian arrival process until `requests` or `duration_s`, whichever comes first."""
    stream = ArrivalStream(process, rng)

    def more(_last: float) -> Seconds:
        return stream.gaps_s(_CHUNK)

    drawn = _drawn(more, requests=requests, duration_s=duration_s)
    return replace(drawn, rate=RateSteps(*stream.rates()))


def read_map(path: Path) -> MarkovianArrivals:
    """Reads a Markovian arrival process from JSON: `{"D0": [[...]], "D1": [[...]]}`, rates per second.

    Raises:
        WorkloadError: the file cannot be read or holds no arrival process.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        d0, d1 = (tuple(tuple(float(x) for x in row) for row in content[key]) for key in ("D0", "D1"))
    except OSError as error:
        raise WorkloadError(f"cannot read the arrival process {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise WorkloadError(
            f'{path} is no arrival process: it must be JSON like {{"D0": [[..]], "D1": [[..]]}}'
        ) from error
    try:
        return MarkovianArrivals(d0=d0, d1=d1)
    except ArrivalError as error:
        raise WorkloadError(f"{path} is no arrival process: {error}") from error


def steps(parts: Sequence[tuple[float, float]], *, rng: np.random.Generator) -> Workload:
    """Draws a Poisson process whose rate changes in steps.

    Args:
        parts: (length in seconds, requests a second) of consecutive steps; a rate may be 0.
        rng: the generator.
    """
    pieces, starts_s, start_s = [], [], 0.0
    for duration_s, rate_rps in parts:
        _positive("the duration of a step", duration_s)
        if not math.isfinite(rate_rps) or rate_rps < 0 or rate_rps * duration_s > MAX_REQUESTS:
            raise WorkloadError(f"the rate of a step must be at least 0 and bounded, not {rate_rps}")
        count = int(rng.poisson(rate_rps * duration_s))
        pieces.append(np.sort(rng.random(count)) * duration_s + start_s)
        starts_s.append(start_s)
        start_s += duration_s
    if not pieces:
        return Workload(np.empty(0), 0.0)
    rate = RateSteps(np.array(starts_s), np.array([rate_rps for _, rate_rps in parts], dtype=np.float64))
    return Workload(np.concatenate(pieces), start_s, rate)


def with_bursts(
    workload: Workload, bursts: Sequence[tuple[float, float, float]], *, rng: np.random.Generator
) -> Workload:
    """Returns a workload with additional Poisson arrivals during bursts.

    Args:
        workload: the workload without bursts; its length stays the same, and later arrivals of a burst are dropped.
        bursts: (start in seconds, length in seconds, additional requests a second).
        rng: the generator.
    """
    added, rate = [], workload.rate
    for start_s, duration_s, rate_rps in bursts:
        _positive("the duration of a burst", duration_s)
        if not math.isfinite(rate_rps) or rate_rps < 0 or rate_rps * duration_s > MAX_REQUESTS:
            raise WorkloadError(f"the rate of a burst must be at least 0 and bounded, not {rate_rps}")
        added.append(start_s + duration_s * rng.random(int(rng.poisson(rate_rps * duration_s))))
        rate = None if rate is None else rate.raised(start_s, duration_s, rate_rps)
    times_s = np.sort(np.concatenate([workload.times_s, *added]))
    return Workload(times_s[times_s <= workload.duration_s], workload.duration_s, rate)


def _poisson_pattern(rate_rps: float, duration_s: float, rng: np.random.Generator) -> Workload:
    return poisson(rate_rps, rng=rng, duration_s=duration_s)


def _mmpp_pattern(rate_rps: float, duration_s: float, rng: np.random.Generator) -> Workload:
    """Draws a process with two phases, 10 s and 5 s long on average, at 0.5 and 2 times the mean rate."""
    process = mmpp2(rates_rps=(0.5 * rate_rps, 2.0 * rate_rps), leave_per_s=(0.1, 0.2))
    return markovian(process, rng=rng, duration_s=duration_s)


def _bursty_pattern(rate_rps: float, duration_s: float, rng: np.random.Generator) -> Workload:
    """Draws 0.4 times the mean rate, with bursts of 6.4 times the mean rate at random, a tenth of the time."""
    cycle_s = max(duration_s / max(1, round(duration_s / 20.0)), 1e-6)
    parts: list[tuple[float, float]] = []
    for _ in range(round(duration_s / cycle_s)):
        before_s = 0.9 * cycle_s * (0.02 + 0.96 * float(rng.random()))
        calm_rps, burst_rps = 0.4 * rate_rps, 6.4 * rate_rps
        parts += [(before_s, calm_rps), (0.1 * cycle_s, burst_rps), (0.9 * cycle_s - before_s, calm_rps)]
    return steps(parts, rng=rng)


def _periodic_pattern(rate_rps: float, duration_s: float, rng: np.random.Generator) -> Workload:
    """Draws a sinusoidal rate from 0.1 to 1.9 times the mean, period a minute or the shorter duration, by thinning."""
    period_s = min(60.0, duration_s)
    dense = poisson(1.9 * rate_rps, rng=rng, duration_s=duration_s)
    accept = (1 + 0.9 * np.sin(2 * np.pi * dense.times_s / period_s)) / 1.9
    return Workload(dense.times_s[rng.random(len(dense.times_s)) < accept], duration_s)


def _sporadic_pattern(rate_rps: float, duration_s: float, rng: np.random.Generator) -> Workload:
    """Draws groups of five requests on average (geometric), each within half a second, without arrivals between."""
    clumps = poisson(rate_rps / 5, rng=rng, duration_s=duration_s).times_s
    sizes = rng.geometric(1 / 5, len(clumps))
    times_s = np.repeat(clumps, sizes) + 0.5 * rng.random(int(sizes.sum()))
    return Workload(np.sort(times_s[times_s < duration_s]), duration_s)


PATTERNS: Mapping[str, Callable[[float, float, np.random.Generator], Workload]] = {
    "poisson": _poisson_pattern,
    "mmpp": _mmpp_pattern,
    "bursty": _bursty_pattern,
    "periodic": _periodic_pattern,
    "sporadic": _sporadic_pattern,
}


def pattern(name: str, *, rate_rps: float, duration_s: float, rng: np.random.Generator) -> Workload:
    """Draws a named pattern whose mean rate is `rate_rps`.

    Args:
        name: poisson, mmpp, bursty, periodic or sporadic.
        rate_rps: mean requests a second.
        duration_s: length in seconds.
        rng: the generator.

    Raises:
        WorkloadError: there is no such pattern, or the rate or the duration is not above 0.
    """
    if name not in PATTERNS:
        raise WorkloadError(f"there is no pattern {name!r}; choose one of {', '.join(PATTERNS)}")
    _positive("the rate", rate_rps)
    _positive("the duration", duration_s)
    if rate_rps * duration_s > MAX_REQUESTS:
        raise WorkloadError(f"the pattern would have more than {MAX_REQUESTS} requests; lower the rate or the duration")
    return PATTERNS[name](rate_rps, duration_s, rng)


def _positive(what: str, value: float) -> float:
    if not math.isfinite(value) or value <= 0:
        raise WorkloadError(f"{what} must be above 0, not {value}")
    return value
