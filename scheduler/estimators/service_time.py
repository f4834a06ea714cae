"""Service time of a backend: the latency model of its profile, corrected by observations."""

import math
from collections import deque

import numpy as np

from scheduler.domain.latency import LatencyModel
from scheduler.domain.memory import entries, finites, logarithms, rows
from scheduler.domain.scatter import Scatter
from scheduler.estimators.changepoint import NATIVE, SHORT_RUN, Change, Detectors
from scheduler.estimators.residuals import ResidualWindow

LEVEL = 0
"""Index of the level in the state; bands count from 1."""
MIN_SIGMA = 0.03
"""Smallest scatter that the filter assumes. Judgement: with less, a few equal answers would make it ignore all later
ones; services of a quiet machine scatter by a few percent."""
NOISE_VARIANCE = 0.1**2
"""Variance of the noise of the logarithm of a service, before any is observed: the scatter of a quiet GPU, 10 %. It is
only the unit of the drifts below."""
_LARGEST_VARIANCE, _ROUNDING = 10.0, 1e-9
"""Of a covariance that is taken up; what is learned only makes it smaller."""
LEVEL_VARIANCE = 0.5**2
"""Prior variance of the level. Judgement: a profile from another machine is wrong by a factor of about 1.6 (sigma 0.5
of the logarithm); with it two answers outweigh the profile."""
LEVEL_FORGOTTEN_S = 86_400.0
"""Age at which a level that was saved is as uncertain as the profile's. Judgement: what throttles a machine changes
within a day; after an hour the level is then known to a factor of 1.1."""
SHAPE_SIGMA = 0.3
"""Prior standard deviation of the shape: the published Orin fit is wrong by a factor of 1.3 to 2.8 at small batches,
and right at large ones."""
UNWATCHED_BATCHES = 2
"""First batches of a band that the changepoint detector does not get: they correct the shape of the band, and would
look like a change of the level."""
SHAPE_CORRELATION = 0.9
"""Correlation of the shapes of neighbouring bands. Judgement: an error of the model at four items is nearly the same at
five; with less, noise at one size would keep the dispatcher from trying it."""
LEVEL_DRIFT = NOISE_VARIANCE / 64**2
"""Drift of the level per batch. With a noise variance q, a drift of q / n^2 makes the filter a moving average over
about n batches, here 64."""
SHAPE_DRIFT = NOISE_VARIANCE / 256**2
"""Drift of a shape per batch, a moving average over 256: errors at one size hardly change, the level does."""
POOLED_RESIDUALS = 512
"""Residuals kept over all sizes: the 0.99 quantile then has five of them beyond it."""
BAND_RESIDUALS = 128
"""Residuals kept for one band. Judgement: twice as many follow a change of the scatter half as fast."""
MIN_BAND_RESIDUALS = 64
"""Residuals that a band needs before its own quantiles are used. Judgement: with 64 the 0.98 quantile is observed;
below that the pooled residuals are the better estimate."""


class ServiceTime:
    """Median service time of one backend by batch size, and its scatter.

    log(observed / modelled) = level + shape of the band of sizes + noise. The level is common to all sizes (a throttled
    machine), the shape is the error of the model at one size. A Kalman filter (1960) divides each answer between the
    two by their uncertainty. Neighbouring bands have similar shapes; otherwise noise could make one size look slow,
    which then would never be tried again. A changepoint detector watches the level. After a change the level is
    computed again from the batches since, and the shape stays.

    Args:
        latency: the prior, from a profile, with what is decoded beside it.
        overhead_s: seconds that each batch takes besides the model, such as the path over the LAN.
        prior_sigma: scatter of log(observed / predicted) before any is observed.
        shape_sigma: standard deviation of the model's error at one size beside the others, as a logarithm.
        detectors: makes the detector that watches the level.

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
        detectors: Detectors = NATIVE,
    ) -> None:
        """Stores the parameters."""
        self._latency = latency
        self._overhead_s = overhead_s + latency.decode_s
        self._prior_sigma = prior_sigma
        self._shape_sigma = shape_sigma
        self._detectors = detectors
        self._reset()

    def _reset(self) -> None:
        self.lessons = 0
        """Number of answers learned or unlearned; while it stays the same, no prediction has changed."""
        bands = _band(self._latency.max_batch)
        self._state = [0.0] * (bands + 1)
        """Level, and shape by band, as logarithms."""
        self._covariance = np.zeros((bands + 1, bands + 1))
        apart = np.abs(np.subtract.outer(np.arange(bands), np.arange(bands)))
        self._covariance[1:, 1:] = self._shape_sigma**2 * SHAPE_CORRELATION**apart
        self._covariance[LEVEL, LEVEL] = LEVEL_VARIANCE
        self._recent_levels: deque[float] = deque(maxlen=SHORT_RUN)
        self._detector = self._detectors.levels()
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

    def level(self, items: int, observed_s: float) -> float:
        """Returns log(observed / modelled) without the error of the model at that batch size."""
        band, prior_s = self._prior(items)
        return math.log(observed_s / prior_s) - self._state[band]

    def predict_all_s(self, max_batch: int) -> list[float]:
        """Returns the median seconds for batches of 1, 2, ... `max_batch` items, faster than one by one."""
        table = self._tables.get(max_batch)
        if table is None:
            priors = [self._prior(items) for items in range(1, max_batch + 1)]
            table = self._tables[max_batch] = ([band for band, _ in priors], [prior_s for _, prior_s in priors])
        factors = [1.0, *map(math.exp, self.log_factors())]
        return [prior_s * factors[band] for band, prior_s in zip(*table, strict=True)]

    @property
    def times_profile(self) -> float:
        """Seconds over the profile's, without the model's error at single sizes."""
        return math.exp(self._state[LEVEL])

    def log_factors(self) -> list[float]:
        """Returns the logarithm of prediction over latency model by band of sizes."""
        level, *shapes = self._state
        return [level + shape for shape in shapes]

    def quantile_factor(self, percentile: float, items: int | None = None) -> float:
        """Returns the factor on `predict_s` within which a batch stays with a given probability.

        Args:
            percentile: the probability, in (0, 1).
            items: batch size whose residuals are used, if there are enough; None: those of all sizes.
        """
        band = self._band_residuals.get(_band(items)) if items is not None else None
        residuals = self._residuals if band is None or len(band) < MIN_BAND_RESIDUALS else band
        return math.exp(residuals.quantile(percentile))

    def scatter(self) -> Scatter:
        """Returns the distribution of log(observed / predicted) over all batch sizes."""
        return self._residuals.scatter()

    def forecast(self) -> Scatter:
        """Returns the distribution for the next answer: wider than the scatter while few have shown how they vary."""
        return self._residuals.forecast()

    def update(self, items: int, observed_s: float) -> Change | None:
        """Learns from an answered batch.

        Args:
            items: batch size.
            observed_s: service time; it is ignored if it is not positive and finite.

        Returns:
            The change of level that this batch revealed, or None; its means are log(observed / modelled).
        """
        if not (math.isfinite(observed_s) and observed_s > 0):
            return None
        band, prior_s = self._prior(items)
        deviation = math.log(observed_s / prior_s)
        residual = deviation - self._state[LEVEL] - self._state[band]
        self.lessons += 1
        self._note_residual(band, residual)
        self._correct(band, residual)
        if len(self._band_residuals[band]) <= UNWATCHED_BATCHES:
            return None
        level = deviation - self._state[band]
        self._recent_levels.append(level)
        change = self._detector.update(level)
        if change is not None:
            self.restart(change.run_length)
        return change

    def snapshot(self) -> dict[str, object]:
        """Returns what is known, for `restore`."""
        return {
            "state": list(self._state),
            "covariance": self._covariance.tolist(),
            "residuals": self._residuals.snapshot(),
            "bands": {str(band): window.snapshot() for band, window in self._band_residuals.items()},
            "recent_bands": list(self._recent_bands),
        }

    def restore(self, content: object, *, age_s: float) -> None:
        """Takes up what a snapshot of that age knew; the level may have drifted since, up to what the prior allows.

        Raises:
            KeyError, TypeError, ValueError: the content is no snapshot of a service with as many bands; nothing is
                taken up.
        """
        given = entries(content)
        state = logarithms(given["state"])
        covariance = np.array([finites(row) for row in rows(given["covariance"])])
        recent = [int(band) for band in finites(given["recent_bands"])]
        fresh = ResidualWindow(size=BAND_RESIDUALS, prior_sigma=self._prior_sigma)
        bands = {int(band): fresh.restored(window, age_s=age_s) for band, window in entries(given["bands"]).items()}
        residuals = self._residuals.restored(given["residuals"], age_s=age_s)
        if len(state) != len(self._state) or covariance.shape != self._covariance.shape or set(recent) - set(bands):
            raise ValueError("a snapshot of other bands")
        shaped = covariance.reshape(len(state), len(state))
        if np.abs(shaped).max() > _LARGEST_VARIANCE or np.linalg.eigvalsh(shaped)[0] < -_ROUNDING:
            raise ValueError("a snapshot with a covariance that is none")
        drifted = LEVEL_VARIANCE * min(1.0, max(0.0, age_s) / LEVEL_FORGOTTEN_S)
        shaped[LEVEL, LEVEL] = min(LEVEL_VARIANCE, shaped[LEVEL, LEVEL] + drifted)
        self._state, self._covariance, self._residuals = state, shaped, residuals
        self._band_residuals, self._recent_bands = bands, deque(recent, maxlen=POOLED_RESIDUALS)
        self.lessons += 1

    def restart(self, run_length: int) -> None:
        """Computes the level from the last `run_length` batches: older ones belong to another regime.

        The residuals of these batches came from the change and not from noise, and are removed.
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
        """Makes one step of a Kalman filter; the observation is the sum of two states, the level and a shape."""
        covariance = self._covariance
        covariance[LEVEL, LEVEL] += LEVEL_DRIFT
        covariance[band, band] += SHAPE_DRIFT
        seen = covariance[LEVEL] + covariance[band]
        gain = seen / (seen[LEVEL] + seen[band] + self._noise_variance())
        covariance -= gain[:, None] * seen
        self._state = [state + g * residual for state, g in zip(self._state, gain.tolist(), strict=True)]

    def _noise_variance(self) -> float:
        """Returns the variance of noise from the middle of the residuals: errors at a new size are at their ends."""
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
    """Returns the band of a batch size: each of 1 to 4 alone, then half an octave together."""
    return items if items <= 4 else 4 + math.ceil(2.0 * math.log2(items / 4))
