"""Latency by batch size: warm-up, rounds through all sizes, percentiles; independent of the called backend."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from models.profile import AtOnceRow, ProfileRow
from scheduler.measuring.errors import MeasuringError

Call = Callable[[int], float]
"""Calls a backend with a batch of so many items; returns the latency, seconds."""

MAX_CALLS = 1_000_000


class PartlyMeasured(KeyboardInterrupt):
    """Interrupt: Ctrl-C has ended a measurement.

    Attributes:
        rows: of the sizes with at least one timed call.
        at_once: of the numbers and sizes that had been measured whole with several batches at once.
    """

    def __init__(self, rows: Sequence[ProfileRow], at_once: Sequence[AtOnceRow] = ()) -> None:
        super().__init__()
        self.rows = tuple(rows)
        self.at_once = tuple(at_once)


def measure(
    call: Call,
    batches: Sequence[int],
    *,
    repetitions: int,
    warm_up: int,
    on_call: Callable[[], None] = lambda: None,
) -> tuple[ProfileRow, ...]:
    """Times batches of each size.

    Each round measures all sizes, so that a drift during the measurement (heat, clocks, other load) affects them alike.

    Args:
        call: calls the backend with one batch.
        batches: rising sizes from 1; at least two, because a latency model has two coefficients.
        repetitions: number of timed calls of each size.
        warm_up: number of calls of each size before, which are not timed.
        on_call: called after each call.

    Returns:
        One row for each size. Throughput is that of successive batches: items divided by the mean latency.

    Raises:
        MeasuringError: the sizes or numbers are not valid, or a latency is not positive.
        PartlyMeasured: Ctrl-C was pressed.

    >>> rows = measure(lambda items: 0.04 + 0.01 * items, [1, 4], repetitions=3, warm_up=0)
    >>> [(row.batch, round(row.p50_s, 3), row.samples) for row in rows]
    [(1, 0.05, 3), (4, 0.08, 3)]
    """
    check_batches(batches)
    _check_calls(len(batches), repetitions=repetitions, warm_up=warm_up)
    samples_s: dict[int, list[float]] = {items: [] for items in batches}
    try:
        for items in batches:
            for _ in range(warm_up):
                _timed(call, items, on_call)
        for _ in range(repetitions):
            for items in batches:
                samples_s[items].append(_timed(call, items, on_call))
    except KeyboardInterrupt:
        raise PartlyMeasured([_row(items, seconds) for items, seconds in samples_s.items() if seconds]) from None
    return tuple(_row(items, seconds) for items, seconds in samples_s.items())


def check_batches(batches: Sequence[int]) -> None:
    """Checks that a latency model can be fitted to batch sizes.

    Raises:
        MeasuringError: there are fewer than two sizes, one is below 1, or they do not rise.
    """
    rising = all(smaller < larger for smaller, larger in zip(batches, batches[1:], strict=False))
    if len(batches) < 2 or batches[0] < 1 or not rising:
        given = ",".join(map(str, batches)) or "none"
        raise MeasuringError(f"batch sizes must be two or more rising whole numbers from 1, like 1,2,4,8, not {given}")


def _check_calls(sizes: int, *, repetitions: int, warm_up: int) -> None:
    if repetitions < 1 or warm_up < 0 or sizes * (repetitions + warm_up) > MAX_CALLS:
        raise MeasuringError(
            f"{repetitions} repetitions and {warm_up} warm-up calls of {sizes} batch sizes cannot be measured; ask for"
            f" at least one repetition, no negative number, and at most {MAX_CALLS} calls in all"
        )


def _timed(call: Call, items: int, on_call: Callable[[], None]) -> float:
    seconds = call(items)
    if not math.isfinite(seconds) or seconds <= 0:
        raise MeasuringError(
            f"the latency of a batch of {items} is {seconds} s, which is not possible; check the server's clock and its"
            " `service_s`"
        )
    on_call()
    return seconds


def _row(items: int, samples_s: Sequence[float]) -> ProfileRow:
    p50_s, p95_s, p99_s = (float(value) for value in np.quantile(samples_s, [0.5, 0.95, 0.99]))
    return ProfileRow(
        batch=items,
        p50_s=p50_s,
        # Interpolation between equal samples may round to a smaller value.
        p95_s=max(p95_s, p50_s),
        items_per_s=items * len(samples_s) / math.fsum(samples_s),
        samples=len(samples_s),
        p99_s=max(p99_s, p95_s, p50_s),
    )
