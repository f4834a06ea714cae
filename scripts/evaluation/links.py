"""Uplinks of the evaluation: one drawn from a process of this repository, and logs of real ones."""

import math
from pathlib import Path

import numpy as np

from scheduler.simulator.network import MEBIBYTE, Bandwidth, read_log

LOGS = "bandwidth/lte-car-*.log"


def drawn_link(rng: np.random.Generator) -> Bandwidth:
    """Returns the uplink of a moving car for ten minutes in steps of a second; it repeats.

    The logarithm of the bandwidth is autoregressive (median 3.5 MB/s, sigma 0.6, correlation 0.6 from second to
    second). Outages of 2 to 6 s occur every hundred seconds on average. Measurements in cars are similar.
    """
    seconds, sigma, correlation = 600, 0.6, 0.6
    level, rates = 0.0, []
    for shock in rng.normal(0.0, sigma * math.sqrt(1 - correlation**2), seconds).tolist():
        level = correlation * level + shock
        rates.append(3.5 * MEBIBYTE * math.exp(level))
    for start in np.flatnonzero(rng.random(seconds) < 0.01).tolist():
        end = min(seconds, start + int(rng.integers(2, 7)))
        rates[start:end] = [0.0] * (end - start)
    return Bandwidth(tuple(float(second) for second in range(seconds)), tuple(rates), period_s=float(seconds))


def logged_links(folder: Path | None) -> list[tuple[str, Bandwidth]]:
    """Returns name and bandwidth of each log in a folder; none without a folder."""
    return [] if folder is None else [(path.stem, read_log(path)) for path in sorted(folder.glob(LOGS))]
