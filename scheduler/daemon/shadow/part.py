"""One part of the comparison, without a pause in it: the shadow's engine, and what both sides did since it began."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from scheduler.control import Control
from scheduler.daemon.shadow.arrivals import Translation
from scheduler.daemon.shadow.live import Live
from scheduler.daemon.shadow.reading import Reading
from scheduler.daemon.shadow.tally import Tally
from scheduler.dispatch.decision_ring import DecisionRing
from scheduler.domain.messages import Command, ComputePlan, Message, RequestArrived
from scheduler.domain.statistics import EngineStatistics
from scheduler.engine import Engine
from scheduler.simulator.beside import EngineBeside
from scheduler.simulator.learned_laws import Draw, LearnedWorld, ShadowBackends


class Part:
    """An engine that knows what the live one did when it began, as after a restart, and that hears it from then on."""

    def __init__(
        self,
        live: Live,
        reading: Reading,
        tallies: Mapping[str, Tally],
        *,
        draw: Draw,
        make_plan: Callable[[ComputePlan], None],
        now_s: float,
    ) -> None:
        """Begins.

        Args:
            live: the live engine.
            reading: what is compared.
            tallies: counts of "live" and "shadow".
            draw: draws what the simulated backends do.
            make_plan: starts the planner, whose plan comes by `tell`.
            now_s: the present.
        """
        self._live = live
        self._tallies = tallies
        self._began_s, self._live_spent = now_s, live.statistics(now_s).spent
        settings = reading.shadow
        self._world = LearnedWorld(live.estimates(), live.statistics)
        backends = ShadowBackends(settings, self._world, draw)
        backends.begin()
        control = Control(settings, live.control.operators_limits(), live.memory(now_s))
        # Explanations are asked of the live engine.
        self._engine = Engine(settings, control, DecisionRing(1))
        self._translation = Translation(reading.live, settings, answer_reserve_s=reading.answer_reserve_s)
        self._beside = EngineBeside(
            self._engine, backends, make_plan=make_plan, listener=tallies["shadow"], now_s=now_s
        )

    def hear(self, messages: Sequence[Message], commands: Sequence[Command], at_s: float) -> None:
        """Takes in one call of the live engine."""
        self._tallies["live"].hear(messages, commands, at_s)
        self._world.hear(messages, commands)
        for message in messages:
            own = self._translation.of(message)
            if isinstance(own, RequestArrived) and self._translation.too_large(own.request):
                self._tallies["shadow"].hear([own], (), at_s)
                self._tallies["shadow"].refused(own.request.request_id, rejected=True)
            elif own is not None:
                self._beside.tell(own, at_s)

    def tell(self, message: Message, at_s: float) -> None:
        """Has the shadow's engine get a message of its own at a time."""
        self._beside.tell(message, at_s)

    def next_s(self) -> float:
        """Returns when the next step is due; inf: when something is heard."""
        return self._beside.next_s()

    def step(self) -> None:
        """Calls the shadow's engine once, with what is due next."""
        self._beside.step()

    def seconds(self, now_s: float) -> float:
        """Returns how long it has lasted."""
        return now_s - self._began_s

    def statistics(self, now_s: float) -> EngineStatistics:
        """Returns the state of the shadow's engine at a time."""
        return self._engine.statistics(now_s)

    def spent(self, now_s: float) -> dict[str, float]:
        """Returns the money of both sides since it began."""
        return {
            "live": self._live.statistics(now_s).spent - self._live_spent,
            "shadow": self.statistics(now_s).spent,
        }
