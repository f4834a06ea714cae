"""Carries what was learned into the tables and prices that the dispatcher reads, where an estimate has moved."""

from scheduler.beliefs import Beliefs
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.dispatch.model_queues import ModelQueues


class Refreshing:
    """Makes anew only what has changed: a lane's tables where its model has learned, or its prices have moved."""

    def __init__(self, beliefs: Beliefs, dispatcher: Dispatcher) -> None:
        """Stores where it reads, and what it writes to; nothing is known to be up to date."""
        self._beliefs, self._dispatcher = beliefs, dispatcher
        self._uplink = dispatcher.function.side.uplink
        self._revision: int | None = None
        """Of the beliefs that the tables were made from; None: they are to be looked at."""

    def refresh(self, now_s: float, *, anew: bool = False) -> None:
        """Does so; `anew`: for all lanes, as their plans or settings are others."""
        beliefs, lanes, side = self._beliefs, self._dispatcher.lanes, self._dispatcher.function.side
        revision = beliefs.revision()
        moved = anew or revision is None or revision != self._revision
        self._revision = revision
        if moved:
            self._uplink.update(beliefs.uplink(now_s))
        for queues in lanes.priced:
            if moved:
                self._learn(queues, now_s, anew=anew)
            for buffer in queues.buffers:
                if buffer.cold_risk_due(now_s):
                    side.refresh_cold_risk(buffer, now_s=now_s)
            if queues.needs_pricing():
                self._dispatcher.price(queues)
                # The prices say at which percentile the edge's tables are to be safe.
                self._revision = queues.learned_at = None
        if lanes.several:
            lanes.follow_first()

    def _learn(self, queues: ModelQueues, now_s: float, *, anew: bool) -> None:
        beliefs, name = self._beliefs, queues.model.name
        revision = beliefs.revision(name)
        if anew or revision is None or revision != queues.learned_at:
            queues.learned_at = revision
            edge_times = self._dispatcher.edges.tables(beliefs.edge_times, queues, now_s)
            queues.learn(edge_times, [beliefs.function_times(name, buffer.plan, now_s) for buffer in queues.buffers])
