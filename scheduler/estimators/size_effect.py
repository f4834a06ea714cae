"""The effect of large items on the service of a function, which routing by size can save."""

import math
from bisect import bisect_left
from collections.abc import Sequence

from scheduler.domain.memory import entries, finites, logarithm, part_known
from scheduler.domain.plans import SizeFactors, SizeShare

MEMORY = 200.0
"""Batches of a size after which older ones fade. Judgement: half as many scatter more, twice as many follow a change of
the model half as fast."""
MIN_BATCHES = 12.0
"""Batches of a size before its services are used. Judgement: at a scatter of 0.1 to 0.25 their mean is then known to 3
to 7 %; twice as many delay routing by size by as much again."""
MIN_FACTOR = 1.15
"""Factor between services below which sizes get no buffers of their own. Judgement: separate buffers make smaller
batches, which costs more than 15 % of a service saves."""
STANDARD_ERRORS = 3.0
"""Standard errors by which the means of two sizes must differ: chance does it once in some hundred comparisons."""
_BINS_PER_DOUBLING = 2
"""Bins in a factor of two of the size. Judgement: finer bins would take longer to have enough batches each."""


def size_bin(item_bytes: float) -> int:
    """Returns the bin of a size: half an octave, counted by its upper end."""
    return math.ceil(_BINS_PER_DOUBLING * math.log2(max(item_bytes, 1.0)) - 1e-9)


def bin_end_bytes(number: int) -> float:
    """Returns the upper end of a bin."""
    return float(2.0 ** (number / _BINS_PER_DOUBLING))


class SizeEffect:
    """Fading means of log(observed / predicted for any size), by the size of a batch's largest item.

    A batch is padded to its largest item, which therefore determines its service (MBS, SIGMETRICS 2022).

    >>> import numpy as np
    >>> noise = np.random.default_rng(4).normal(0.0, 0.1, 200)
    >>> effect = SizeEffect()
    >>> for number, error in enumerate(noise):
    ...     effect.update(900_000.0 if number % 4 == 0 else 20_000.0, error + (1.1 if number % 4 == 0 else -0.3))
    >>> sizes = (SizeShare(23_171.0, 20_000.0, 0.9), SizeShare(1_050_000.0, 900_000.0, 0.1))
    >>> found = effect.factors(sizes)
    >>> [round(factor, 1) for factor in found.factors], round(found.sigma, 1)
    ([0.7, 3.0], 0.1)
    >>> SizeEffect().factors(sizes) is None
    True
    """

    def __init__(self) -> None:
        """Starts without observations."""
        self._reset()

    def _reset(self) -> None:
        self._bins: dict[int, tuple[float, float, float]] = {}
        """By bin: weight of its batches, mean and mean square of their residuals."""

    def update(self, largest_item_bytes: float, residual: float) -> None:
        """Learns from an answered batch.

        Args:
            largest_item_bytes: size of its largest item on the wire.
            residual: log(observed / predicted without regard to size).
        """
        number = size_bin(largest_item_bytes)
        weight, mean, square = self._bins.get(number, (0.0, 0.0, 0.0))
        weight = min(weight + 1.0, MEMORY)
        self._bins[number] = (
            weight,
            mean + (residual - mean) / weight,
            square + (residual * residual - square) / weight,
        )

    def snapshot(self) -> dict[str, object]:
        """Returns what is known, for `restored`."""
        return {str(number): list(known) for number, known in self._bins.items()}

    @classmethod
    def restored(cls, content: object, *, age_s: float) -> "SizeEffect":
        """Returns the effect that a snapshot of that age knew; TypeError or ValueError where it is none."""
        effect = cls()
        for number, known in entries(content).items():
            weight, mean, square = finites(known)
            if weight <= 0 or square < 0:
                raise ValueError("a snapshot of no batches")
            logarithm(mean)
            effect._bins[int(number)] = weight * part_known(age_s), mean, square
        return effect

    def factors(self, sizes: Sequence[SizeShare]) -> SizeFactors | None:
        """Returns the factor of each size on a service; None if too little is known or the sizes hardly differ."""
        ends = [size.up_to_bytes * (1 + 1e-9) for size in sizes]
        found = [(0.0, 0.0, 0.0)] * len(sizes)
        for number, (weight, mean, square) in self._bins.items():
            i = bisect_left(ends, bin_end_bytes(number))
            if i < len(sizes):
                w, m, s = found[i]
                found[i] = (w + weight, m + weight * mean, s + weight * square)
        if len(sizes) < 2 or any(weight < MIN_BATCHES for weight, _, _ in found):
            return None
        means = [mean / weight for weight, mean, _ in found]
        variances = [max(s / w - (m / w) ** 2, 0.0) for w, m, s in found]
        errors = [math.sqrt(variance / w) for variance, (w, _, _) in zip(variances, found, strict=True)]
        low, high = min(means), max(means)
        doubt = STANDARD_ERRORS * math.hypot(errors[means.index(low)], errors[means.index(high)])
        if high - low < max(math.log(MIN_FACTOR), doubt):
            return None
        return SizeFactors(
            factors=tuple(math.exp(max(means[: i + 1])) for i in range(len(means))),
            sigma=math.sqrt(math.fsum(variances) / len(variances)),
        )
