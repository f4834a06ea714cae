"""Asks the edge servers about their models, again and again: how fast they are, and which files they serve."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from models.profile import Profile
from scheduler.daemon.backends.batch_send import Clock, InferenceBackend
from scheduler.daemon.backends.edge import EdgeBackend
from scheduler.daemon.config.config import Config
from scheduler.daemon.config.edge_sections import EdgeSection
from scheduler.daemon.edge_rehearsal import NotMeasured, measured_profile
from scheduler.daemon.event_wait import set_within
from scheduler.daemon.logs import log
from scheduler.daemon.served_models import ServedModels
from scheduler.domain.requests import Backend, Place

LOOK_S = 30.0
"""How often the edge is asked which card and files it serves. Judgement: a new model that is brought to it waits so
long for the warning at most."""
REFUSED_LOOK_S = 2.0
"""How often while it is refused for what it serves: asking costs nothing, and without it functions do its work."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""Pauses between attempts to measure an edge that does not answer; each is twice as long as the one before."""


class EdgeModels:
    """Measures the models whose cards stand for a profile, and hears which identities edge servers report."""

    def __init__(
        self,
        *,
        edge: Callable[[str], InferenceBackend | None],
        config: Callable[[], Config],
        measured: Callable[[Profile, str], Awaitable[None]],
        served: ServedModels,
        clock: Clock,
    ) -> None:
        """Stores its parts.

        Args:
            edge: returns the present backend of an edge server; None without one.
            config: returns the present configuration.
            measured: uses a new profile on an edge server.
            served: is told what edge servers report.
            clock: monotonic seconds.
        """
        self._edge, self._config, self._measured = edge, config, measured
        self._served, self._clock = served, clock
        self._again = asyncio.Event()
        self.looked = asyncio.Event()
        """Whether the first look is over."""
        served.identities.refused = self._refused

    def reloaded(self) -> None:
        """Asks at once: configuration or edge are new."""
        self._again.set()

    def _refused(self, place: str) -> None:
        """Asks an edge again soon that is refused for an answer: it may be a long time until the next look is due."""
        if Place.parse(place).backend is Backend.EDGE:
            asyncio.get_running_loop().call_later(REFUSED_LOOK_S, self._again.set)

    async def run(self) -> None:
        """Asks until it is cancelled."""
        pause_s = FIRST_PAUSE_S
        while True:
            self._again.clear()
            complete = await self._look()
            self.looked.set()
            pause_s = self._pause_s() if complete else min(pause_s, LONGEST_PAUSE_S)
            soon = await set_within(self._again, pause_s) or complete
            pause_s = FIRST_PAUSE_S if soon else 2.0 * pause_s

    def _pause_s(self) -> float:
        return REFUSED_LOOK_S if self._served.identities.edge_refused() else LOOK_S

    async def _look(self) -> bool:
        """Asks for all that is not known; returns whether every model is measured."""
        config = self._config()
        self._served.identities.let_functions_try(self._clock())
        if len(config.edges) == 1:
            return await self._look_at(config.edges[0], config)
        # One that does not answer must not keep the others waiting.
        looks = [self._look_at(edge, config) for edge in config.edges]
        return all(await asyncio.gather(*looks))

    async def _look_at(self, of: EdgeSection, config: Config) -> bool:
        """Asks one edge server; returns whether every model is measured there."""
        edge = self._edge(of.name)
        if not isinstance(edge, EdgeBackend):
            return True
        for card in [wanted.card for wanted in config.to_measure() if wanted.edge == of]:
            largest = next(model.max_items for model in config.models if model.name == card.name)
            identity = config.identities()[card.name]
            try:
                profile = await measured_profile(
                    edge, card, largest=largest, edge=of.url, identity=identity, clock=self._clock
                )
            except NotMeasured as error:
                self._note_unmeasured(card.name, of.name, error)
                if error.absent:
                    return False  # The others are not answered either.
                continue
            if self._config() is not config:
                return False  # A reload came in between.
            rows = " ".join(f"{row.batch}:{row.p50_s:.4g}s" for row in profile.rows)
            log(logging.INFO, "edge_measured", model=card.name, edge=of.name, largest=profile.max_batch, rows=rows)
            await self._measured(profile, of.name)
        for index, model in enumerate(config.models):
            if config.edge_profile(index, of) is not None:
                asked_at_s = self._clock()
                said = await edge.identity(model.name)
                if said is not None:
                    self._served.heard(model.name, Place.edge(of.name), said, asked=True, sent_at_s=asked_at_s)
        return all(wanted.edge != of for wanted in config.to_measure())

    def _note_unmeasured(self, model: str, edge: str, error: NotMeasured) -> None:
        known = self._served.rows().get(model, {}).get("edge_profiles")
        if not isinstance(known, dict) or known.get(edge, {}).get("reason") != str(error):
            message = f"{error}; the edge is not used for this model until it is measured, the daemon will try again"
            log(logging.WARNING, "edge_not_measured", model=model, edge=edge, message=message)
        self._served.not_measured(model, edge, str(error))
