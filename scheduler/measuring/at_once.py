"""Several batches at once: what an edge server's latency and throughput become with the number that it is given."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from models.profile import AtOnceRow
from scheduler.measuring.errors import MeasuringError
from scheduler.measuring.latency import Call, PartlyMeasured

MOST_AT_ONCE = 64
MOST_CALLS = 1_000_000


def levels(text: str) -> list[int]:
    """Returns numbers of batches at once from a command line: "4" or "1..4" for each up to that, or "1,2,8".

    >>> levels("3"), levels("1..3"), levels("1,2,8")
    ([1, 2, 3], [1, 2, 3], [1, 2, 8])
    """
    first, dots, last = text.partition("..")
    if dots:
        return list(range(int(first), int(last) + 1))
    return [int(word) for word in text.split(",")] if "," in text else list(range(1, int(text) + 1))


levels.__name__ = "number of batches, like 4, 1..4 or 1,2,8"


def check_levels(numbers: Sequence[int]) -> None:
    """Checks numbers of batches at once.

    Raises:
        MeasuringError: they do not rise from at least 1 to at most 64.
    """
    rising = all(less < more for less, more in zip(numbers, numbers[1:], strict=False))
    if not numbers or numbers[0] < 1 or numbers[-1] > MOST_AT_ONCE or not rising:
        given = ",".join(map(str, numbers)) or "none"
        raise MeasuringError(f"--concurrency must be rising whole numbers from 1 to {MOST_AT_ONCE}, not {given}")


def measure_at_once(
    make_call: Callable[[], Call],
    batches: Sequence[int],
    numbers: Sequence[int],
    *,
    repetitions: int,
    warm_up: int,
    on_call: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[AtOnceRow, ...]:
    """Times batches of each size while so many of them are under way all the time.

    Args:
        make_call: returns a caller with a connection of its own.
        batches: rising sizes.
        numbers: of batches at once, rising; 1 is left out, because `measure` times single batches.
        repetitions: number of timed calls of each caller, size and number.
        warm_up: number of calls of each caller before, which are not timed.
        on_call: called after each call, from any thread.
        clock: seconds.

    Returns:
        One row for each number and size. Throughput is the items of all callers over the time until the last is done.

    Raises:
        MeasuringError: a batch was not answered, or the numbers are not valid.
        PartlyMeasured: Ctrl-C was pressed.
    """
    check_levels(numbers)
    if sum(numbers) * len(batches) * (repetitions + warm_up) > MOST_CALLS:
        raise MeasuringError(f"over {MOST_CALLS} calls cannot be measured; ask for fewer repetitions, sizes or numbers")
    several = [number for number in numbers if number > 1]
    callers = [make_call() for _ in range(max(several, default=0))]
    rows: list[AtOnceRow] = []
    with ThreadPoolExecutor(max_workers=max(len(callers), 1)) as pool:
        for number in several:
            for items in batches:
                begun = threading.Barrier(number + 1)

                def calls(call: Call, items: int = items, begun: threading.Barrier = begun) -> list[float]:
                    try:
                        for _ in range(warm_up):
                            call(items)
                            on_call()
                        begun.wait()
                        seconds = []
                        for _ in range(repetitions):
                            if begun.broken:
                                raise threading.BrokenBarrierError
                            seconds.append(call(items))
                            on_call()
                        return seconds
                    except BaseException:
                        begun.abort()
                        raise

                try:
                    running = [pool.submit(calls, call) for call in callers[:number]]
                    started_s = clock() if _all_have_begun(begun) else math.nan
                    samples_s = _all_samples([future.exception() or future.result() for future in running])
                except KeyboardInterrupt:
                    # At its end, the pool waits for its threads.
                    begun.abort()
                    raise PartlyMeasured((), rows) from None
                except BaseException:
                    begun.abort()
                    raise
                rows.append(_row(number, items, samples_s, lasted_s=clock() - started_s))
    return tuple(rows)


def _all_have_begun(begun: threading.Barrier) -> bool:
    """Waits for all callers; returns False where one of them has failed before."""
    try:
        begun.wait()
    except threading.BrokenBarrierError:
        return False
    return True


def _all_samples(ended: Sequence[BaseException | list[float]]) -> list[float]:
    """Returns the samples of all callers; raises the error of one that failed, where any did."""
    errors = [end for end in ended if isinstance(end, BaseException)]
    # The others failed because they did not wait for it any longer.
    for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    return [seconds for end in ended if isinstance(end, list) for seconds in end]


def _row(number: int, items: int, samples_s: Sequence[float], *, lasted_s: float) -> AtOnceRow:
    p50_s, p95_s = (float(value) for value in np.quantile(samples_s, [0.5, 0.95]))
    if not lasted_s > 0 or p50_s <= 0:
        raise MeasuringError(f"{number} batches of {items} at once took {lasted_s} s, which is not possible")
    return AtOnceRow(
        parallel=number,
        batch=items,
        p50_s=p50_s,
        p95_s=max(p95_s, p50_s),
        items_per_s=items * len(samples_s) / lasted_s,
        samples=len(samples_s),
    )
