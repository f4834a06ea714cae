"""The latency model alpha + beta * items, fitted to measured rows by least squares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.profile import ProfileError, ProfileRow


@dataclass(frozen=True, slots=True)
class LatencyFit:
    """Fitted latency model alpha_s + beta_s * items, with standard errors; None if there are only two rows."""

    alpha_s: float
    beta_s: float
    alpha_stderr_s: float | None
    beta_stderr_s: float | None


def fit_latency(rows: Sequence[ProfileRow]) -> LatencyFit:
    """Fits alpha + beta * batch to the medians of the rows by least squares, with coefficients of at least 0.

    A negative coefficient is set to 0 and the other one is fitted alone, which is exact for two coefficients.

    Args:
        rows: measured rows of at least two batch sizes.

    Returns:
        The latency model. Its standard errors come from the residuals with n - 2 degrees of freedom; None for n = 2.

    Raises:
        ProfileError: there are fewer than two batch sizes.
    """
    batch = np.array([row.batch for row in rows], dtype=np.float64)
    median_s = np.array([row.p50_s for row in rows], dtype=np.float64)
    if np.unique(batch).size < 2:
        raise ProfileError("a fit needs rows of at least two batch sizes; measure another batch size")
    alpha_s, beta_s = _non_negative_line(batch, median_s)
    residual_s = median_s - alpha_s - beta_s * batch
    freedom = len(rows) - 2
    if freedom == 0:
        return LatencyFit(alpha_s, beta_s, None, None)
    centred = batch - batch.mean()
    spread = float(centred @ centred)
    sigma_s = math.sqrt(float(residual_s @ residual_s) / freedom)
    alpha_stderr_s = sigma_s * math.sqrt(1 / len(rows) + float(batch.mean()) ** 2 / spread)
    return LatencyFit(alpha_s, beta_s, alpha_stderr_s, sigma_s / math.sqrt(spread))


def _non_negative_line(batch: npt.NDArray[np.float64], median_s: npt.NDArray[np.float64]) -> tuple[float, float]:
    centred = batch - batch.mean()
    beta_s = float(centred @ median_s) / float(centred @ centred)
    alpha_s = float(median_s.mean()) - beta_s * float(batch.mean())
    if beta_s < 0:
        return float(median_s.mean()), 0.0
    if alpha_s < 0:
        return 0.0, float(batch @ median_s) / float(batch @ batch)
    return alpha_s, beta_s
