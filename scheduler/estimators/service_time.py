"""How long a backend takes for a batch: the latency model of its profile, corrected by what is seen."""

import math
from collections import deque

import numpy as np

from scheduler.domain.latency import LatencyModel
from scheduler.domain.scatter import Scatter
from scheduler.estimators.changepoint import SHORT_RUN, Change, level_detector
from scheduler.estimators.residuals import ResidualWindow

LEVEL = 0
"""Stands for the level among the bands, which count from 1."""
MIN_SIGMA = 0.03
NOISE_VARIANCE = 0.1**2
LEVEL_VARIANCE = 0.5**2
"""A profile from another machine is off by a factor of 1.6 or so; two answers outvote it."""
SHAPE_SIGMA = 0.3
"""The published Orin fit is off by a factor of 1.3 to 2.8 at small batches, and right at large ones."""
NEW_TO_A_BAND = 2
"""Batches of a band that are not watched for changes: its shape explains what would else look like one of the level."""
LIKENESS = 0.9
"""Correlation of the shapes of neighbouring bands: what a model gets wrong at four items it gets wrong at five."""
LEVEL_DRIFT = NOISE_VARIANCE / 64**2
"""Makes the level, in the long run, a moving average over about 64 batches."""
SHAPE_DRIFT = NOISE_VARIANCE / 256**2
"""What a model gets wrong at one size hardly ever changes; what does is the level."""
POOLED_RESIDUALS = 512
BAND_RESIDUALS = 128
ENOUGH_IN_BAND = 64
"""Residuals that a band of batch sizes needs before its own quantiles are used."""


class ServiceTime:
    """Median service time of one backend by batch size, and how far it strays.

    log(observed / modelled) = level + shape of the band of sizes + noise. The level is what befalls all sizes alike
    (a throttled machine), the shape what the model gets wrong at one size. Each answer is split between the two by how
    uncertain they are, by a Kalman filter (1960); neighbouring bands have like shapes, or else noise would make one
    size look dear that is then never tried again. A changepoint detector watches the level; on a change the level is
    taken anew from the batches since, and the shape stays.

    Args:
        latency: the prior, from a profile.
        overhead_s: seconds that each batch takes on top of the model, such as the way over the LAN.
        prior_sigma: scatter of log(observed / predicted) before any is seen.
        shape_sigma: how far the model may be off at one size beside the others, as a logarithm.

    >>> import numpy as np
    >>> noise = np.random.default_rng(3).lognormal(0.0, 0.1, 220)
    >>> service = ServiceTime(LatencyModel(alpha_s=0.04, beta_s=0.01, max_batch=32))
    >>> any(service.update(8, 0.18 * factor) for factor in noise[:200]), round(service.predict_s(8), 2)
    (False, 0.18)
    >>> changes = [change for factor in noise[200:] if (change := service.update(8, 0.36 * factor))]
    >>> [change.run_length <= 5 for change in changes], 0.34 < service.predict_s(8) < 0.38
    ([True], True)
    """

    def __init__(
        self,
        latency: LatencyModel,
        *,
        overhead_s: float = 0.0,
        prior_sigma: float = 0.1,
        shape_sigma: float = SHAPE_SIGMA,
    ) -> None:
        """Stores the parameters."""
        self._latency = latency
        self._overhead_s = overhead_s
        self._prior_sigma = prior_sigma
        self._shape_sigma = shape_sigma
        self._reset()

    def _reset(self) -> None:
        self.lessons = 0
        """Answers learned, and unlearned: where it stands still, nothing has moved."""
        bands = _band(self._latency.max_batch)
        self._state = [0.0] * (bands + 1)
        """Level, and shape by band, as logarithms."""
        self._covariance = np.zeros((bands + 1, bands + 1))
        apart = np.abs(np.subtract.outer(np.arange(bands), np.arange(bands)))
        self._covariance[1:, 1:] = self._shape_sigma**2 * LIKENESS**apart
        self._covariance[LEVEL, LEVEL] = LEVEL_VARIANCE
        self._recent_levels: deque[float] = deque(maxlen=SHORT_RUN)
        self._detector = level_detector()
        self._residuals = ResidualWindow(size=POOLED_RESIDUALS, prior_sigma=self._prior_sigma)
        self._band_residuals: dict[int, ResidualWindow] = {}
        self._recent_bands: deque[int] = deque(maxlen=POOLED_RESIDUALS)
        self._priors: dict[int, tuple[int, float]] = {}
        self._tables: dict[int, tuple[list[int], list[float]]] = {}
        """Bands and priors of batches of 1, 2, ... items, by the number of these."""

    def predict_s(self, items: int) -> float:
        """Returns the median seconds for a batch of `items` (>= 1)."""
        band, prior_s = self._prior(items)
        return prior_s * math.exp(self._state[LEVEL] + self._state[band])

    def predict_all_s(self, max_batch: int) -> list[float]:
        """Returns the median seconds for batches of 1, 2, ... `max_batch` items: cheaper than asking one by one."""
        table = self._tables.get(max_batch)
        if table is None:
            priors = [self._prior(items) for items in range(1, max_batch + 1)]
            table = self._tables[max_batch] = ([band for band, _ in priors], [prior_s for _, prior_s in priors])
        factors = [1.0, *map(math.exp, self.log_factors())]
        return [prior_s * factors[band] for band, prior_s in zip(*table, strict=True)]

    def log_factors(self) -> list[float]:
        """Returns by band of sizes, as logarithms, the factors of the predictions on the latency model."""
        level, *shapes = self._state
        return [level + shape for shape in shapes]

    def quantile_factor(self, percentile: float, items: int | None = None) -> float:
        """Returns the factor on `predict_s` within which a batch stays with this probability.

        Args:
            percentile: the probability, in (0, 1).
            items: look at batches of about this size alone, if there were enough; by default at all.
        """
        band = self._band_residuals.get(_band(items)) if items is not None else None
        residuals = self._residuals if band is None or len(band) < ENOUGH_IN_BAND else band
        return math.exp(residuals.quantile(percentile))

    def scatter(self) -> Scatter:
        """Returns the distribution of log(observed / predicted) over all batch sizes."""
        return self._residuals.scatter()

    def update(self, items: int, observed_s: float) -> Change | None:
        """Learns from an answered batch.

        Args:
            items: batch size.
            observed_s: service time; a value that is no positive number says nothing and is passed over.

        Returns:
            The change of level that this batch gave away, if any; its means are log(observed / modelled).
        """
        if not (math.isfinite(observed_s) and observed_s > 0):
            return None
        band, prior_s = self._prior(items)
        deviation = math.log(observed_s / prior_s)
        residual = deviation - self._state[LEVEL] - self._state[band]
        self.lessons += 1
        self._note_residual(band, residual)
        self._correct(band, residual)
        if len(self._band_residuals[band]) <= NEW_TO_A_BAND:
            return None
        level = deviation - self._state[band]
        self._recent_levels.append(level)
        change = self._detector.update(level)
        if change is not None:
            self.restart(change.run_length)
        return change

    def restart(self, run_length: int) -> None:
        """Takes the level from the last `run_length` batches: older ones are of another regime.

        What these were off by told of the change and not of noise, and is forgotten.
        """
        since = list(self._recent_levels)[-run_length:] if run_length > 0 else []
        if not since:
            return
        self._state[LEVEL] = math.fsum(since) / len(since)
        self._covariance[LEVEL] = self._covariance[:, LEVEL] = 0.0
        self._covariance[LEVEL, LEVEL] = NOISE_VARIANCE / len(since)
        self.lessons += run_length
        for _ in range(min(run_length, len(self._recent_bands))):
            self._residuals.forget_newest()
            self._band_residuals[self._recent_bands.pop()].forget_newest()

    def _prior(self, items: int) -> tuple[int, float]:
        prior = self._priors.get(items)
        if prior is None:
            band = min(_band(items), len(self._state) - 1)
            prior = self._priors[items] = (band, self._latency.predict_s(items) + self._overhead_s)
        return prior

    def _correct(self, band: int, residual: float) -> None:
        """One step of a Kalman filter; what is seen is the sum of two states, the level and a shape."""
        covariance = self._covariance
        covariance[LEVEL, LEVEL] += LEVEL_DRIFT
        covariance[band, band] += SHAPE_DRIFT
        seen = covariance[LEVEL] + covariance[band]
        gain = seen / (seen[LEVEL] + seen[band] + self._noise_variance())
        covariance -= gain[:, None] * seen
        self._state = [state + g * residual for state, g in zip(self._state, gain.tolist(), strict=True)]

    def _noise_variance(self) -> float:
        """Read off the middle of the residuals: what the model gets wrong at a new size is at their ends."""
        scatter = self._residuals.scatter()
        middle = 0.5 * (scatter.quantile(0.84) - scatter.quantile(0.16))
        return max(middle, MIN_SIGMA) ** 2

    def _note_residual(self, band: int, residual: float) -> None:
        window = self._band_residuals.get(band)
        if window is None:
            window = ResidualWindow(size=BAND_RESIDUALS, prior_sigma=self._prior_sigma)
            self._band_residuals[band] = window
        window.update(residual)
        self._residuals.update(residual)
        self._recent_bands.append(band)


def _band(items: int) -> int:
    """Batch sizes that share a shape: each of 1 to 4 alone, then half an octave together."""
    return items if items <= 4 else 4 + math.ceil(2.0 * math.log2(items / 4))
