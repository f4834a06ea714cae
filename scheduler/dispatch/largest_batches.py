"""The largest batch of each model on each edge server: as the server says, or else as its refusals have shown.

A refusal may name the limit; that is believed at once. Otherwise a refused batch is sent again in halves, as one whose
content was refused. If all its members are answered then, its size was the cause, and the limit lies between the
largest batch that was answered and the smallest that was refused: the next full batches search it by bisection. A
server that only fails (500) may have done so by chance: the first such limit is believed when a batch of that size
fails again. Without a refusal nothing is limited.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from scheduler.dispatch.lanes import Lanes
from scheduler.dispatch.outbox import Outbox
from scheduler.domain.batches import Batch, Failure, FailureKind
from scheduler.domain.edge_limits import EdgeLimit, LimitSource
from scheduler.domain.memory import Remembered, entries, finite, rows
from scheduler.domain.messages import EdgeBatchLearned, ProbeMeasured
from scheduler.domain.plans import Limits
from scheduler.domain.requests import EDGE_NAME, Backend

Key = tuple[str, str]
"""Model and edge server."""
VERSION = 1
SUSPICIONS = 8
"""Refused batches whose members are followed at one time; of more the oldest are not. A bound of memory: the halves of
one batch of 64 are five deep."""


@dataclass(slots=True)
class LargestBatch:
    """What is known of one model on one edge server."""

    said: int | None = None
    """By the server; None: it says nothing."""
    fits: int = 0
    """Items of the largest batch that was answered."""
    refused: int | None = None
    """Items of the smallest batch that was refused for its size; None: none was."""
    named: bool = False
    """Whether a refusal named the limit."""
    doubted: bool = False
    """Whether the server was away since: another one may be there, which takes more."""
    failed_once: int | None = None
    """Items of the smallest batch at which the server failed once, and answered all its members in smaller ones."""

    @property
    def settled(self) -> bool:
        """Whether refusals have shown a limit exactly."""
        return self.refused is not None and (self.named or self.fits >= self.refused - 1)

    @property
    def learned(self) -> int | None:
        """What refusals have shown; None: nothing."""
        if self.refused is None or self.doubted:
            return None
        if self.settled:
            return self.refused - 1
        return (self.fits + self.refused) // 2

    @property
    def items(self) -> int | None:
        """Most items in a batch; None: any number."""
        known = [limit for limit in (self.said, self.learned) if limit is not None]
        return min(known, default=None)

    def limit(self, model: str, edge: str) -> EdgeLimit | None:
        """Returns the same with its source; None: none."""
        items, learned = self.items, self.learned
        if items is None:
            return None
        if learned is None or items < learned:
            return EdgeLimit(model, items, LimitSource.SAID, edge=edge)
        source = LimitSource.NAMED if self.named else LimitSource.SEARCHED
        return EdgeLimit(model, items, source, settled=self.settled, edge=edge)

    def forget(self) -> None:
        """Forgets what refusals have shown."""
        self.refused, self.named, self.doubted, self.failed_once = None, False, False, None


@dataclass(slots=True)
class Suspicion:
    """A batch that may have been refused for its size: it was, if all its members are answered in smaller ones."""

    key: Key
    items: int
    unanswered: set[int]
    """Ids of its requests."""
    refused: bool = True
    """Whether it was refused, or failed where a larger one had; False: it may have failed by chance."""


@dataclass(slots=True)
class LargestBatches:
    """What is known of all models on all edge servers."""

    lanes: Lanes
    outbox: Outbox
    edge_takes: Callable[[str, int | None, str], Limits] = lambda model, items, edge: Limits()  # noqa: ARG005
    """Tells the control plane what an edge server takes of a model; returns the model's limits with it."""
    known: dict[Key, LargestBatch] = field(default_factory=dict)
    suspicions: list[Suspicion] = field(default_factory=list)
    servers: dict[str, str] = field(default_factory=dict)
    """By edge server, that which it is known of, where that is known."""
    _told: dict[Key, EdgeLimit] = field(default_factory=dict)

    def answered(self, batch: Batch) -> None:
        """Learns from an edge batch that was answered."""
        key = batch.model, batch.place.name
        known = self.known.get(key)
        if known is None:
            known = self.known[key] = LargestBatch()
        if known.failed_once is not None and batch.items >= known.failed_once:
            known.failed_once = None
        if batch.items > known.fits:
            known.fits = batch.items
            if known.refused is not None:
                if batch.items >= known.refused:
                    known.forget()
                self._settle(key)
        if self.suspicions:
            self._clear_up(batch)

    def failed(self, batch: Batch, failure: Failure) -> bool:
        """Learns from an edge batch that failed.

        Returns:
            Whether its size may be the cause: then smaller ones may be answered, and the backend itself is well.
        """
        key = batch.model, batch.place.name
        known = self.known.setdefault(key, LargestBatch())
        named, before = failure.largest_batch, known.refused
        if named is not None and 1 <= named < batch.items:
            known.refused, known.named, known.doubted = named + 1, True, False
            self._settle(key)
            return True
        if batch.items < 2 or not failure.by_size:
            self._withdraw(batch)
            return False
        if before is not None and batch.items >= before:
            # As before, whatever was hoped for.
            known.doubted = False
            self._settle(key)
            return True
        if failure.kind is FailureKind.SERVER and not self._suspect(known, batch):
            self._withdraw(batch)
            return False
        members = set(batch.request_ids)
        again = before is not None or (known.failed_once is not None and batch.items >= known.failed_once)
        again = again or any(s.key == key and batch.items <= s.items for s in self.suspicions)
        refused = failure.kind is not FailureKind.SERVER or again
        self.suspicions.append(Suspicion(key, batch.items, members, refused))
        del self.suspicions[:-SUSPICIONS]
        return True

    def probed(self, probe: ProbeMeasured, *, was_away: bool) -> None:
        """Takes over what the edge says; one that was away may take more since."""
        if probe.place.backend is not Backend.EDGE or not probe.ok:
            return
        edge = probe.place.name
        before = self.servers.get(edge, "")
        another = "" not in (before, probe.server) and probe.server != before
        self.servers[edge] = probe.server or before
        for key, known in self.known.items():
            if key[1] != edge:
                continue
            if another:
                self.known[key] = LargestBatch()
            elif was_away and known.refused is not None:
                known.doubted = True
            else:
                continue
            self._settle(key)
        for model, items in probe.largest_batches:
            known = self.known.setdefault((model, edge), LargestBatch())
            if items != known.said:
                # Refusals were those of another configuration.
                known.said = items
                known.forget()
                self._settle((model, edge))

    def limits(self) -> tuple[EdgeLimit, ...]:
        """Returns what limits batches now."""
        known = ((key, known) for key, known in sorted(self.known.items()) if key[1] in self.lanes.edges)
        found = (known.limit(*key) for key, known in known)
        return tuple(limit for limit in found if limit is not None)

    def remembered(self) -> Remembered:
        """Returns what is known as a part of what is remembered."""

        def snapshot(now_s: float) -> object:  # noqa: ARG001
            models = [
                {"model": model, "edge": edge, "said": k.said, "fits": k.fits, "refused": k.refused, "named": k.named}
                for (model, edge), k in sorted(self.known.items())
                if k.said is not None or k.refused is not None
            ]
            return {"servers": dict(self.servers), "models": models}

        def restore(content: object, age_s: float, now_s: float) -> None:  # noqa: ARG001
            found, saved = {}, entries(content)
            # Before there could be several edge servers, what was saved was of the only one.
            names = list(self.lanes.edges)
            only = names[0] if len(names) == 1 else EDGE_NAME
            for row in rows(saved["models"]):
                given = entries(row)
                said, refused = (None if given[key] is None else _count(given[key]) for key in ("said", "refused"))
                fits = int(finite(given["fits"]))
                found[str(given["model"]), str(given.get("edge", only))] = LargestBatch(
                    said, fits, refused, bool(given["named"])
                )
            servers = entries(saved["servers"]) if "servers" in saved else {only: saved["server"]}
            self.servers = {name: str(server) for name, server in servers.items()}
            for key, known in found.items():
                self.known[key] = known
                self._settle(key, quietly=True)

        return Remembered("edge-batches", VERSION, "", snapshot, restore)

    def _suspect(self, known: LargestBatch, batch: Batch) -> bool:
        """Whether a server that failed may have done so for the batch's size: it is larger than all it has answered.

        One that has answered nothing yet is down rather than small, where functions can answer instead.
        """
        alone = batch.model in self.lanes and not self.lanes[batch.model].has_functions
        return known.fits < batch.items and (known.fits > 0 or alone)

    def _clear_up(self, batch: Batch) -> None:
        """Takes the answered requests from the suspicions; one that has none left is true."""
        confirmed = []
        for suspicion in self.suspicions:
            # What another server answers says nothing of this one.
            if suspicion.key[1] == batch.place.name:
                suspicion.unanswered.difference_update(batch.request_ids)
            if not suspicion.unanswered:
                confirmed.append(suspicion)
        for suspicion in confirmed:
            self.suspicions.remove(suspicion)
            known = self.known[suspicion.key]
            if not suspicion.refused:
                known.failed_once = min(suspicion.items, known.failed_once or suspicion.items)
            elif suspicion.items > known.fits and (known.refused is None or suspicion.items < known.refused):
                known.refused, known.named, known.doubted = suspicion.items, False, False
                self._settle(suspicion.key)

    def _withdraw(self, batch: Batch) -> None:
        """Drops the suspicions that a batch refutes: it failed for another cause than its size."""
        if self.suspicions:
            failed, edge = set(batch.request_ids), batch.place.name
            self.suspicions = [s for s in self.suspicions if s.key[1] != edge or s.unanswered.isdisjoint(failed)]

    def _settle(self, key: Key, *, quietly: bool = False) -> None:
        """Follows what has changed of a model's limit on an edge server."""
        known, (model, edge) = self.known[key], key
        limits = self.edge_takes(model, known.items, edge)
        if model in self.lanes:
            for lane in self.lanes.of_model(model):
                lane.limit(limits)
        limit = known.limit(model, edge)
        if limit is None or not limit.settled:
            return
        if not quietly and self._told.get(key) != limit:
            self.outbox.command(EdgeBatchLearned(limit))
        self._told[key] = limit


def _count(content: object) -> int:
    """Returns a number of items; TypeError or ValueError for anything else."""
    count = int(finite(content))
    if count < 1:
        raise ValueError("a number of items is at least 1")
    return count
