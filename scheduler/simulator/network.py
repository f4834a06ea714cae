"""The uplink: a link of varying bandwidth that carries all function traffic, one transfer after the other."""

import math
from bisect import bisect_right
from codecs import BOM_UTF8
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from scheduler.domain.errors import EdgeburstError

MEBIBYTE = 2**20
_COLUMNS = 6


class NetworkError(EdgeburstError):
    """Error: a bandwidth log or a bandwidth step cannot be used."""


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Bandwidth in bytes a second, as a step function of time.

    Attributes:
        starts_s: times at which the steps begin, ascending from 0.
        rates: bytes a second of each step; infinite for a link without limit, 0 for an outage.
        period_s: seconds after which the steps repeat; infinite if the last rate stays.
    """

    starts_s: tuple[float, ...]
    rates: tuple[float, ...]
    period_s: float = math.inf

    def finish_s(self, start_s: float, sent_bytes: float) -> float:
        """Returns the end of a transfer that begins at `start_s`; infinite if it never ends."""
        if len(self.rates) == 1:
            return start_s + seconds_for(sent_bytes, self.rates[0])
        lap = math.floor(start_s / self.period_s) if math.isfinite(self.period_s) else 0
        offset_s = start_s - lap * self.period_s if lap else start_s
        index = bisect_right(self.starts_s, offset_s) - 1
        ends_s = (*self.starts_s[1:], self.period_s)
        while True:
            end_s = offset_s + seconds_for(sent_bytes, self.rates[index])
            if end_s <= ends_s[index]:
                return end_s + (lap * self.period_s if lap else 0.0)
            sent_bytes -= self.rates[index] * (ends_s[index] - offset_s)
            index += 1
            offset_s = ends_s[index - 1]
            if index == len(self.rates):
                index, offset_s, lap = 0, 0.0, lap + 1

    def rate_at(self, at_s: float) -> float:
        """Returns the bandwidth at `at_s`, bytes a second."""
        offset_s = at_s % self.period_s if math.isfinite(self.period_s) else at_s
        return self.rates[bisect_right(self.starts_s, offset_s) - 1]

    def mean_rate(self) -> float:
        """Returns the mean bandwidth over a period, bytes a second; without a period, the bandwidth at time 0."""
        if not math.isfinite(self.period_s):
            return self.rates[0]
        ends_s = (*self.starts_s[1:], self.period_s)
        parts = zip(self.starts_s, ends_s, self.rates, strict=True)
        return sum((end_s - start_s) * rate for start_s, end_s, rate in parts) / self.period_s


def seconds_for(sent_bytes: float, rate: float) -> float:
    """Returns the seconds of a transfer of `sent_bytes` at `rate` bytes a second; infinite at rate 0."""
    if sent_bytes <= 0:
        return 0.0
    return sent_bytes / rate if rate > 0 else math.inf


AMPLE = Bandwidth((0.0,), (math.inf,))


def constant(mbytes_per_s: float) -> Bandwidth:
    """Returns a constant bandwidth; an MB is 2**20 bytes."""
    return steps([(0.0, mbytes_per_s)])


def steps(parts: Sequence[tuple[float, float]]) -> Bandwidth:
    """Returns a bandwidth that changes in steps.

    Args:
        parts: (start in seconds, MB/s) of each step, ascending; the first must start at 0.

    Raises:
        NetworkError: the steps do not ascend from 0, or a bandwidth is negative.
    """
    if not parts or parts[0][0] != 0:
        raise NetworkError("bandwidth steps must begin at 0 s")
    starts_s, rates = [start_s for start_s, _ in parts], [rate * MEBIBYTE for _, rate in parts]
    if any(later <= earlier for earlier, later in zip(starts_s, starts_s[1:], strict=False)):
        raise NetworkError("bandwidth steps must ascend in time")
    if not all(rate >= 0 for rate in rates):
        raise NetworkError("a bandwidth must be at least 0 MB/s")
    return Bandwidth(tuple(starts_s), tuple(rates))


def read_log(path: Path) -> Bandwidth:
    """Reads a log of an LTE measurement: the fifth column holds bytes, the sixth the interval in milliseconds.

    The bandwidth repeats after the end of the log.

    Raises:
        NetworkError: the file cannot be read, a row is malformed, or the log holds no byte, so that no transfer
            would ever end.
    """
    try:
        lines = path.read_bytes().removeprefix(BOM_UTF8).decode("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise NetworkError(f"cannot read the bandwidth log {path}: {reason}") from error
    rows = [_row(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows or sum(sent_bytes for sent_bytes, _ in rows) <= 0:
        raise NetworkError(f"the bandwidth log {path} is empty or carries nothing")
    ends_s = list(accumulate(seconds for _, seconds in rows))
    return Bandwidth((0.0, *ends_s[:-1]), tuple(sent / seconds for sent, seconds in rows), ends_s[-1])


def _row(path: Path, number: int, line: str) -> tuple[float, float]:
    words = line.split()
    try:
        sent_bytes, seconds = float(words[4]), float(words[5]) / 1000
    except (IndexError, ValueError) as error:
        raise NetworkError(f"{path}:{number}: a row needs {_COLUMNS} numbers, the last two bytes and ms") from error
    if not (sent_bytes >= 0 and seconds > 0 and math.isfinite(sent_bytes + seconds)):
        raise NetworkError(f"{path}:{number}: bytes must be at least 0 and the interval above 0 ms")
    return sent_bytes, seconds


class Uplink:
    """Simulated uplink: a transfer begins when the one before it has ended."""

    def __init__(self, bandwidth: Bandwidth, *, rtt_s: float) -> None:
        """Creates an idle uplink.

        Args:
            bandwidth: over time.
            rtt_s: round trip to the functions, seconds.
        """
        self.rtt_s = rtt_s
        self._bandwidth = bandwidth
        self._free_at_s = 0.0

    def send(self, sent_bytes: int, *, now_s: float, give_up_at_s: float) -> tuple[float, float]:
        """Occupies the uplink with a transfer and returns its start and end.

        A transfer that has not ended at `give_up_at_s` is aborted then, and its end is infinite.
        """
        start_s = max(now_s, self._free_at_s)
        end_s = self._bandwidth.finish_s(start_s, sent_bytes)
        if end_s <= give_up_at_s:
            self._free_at_s = end_s
            return start_s, end_s
        self._free_at_s = max(self._free_at_s, give_up_at_s)
        return start_s, math.inf
