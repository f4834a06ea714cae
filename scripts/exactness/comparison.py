"""Compares exact probabilities of a buffer (sizes, waits, latencies) with a simulation, in standard errors."""

import math
from dataclasses import dataclass

import numpy as np

from scheduler.planner.queueing.map_batching import BufferDistribution, buffer_distribution
from scheduler.planner.queueing.map_process import MarkovianArrivals
from scheduler.planner.queueing.service_noise import LognormalNoise
from scripts.exactness.simulation import Array, Block, simulated

BLOCKS = 200
FEWEST_HITS = 1000
"""Minimum expected number of batches or requests on the rare side of a point, so that its error is nearly normal."""
WRONG = 5.0
"""Standard errors beyond which a point counts even if its error is not nearly normal."""
WAIT_PARTS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
PERCENTILES = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
NOISE = LognormalNoise(0.2)
_TIE_S = 1e-9
"""Tolerance in seconds: sums of gaps are rounded, and waits of exactly the timeout must differ from shorter ones."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Buffer with an arrival process.

    Attributes:
        name: name of the process.
        process: the arrival process.
        max_batch: number of requests in a full batch.
        timeout_s: timeout of a batch, seconds.
    """

    name: str
    process: MarkovianArrivals
    max_batch: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Point:
    """Probability, exact and simulated.

    Attributes:
        what: the distribution: size, wait, latency, or latency with noise.
        at: the size, or the upper limit in seconds.
        exact: the exact probability.
        seen: the fraction in the simulation.
        error: standard error of `seen`, from blocks; at least the resolution of the number of trials.
    """

    what: str
    at: float
    exact: float
    seen: float
    error: float

    @property
    def deviation(self) -> float:
        """Difference between simulated and exact probability, in standard errors."""
        return abs(self.seen - self.exact) / self.error


@dataclass(frozen=True, slots=True, eq=False)
class _Probes:
    """Events to count in each block, with their exact probabilities."""

    distribution: BufferDistribution
    services_s: Array
    waits_s: Array
    latencies_s: Array
    noisy_s: Array

    def exact(self) -> Array:
        """Exact probabilities in the order of `counted`."""
        return np.concatenate(
            [
                self.distribution.sizes,
                [self.distribution.wait_within(float(x)) for x in self.waits_s],
                [self.distribution.latency_within(float(x), self.services_s) for x in self.latencies_s],
                [self.distribution.latency_within(float(x), self.services_s, NOISE) for x in self.noisy_s],
            ]
        )

    def labels(self) -> list[tuple[str, float]]:
        """Distribution and argument of each probability."""
        return [
            *(("size", float(size)) for size in range(1, self.distribution.max_batch + 1)),
            *(("wait", float(x)) for x in self.waits_s),
            *(("latency", float(x)) for x in self.latencies_s),
            *(("latency with noise", float(x)) for x in self.noisy_s),
        ]

    def counted(self, block: Block, rng: np.random.Generator) -> tuple[Array, Array]:
        """Returns hits and trials of each event in a block."""
        sizes = np.bincount(block.sizes, minlength=self.distribution.max_batch + 1)[1:]
        services_s = self.services_s[block.sizes - 1]
        factors = rng.lognormal(-(NOISE.sigma**2) / 2, NOISE.sigma, len(services_s))
        latencies_s = block.waits_s + np.repeat(services_s, block.sizes)
        noisy_s = block.waits_s + np.repeat(services_s * factors, block.sizes)
        hits = [
            np.count_nonzero(values <= bound + _TIE_S)
            for values, bounds in (
                (block.waits_s, self.waits_s),
                (latencies_s, self.latencies_s),
                (noisy_s, self.noisy_s),
            )
            for bound in bounds
        ]
        trials = np.repeat([len(block.sizes), len(block.waits_s)], [len(sizes), len(hits)])
        return np.concatenate([sizes, hits]).astype(np.float64), trials.astype(np.float64)


def compare(setting: Setting, *, requests: int, seed: int) -> list[Point]:
    """Returns the points of one setting whose errors are nearly normal, and all points that are clearly wrong.

    Omitted are points with few hits on their rare side, and points that vary only with rare batches: if nearly all
    batches are full, a fixed fraction of the requests fills a batch. The errors of these points are not normal. They
    are returned nevertheless if they differ by more than the number of trials can explain.

    Args:
        setting: the buffer and its arrivals.
        requests: number of requests to simulate.
        seed: seed of the draws.
    """
    rng = np.random.default_rng(seed)
    probes = _probes(setting)
    buffer = simulated(setting.process, max_batch=setting.max_batch, timeout_s=setting.timeout_s, rng=rng)
    length = max(1, requests // BLOCKS)
    # The first block starts with an empty buffer and is not used.
    buffer.block(length)
    tallies = [probes.counted(buffer.block(length), rng) for _ in range(BLOCKS)]
    hits, trials = (np.stack([tally[part] for tally in tallies]) for part in (0, 1))
    seen = hits.sum(axis=0) / trials.sum(axis=0)
    # Batch means of a ratio: the hits of a block minus the ratio times its trials.
    spread = (hits - seen * trials).std(axis=0, ddof=1) * math.sqrt(BLOCKS) / trials.sum(axis=0)
    exact, floor = probes.exact(), math.sqrt(FEWEST_HITS) / trials.sum(axis=0)
    normal = (np.minimum(exact, 1 - exact) * trials.sum(axis=0) >= FEWEST_HITS) & (spread >= floor)
    errors = np.maximum(spread, floor)
    wrong = abs(seen - exact) > WRONG * errors
    return [
        Point(what, at, float(exact[i]), float(seen[i]), float(errors[i]))
        for i, (what, at) in enumerate(probes.labels())
        if normal[i] or wrong[i]
    ]


def _probes(setting: Setting) -> _Probes:
    distribution = buffer_distribution(setting.process, max_batch=setting.max_batch, timeout_s=setting.timeout_s)
    services_s: Array = 0.05 + 0.008 * np.arange(1, setting.max_batch + 1, dtype=np.float64)
    return _Probes(
        distribution=distribution,
        services_s=services_s,
        waits_s=setting.timeout_s * np.array(WAIT_PARTS),
        latencies_s=np.array([distribution.latency_quantile_s(p, services_s) for p in PERCENTILES]),
        noisy_s=np.quantile(services_s, PERCENTILES) + setting.timeout_s * np.array(PERCENTILES),
    )
