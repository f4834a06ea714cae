"""Waits of the requests of one class in a buffer that classes with their own timeouts share."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from support.distributions.open_batches import OpenBatches, integrals, open_terms

from scheduler.planner.queueing.matrices import Array


@dataclass(frozen=True, slots=True, eq=False)
class _Reach:
    """The part between the last edge before each wait and that wait.

    Attributes:
        waits_s: shape (B, q).
        piece: index of that edge, shape (B, q).
        plain: integrals of e_k, shape (B, q, B).
        timed: integrals of s e_k, shape (B, q, B).
    """

    waits_s: Array
    piece: npt.NDArray[np.intp]
    plain: Array
    timed: Array


@dataclass(frozen=True, slots=True, eq=False)
class _Cumulative:
    """Integrals of f e_k and s f e_k from 0 on, for a step function f that changes at the timeouts.

    Attributes:
        steps: f between edges, shape (n,).
        plain: integral of f e_k up to each edge, shape (n + 1, B).
        timed: integral of s f e_k up to each edge, shape (n + 1, B).
    """

    steps: Array
    plain: Array
    timed: Array

    def up_to(self, reach: _Reach, others: int) -> Array:
        """Returns the integral of f e_k up to the wait, k = size - others, shape (B, q)."""
        return self._sum(self.plain, reach.plain, reach.piece, others)

    def capped(self, reach: _Reach, others: int) -> Array:
        """Returns the integral of min(wait, s) f e_k over all s, k = size - others, shape (B, q)."""
        timed = self._sum(self.timed, reach.timed, reach.piece, others)
        beyond = self.plain[-1][_members(len(reach.waits_s), others)] - self.up_to(reach, others)
        return np.asarray(timed + reach.waits_s * beyond)

    def _sum(self, edges: Array, rest: Array, piece: npt.NDArray[np.intp], others: int) -> Array:
        count = _members(len(piece), others)
        local = np.take_along_axis(rest, np.broadcast_to(count[..., None], (*piece.shape, 1)), axis=-1)[..., 0]
        return np.asarray(edges[piece, count] + self.steps[piece] * local)


@dataclass(frozen=True, slots=True, eq=False)
class ClassWaits:
    """Expected requests of a class in a batch, by its size, that wait at most a given time.

    A batch that closes at s consists of its first request, which waits s; of further requests, Poisson, whose wait is
    uniform on (0, min(s, timeout)); and of the request that closed it, which waits its own timeout, or nothing if it
    filled the batch (the first request may be the one that closes it). The density of the closing time is a step
    function of s times e_k, with k the number of further requests, so that every expectation is an integral of e_k or s
    e_k.

    Attributes:
        batches: the classes.
        terms: e_k at the timeouts, shape (n + 1, B).
        ended: f = rate of the classes whose timeout is over: they may close the batch while the first request may not.
        joined: f = that rate times G.
        alive: f = G.
        every: f = 1.
    """

    batches: OpenBatches
    terms: Array
    ended: _Cumulative
    joined: _Cumulative
    alive: _Cumulative
    every: _Cumulative

    def within(self, rank: int, waits_s: Array, *, whole: npt.NDArray[np.bool_]) -> Array:
        """Returns requests a batch, shape (B, q), B at least 2.

        Args:
            rank: the class, 0 has the shortest timeout.
            waits_s: by size, from 0 to the class's timeout, shape (B, q).
            whole: whether that timeout is included, so that requests which close a batch by time count, shape (B, q).
        """
        reach = self._reach(waits_s)
        rate_rps, sizes = self.batches.rates_rps[rank], np.arange(1, len(waits_s) + 1)[:, None]
        part = rate_rps / self.batches.total_rps[0]
        closes = self.alive.plain[-1] - self.alive.plain[rank + 1]
        members = np.asarray(whole * part * self.terms[rank + 1][_members(len(sizes), 1)])
        members += (sizes > 1) * part * self.ended.up_to(reach, 2)
        members += (sizes > 1) * rate_rps * (whole * closes[_members(len(sizes), 2)] + self._beside_openers(waits_s))
        members += (sizes > 2) * rate_rps * self.joined.capped(reach, 3)
        members[-1] = rate_rps * self._filled(reach)
        return members

    def _beside_openers(self, waits_s: Array) -> Array:
        """Returns the time in which a further request can have come, in batches that the first request's timeout
        closes.
        """
        edges_s, parts = self.batches.edges_s[1:], self.batches.rates_rps / self.batches.total_rps
        at_close = (parts[:, None] * self.terms[1:])[:, _members(len(waits_s), 2)[:, 0]]
        return np.asarray(np.einsum("bqo,ob->bq", np.minimum(waits_s[..., None], edges_s), at_close))

    def _filled(self, reach: _Reach) -> Array:
        """Returns requests of a full batch over the class rate: the one that fills it, the first, the others."""
        size, total_rps = len(reach.waits_s), self.batches.total_rps[0]
        members = self.alive.plain[-1][size - 2] + self.every.up_to(reach, 2)[-1]
        if size > 2:
            members = members + total_rps * self.alive.capped(reach, 3)[-1]
        return np.asarray(members)

    def _reach(self, waits_s: Array) -> _Reach:
        batches, counts = self.batches, self.terms.shape[-1]
        piece = np.minimum(np.searchsorted(batches.edges_s[1:], waits_s, side="right"), len(batches.slopes) - 1)
        from_s, slopes, total_rps = batches.edges_s[piece], batches.slopes[piece], batches.total_rps[0]
        masses = batches.masses[piece] + slopes * (waits_s - from_s)
        start, end = self.terms[piece], open_terms(masses, total_rps * waits_s, counts)
        plain = integrals(start, end, slopes=slopes, total_rps=total_rps)
        timed = integrals(
            from_s[..., None] * start + plain, waits_s[..., None] * end, slopes=slopes, total_rps=total_rps
        )
        return _Reach(waits_s, piece, plain, timed)


def class_waits(batches: OpenBatches, max_batch: int) -> ClassWaits:
    """Returns the waits in one buffer.

    Args:
        batches: its classes, shape (n,).
        max_batch: B, at least 2.
    """
    terms, edges_s = batches.terms(max_batch), batches.edges_s[:, None]
    plain = batches.integrals(terms)
    timed = integrals(
        edges_s[:-1] * terms[:-1] + plain,
        edges_s[1:] * terms[1:],
        slopes=batches.slopes,
        total_rps=batches.total_rps,
    )
    ended, joined, alive, every = (
        _Cumulative(steps, _summed(steps, plain), _summed(steps, timed))
        for steps in (
            batches.ending_rps,
            batches.ending_rps * batches.alive,
            batches.alive,
            np.ones_like(batches.alive),
        )
    )
    return ClassWaits(batches, terms, ended, joined, alive, every)


def _summed(steps: Array, pieces: Array) -> Array:
    return np.concatenate([np.zeros_like(pieces[:1]), np.cumsum(steps[:, None] * pieces, axis=0)])


def _members(max_batch: int, others: int) -> npt.NDArray[np.intp]:
    """Returns the further requests k in batches of 1 ... B that have `others` besides; 0 where B is smaller."""
    members: npt.NDArray[np.intp] = np.maximum(np.arange(1, max_batch + 1) - others, 0)[:, None]
    return members
