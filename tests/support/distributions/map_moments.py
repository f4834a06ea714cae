"""Moments of Markovian arrival processes: correlations of gaps, dispersion of counts.

References:
    Moments of counts after Lucantoni, Comm. Stat. Stoch. Models 7 (1991).
"""

import numpy as np
import scipy.linalg

from scheduler.planner.queueing.map_process import MarkovianArrivals
from scheduler.planner.queueing.matrices import Array


def gap_cv2(process: MarkovianArrivals) -> float:
    """Returns the squared coefficient of variation of the gaps; 1 for Poisson."""
    mean_s = 1 / process.rate_rps
    second = 2 * float(process.phase_distribution() @ _to_arrival_s(process)) * mean_s
    return second / mean_s**2 - 1


def lag_correlation(process: MarkovianArrivals, lag: int) -> float:
    """Returns the correlation of two gaps that are `lag` (at least 1) gaps apart."""
    d0, _ = process.matrices()
    first = np.linalg.solve(-d0.T, process.arrival_phase_distribution())
    product = float(first @ np.linalg.matrix_power(process.to_next_arrival(), lag) @ _to_arrival_s(process))
    mean_s = 1 / process.rate_rps
    return (product / mean_s**2 - 1) / gap_cv2(process)


def dispersion_at(process: MarkovianArrivals, window_s: float) -> float:
    """Returns variance over mean of the arrivals counted in `window_s`; 1 for Poisson."""
    d0, d1 = process.matrices()
    deviation, start, end = _deviation(process), process.phase_distribution() @ d1, d1.sum(axis=1)
    decay = np.eye(process.phases) - scipy.linalg.expm((d0 + d1) * window_s)
    settled = start @ deviation @ end
    transient = start @ decay @ deviation @ deviation @ end / window_s
    return 1 + 2 * float(settled - transient) / process.rate_rps


def dispersion_limit(process: MarkovianArrivals) -> float:
    """Returns variance over mean of the arrivals counted in a very long window; 1 for Poisson.

    >>> from scheduler.planner.queueing.map_process import mmpp2
    >>> round(dispersion_limit(mmpp2(rates_rps=(10.0, 50.0), leave_per_s=(1.0, 3.0))), 9)
    8.5
    """
    _, d1 = process.matrices()
    return 1 + 2 * float(process.phase_distribution() @ d1 @ _deviation(process) @ d1.sum(axis=1)) / process.rate_rps


def _to_arrival_s(process: MarkovianArrivals) -> Array:
    """Returns the mean seconds to the next arrival by phase, shape (m,)."""
    d0, _ = process.matrices()
    return np.asarray(np.linalg.solve(-d0, np.ones(process.phases)))


def _deviation(process: MarkovianArrivals) -> Array:
    """Returns the deviation matrix of the phases: the integral of e^(Dt) less its limit, seconds."""
    d0, d1 = process.matrices()
    generator = d0 + d1
    scale = float(max(-generator.diagonal().min(), 0.0)) or 1.0
    limit = np.tile(process.phase_distribution(), (process.phases, 1))
    return np.asarray(np.linalg.inv(scale * limit - generator) - limit / scale)
