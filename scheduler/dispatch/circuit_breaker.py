"""Circuit breakers: a failing backend gets no batches until a probe of it succeeds; one that fails with a model gets
none of that, while its other models go on."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from scheduler.dispatch.edge_occupancy import edge_statistics
from scheduler.dispatch.suspicion import Silence, Slots, Suspicion
from scheduler.dispatch.uplink import UplinkOccupancy
from scheduler.domain.batches import Batch, Failure, FailureKind
from scheduler.domain.decisions import Cause
from scheduler.domain.failures import HANDLING, Opens
from scheduler.domain.messages import ProbeMeasured, SendProbe
from scheduler.domain.plans import EngineSettings
from scheduler.domain.requests import FUNCTIONS, Backend, Place
from scheduler.domain.statistics import ModelUp

LONGEST_PAUSE_S = 30.0
"""Whatever a backend asks for, and however often probes fail: then it is tried again. Judgement: how late a backend
that is back may be noticed; no simulated outage is so long."""

EDGE_PAUSE_S = 2.0
"""The edge is on the LAN and to ask it costs nothing, while every second without it costs functions. Judgement: in
simulations of 3,000 requests halving it changes cost by -0.7 % (in time +0.1 points), in the three of 32 that have such
outages."""


@dataclass(slots=True)
class Circuit:
    """Circuit of a backend, or of one model on it, closed while batches may be sent.

    Failures open it, a successful probe or batch closes it:

    closed --failures--> open --pause over: probe--> closed (probe ok) or open again with twice the pause. A backend
    that answers probes and fails batches does not flap: until it answers one, each failure makes the pause longer.
    """

    failures_to_open: int
    first_pause_s: float
    longest_pause_s: float = LONGEST_PAUSE_S
    failures: int = 0
    pause_s: float = 0.0
    probe_at_s: float | None = None
    """When open: the time of the next probe. None: closed."""
    opened_at_s: float = -math.inf
    """When it was last opened, or found to be open still."""
    unproven_since_s: float = math.inf
    """When a probe closed it, if no batch has been answered since: the first failure of one sent later opens it again.
    Infinity: one has been answered."""
    asked_at_s: float | None = None
    """When the probe was sent that is under way; None: none is, or none that was asked for here."""
    proven_at_s: float = -math.inf
    """When the last probe was sent that was answered, of those that asked because it was open or its backend was."""
    answered_s: float = -math.inf
    """When the last batch was sent that was answered."""
    not_before_s: float = 0.0
    """Until then a throttled backend gets no batches; the circuit stays closed."""
    barred: set[str] = field(default_factory=set)
    """Models of which it gets no batches, because it serves others under their names."""
    of_model: dict[str, "Circuit"] = field(default_factory=dict)
    """Of a backend: the circuits of the models on it."""

    @property
    def closed(self) -> bool:
        """Whether the backend is believed to answer."""
        return self.probe_at_s is None

    def serves(self, model: str) -> bool:
        """Whether the backend is believed to answer with this model."""
        if self.probe_at_s is not None or model in self.barred:
            return False
        own = self.of_model.get(model)
        return own is None or own.probe_at_s is None

    @property
    def up(self) -> bool:
        """Whether the backend is believed to answer with any model."""
        return self.probe_at_s is None and (not self.of_model or any(own.closed for own in self.of_model.values()))

    def usable(self, now_s: float, model: str = "") -> bool:
        """Whether a batch may be sent now: of that model, or of any."""
        if self.probe_at_s is not None or now_s < self.not_before_s:
            return False
        own = self.of_model.get(model)
        return own is None or own.probe_at_s is None

    def changes_in_s(self, now_s: float, model: str = "") -> float | None:
        """Returns the seconds until the backend is probed or may get batches again; None while it gets them."""
        if self.probe_at_s is not None:
            return max(0.0, self.probe_at_s - now_s)
        own = self.of_model.get(model)
        if own is not None and own.probe_at_s is not None:
            return own.changes_in_s(now_s)
        return self.not_before_s - now_s if self.not_before_s > now_s else None

    def configure(self, *, failures_to_open: int, first_pause_s: float) -> None:
        """Takes over reloaded settings."""
        self.failures_to_open, self.first_pause_s = failures_to_open, first_pause_s

    def follow(self, *, back_s: float | None, silent_until_s: float) -> None:
        """Opens or closes the circuit by an outage that is known from other sources than failures.

        Args:
            back_s: when a backend that is down will answer again; None: it answers.
            silent_until_s: time before which no batch is sent.
        """
        self.failures, self.probe_at_s = 0, back_s
        for own in self.of_model.values():
            own.failures, own.probe_at_s = 0, None
        self.not_before_s = max(self.not_before_s, silent_until_s)

    def succeeded(self) -> None:
        """Notes the answer to a batch."""
        self.failures, self.pause_s, self.probe_at_s, self.unproven_since_s = 0, 0.0, None, math.inf

    def probe_succeeded(self, now_s: float) -> None:
        """Notes the answer to a probe: batches may be sent. Only the answer to one of them says that all is well."""
        if self.asked_at_s is not None:
            self.proven_at_s = self.asked_at_s
        if not self.closed:
            self.failures, self.probe_at_s, self.unproven_since_s = 0, None, now_s

    def failed(
        self, kind: FailureKind, *, now_s: float, retry_after_s: float | None, sent_at_s: float | None = None
    ) -> None:
        """Notes the failure of a whole batch. Failures that its content caused say nothing about the backend.

        Args:
            kind: of the failure.
            now_s: the present.
            retry_after_s: when the backend wants to be asked again; None: it did not say.
            sent_at_s: when the batch was sent; None: now.
        """
        opens = HANDLING[kind].opens
        if opens is Opens.NEVER:
            return
        if opens is Opens.PAUSE:
            silence_s = self.first_pause_s if retry_after_s is None else retry_after_s
            self.not_before_s = max(self.not_before_s, now_s + min(silence_s, LONGEST_PAUSE_S))
            return
        since_s = now_s if sent_at_s is None else sent_at_s
        if kind is FailureKind.TIMEOUT and since_s < self.proven_at_s:
            return  # what made it hang is over
        self.failures += 1
        # Many batches may fail of one and the same cause; only a probe or the first after it makes it longer.
        unproven = self.unproven_since_s <= since_s
        if self.closed and (opens is Opens.AT_ONCE or unproven or self.failures >= self.failures_to_open):
            self.pause_s = self.pause_s if unproven else 0.0
            self._open(now_s)
            if kind in (FailureKind.TIMEOUT, FailureKind.UNREACHABLE):
                # As with a probe that hangs: the wait for the answer, or until it was taken, was a pause.
                self.probe_at_s = max(now_s, since_s + self.pause_s)

    def probe_failed(self, now_s: float, asked_at_s: float | None = None) -> None:
        """Notes a probe without an answer. The next pause began with it: the wait for its answer was one.

        Of probes that were under way together only the first to fail makes the pause longer: they tell of one outage.

        Args:
            now_s: the present.
            asked_at_s: when it was sent, where that is known; None: when the one was that was asked for here, if any.
        """
        asked_at_s = self.asked_at_s if asked_at_s is None else asked_at_s
        self._open(now_s, longer=self.closed or asked_at_s is None or asked_at_s >= self.opened_at_s)
        if asked_at_s is not None:
            self.probe_at_s = max(now_s, asked_at_s + self.pause_s)

    def _open(self, now_s: float, *, longer: bool = True) -> None:
        if longer:
            self.pause_s = min(max(self.first_pause_s, 2 * self.pause_s), self.longest_pause_s)
        self.opened_at_s, self.probe_at_s = now_s, now_s + self.pause_s


@dataclass(slots=True)
class Circuits:
    """The circuits of each edge server, of the functions, and of each model on them, and what is being probed.

    A backend (an edge server, or all functions together) that nothing reaches concerns all its models, as does its wish
    for silence. Whatever else fails, a batch that hangs included, may be the fault of its model: that one's circuit
    opens, the others go on. A probe asks for the models whose circuits are open, and tells which of them are still
    broken.
    """

    edges: dict[str, Circuit]
    """By name, in the order of the settings; there is one at least."""
    function: Circuit
    suspicion: Suspicion
    probing: dict[Place, tuple[str, ...]] = field(default_factory=dict)
    """Edge server, or FUNCTIONS, that is being probed -> the models that were asked for."""
    quiet_until_s: float = -math.inf
    """No probe is due before, but to measure the path; in the past where that is to be worked out anew."""
    _all: list[tuple[Place, Circuit]] = field(default_factory=list)
    """The edge servers and the functions with their circuits."""

    @property
    def edge(self) -> Circuit:
        """The first edge server's circuit."""
        return next(iter(self.edges.values()))

    def of(self, place: Place) -> Circuit:
        """Returns a place's circuit; of an edge server that a reload has removed, one that nothing follows from."""
        if place.backend is Backend.FUNCTION:
            return self.function
        circuit = self.edges.get(place.name)
        return Circuit(self.function.failures_to_open, self.function.first_pause_s) if circuit is None else circuit

    def of_batch(self, batch: Batch) -> Circuit:
        """Returns the circuit of a batch's model on its backend."""
        circuit = self.of(batch.place)
        return circuit.of_model.get(batch.model, circuit)

    def succeeded(self, batch: Batch) -> None:
        """Notes the answer to a batch."""
        self.quiet_until_s = -math.inf
        self.suspicion.answered(batch)
        circuit = self.of(batch.place)
        circuit.succeeded()
        circuit.answered_s = max(circuit.answered_s, batch.sent_at_s)
        self.of_batch(batch).succeeded()

    def failed(self, batch: Batch, failure: Failure, *, now_s: float, met_limit: bool = False) -> bool:
        """Notes the failure of a whole batch; returns whether a circuit opened.

        Args:
            batch: as it was sent.
            failure: what happened.
            now_s: the present.
            met_limit: whether it was refused beside others that run, or for its size. The next waits until one of them
                is back, or is smaller, so silence would add nothing, unless the provider asks for it.
        """
        if failure.of_model or (failure.kind is FailureKind.TIMEOUT and self.suspicion.knew(batch)):
            return False
        self.quiet_until_s = -math.inf
        circuit = self.of(batch.place) if HANDLING[failure.kind].of_all else self.of_batch(batch)
        was_closed = circuit.closed
        if not met_limit or failure.retry_after_s is not None:
            circuit.failed(failure.kind, now_s=now_s, retry_after_s=failure.retry_after_s, sent_at_s=batch.sent_at_s)
        return was_closed and not circuit.closed

    def suspect(self, now_s: float, reassign: Callable[..., None]) -> None:
        """Opens the circuits of models whose function batches hang (some do), and has their requests placed again."""
        self.quiet_until_s = -math.inf
        for name in self.suspicion.hung(now_s):
            self.function.of_model.get(name, self.function).failed(FailureKind.TIMEOUT, now_s=now_s, retry_after_s=None)
        reassign(Cause.FAILURE, now_s=now_s)

    def follow(self, edge_back: Callable[[str], float | None], *, functions_back_s: float) -> None:
        """Follows known outages. Functions that are out are silent: a request that can wait so long is sent then."""
        self.quiet_until_s = -math.inf
        for name, edge in self.edges.items():
            edge.follow(back_s=edge_back(name), silent_until_s=0.0)
        self.function.follow(back_s=None, silent_until_s=functions_back_s)

    def up(self) -> dict[str, Any]:
        """Returns whether any edge server, and the functions, are believed to answer, as fields of statistics."""
        return {"edge_up": any(edge.up for edge in self.edges.values()), "function_up": self.function.up}

    def for_snapshot(self) -> dict[str, Any]:
        """Returns that, and the names of the edge servers that are not, as fields of snapshots."""
        return {**self.up(), "edges_away": tuple(name for name, edge in self.edges.items() if not edge.up)}

    def figures(self, names: Iterable[str]) -> dict[str, Any]:
        """Returns that, each edge server, and where each of these models is answered, as fields of statistics."""
        function, models_up, slots = self.function, [], self.suspicion.slots
        for name in names:
            on = tuple((edge, own.serves(name)) for edge, own in self.edges.items() if name in own.of_model)
            by_function = function.serves(name) if name in function.of_model else None
            models_up.append(ModelUp(name, any(up for _, up in on) if on else None, by_function, on))
        edges = tuple(edge_statistics(name, edge.up, slots.get(name, ())) for name, edge in self.edges.items())
        return {**self.up(), "edges": edges, "models_up": tuple(models_up)}

    @classmethod
    def closed(cls, settings: EngineSettings, slots: Slots, uplink: UplinkOccupancy) -> "Circuits":
        """Returns circuits that are all closed; `slots` stays the present ones by edge server."""
        made = cls({}, Circuit(settings.failures_to_open, settings.reopen_after_s), Suspicion(slots, uplink))
        made.configure(settings)
        return made

    def configure(self, settings: EngineSettings) -> None:
        """Takes over settings, reloaded ones too; what is known of edge servers and models that stay is kept."""
        self.quiet_until_s = -math.inf
        opens, first_s, before = settings.failures_to_open, settings.reopen_after_s, self.edges
        self.edges = {
            edge.name: before.get(edge.name) or Circuit(opens, first_s, longest_pause_s=EDGE_PAUSE_S)
            for edge in settings.edges
        }
        edges = [(Place.edge(name), edge) for name, edge in self.edges.items()]
        self._all = [*edges, (FUNCTIONS, self.function)]
        asked = self.suspicion.edges
        self.suspicion.edges = {name: asked.get(name) or Silence() for name in self.edges}
        known_places = dict(self._all)
        self.probing = {place: asked_for for place, asked_for in self.probing.items() if place in known_places}
        on_edges = [
            (circuit, [model.name for model in settings.models if model.edge_latency_on(place.name) is not None])
            for place, circuit in edges
        ]
        by_function = [model.name for model in settings.models if model.tiers]
        for circuit, names in (*on_edges, (self.function, by_function)):
            known, circuit.of_model = circuit.of_model, {}
            for name in names:
                own = circuit.of_model[name] = known.get(name) or Circuit(opens, first_s)
                # A probe of one model takes the time of the others.
                own.longest_pause_s = circuit.longest_pause_s if len(names) == 1 else LONGEST_PAUSE_S
                own.configure(failures_to_open=opens, first_pause_s=first_s)
            circuit.configure(failures_to_open=opens, first_pause_s=first_s)

    def probed(self, probe: ProbeMeasured, *, now_s: float) -> bool:
        """Notes the end of a probe; returns whether the backend had not answered before it."""
        self.quiet_until_s = -math.inf
        asked = self.probing.pop(probe.place, ())
        circuit = self.of(probe.place)
        was_open = not circuit.up
        asked_at_s = circuit.asked_at_s if probe.asked_at_s is None else probe.asked_at_s
        if not probe.ok and circuit.closed and asked_at_s is not None and asked_at_s < circuit.answered_s:
            pass  # what made it hang is over: a batch that was sent later is back
        elif not probe.ok:
            if circuit.closed and probe.place.name in self.suspicion.edges:
                self.suspicion.edges[probe.place.name].unanswered(self.suspicion.slots.get(probe.place.name, ()))
            circuit.probe_failed(now_s, asked_at_s)
        else:
            circuit.probe_succeeded(now_s)
            for name, own in circuit.of_model.items():
                if name in probe.broken:
                    own.probe_failed(now_s, asked_at_s)
                elif name in asked and name not in probe.unasked:
                    own.probe_succeeded(now_s)
        for one in (circuit, *circuit.of_model.values()):
            one.asked_at_s = None
        return was_open

    def next_s(self, now_s: float) -> float:
        """Returns when a probe is due or a throttled backend may get batches again; inf for never."""
        wakeup_s, probe_s = self.suspicion.hung_at_s(), math.inf
        probing, silences, slots = self.probing, self.suspicion.edges, self.suspicion.slots
        for place, circuit in self._all:
            if not probing or place not in probing:
                if circuit.probe_at_s is not None:
                    probe_s = min(probe_s, circuit.probe_at_s)
                else:
                    for own in circuit.of_model.values():
                        if own.probe_at_s is not None:
                            probe_s = min(probe_s, _probe_at_s(circuit))
                            break
                    if place is not FUNCTIONS:
                        probe_s = min(probe_s, silences[place.name].due_s(slots.get(place.name, ())))
            if now_s < circuit.not_before_s < wakeup_s:
                wakeup_s = circuit.not_before_s
        self.quiet_until_s = probe_s
        return min(wakeup_s, probe_s)

    def ask(self, command: Callable[[SendProbe], None], now_s: float, *, idle_link: bool) -> None:
        """Gives the commands for the probes that are due."""
        for probe in self.to_probe(now_s, idle_link=idle_link):
            command(probe)

    def to_probe(self, now_s: float, *, idle_link: bool) -> list[SendProbe]:
        """Returns the probes that are due, and notes that they are under way.

        Args:
            now_s: the present.
            idle_link: whether the path to the functions is to be measured although they answer.
        """
        due, probing, slots = [], self.probing, self.suspicion.slots
        for place, circuit in self._all:
            if probing and place in probing:
                continue
            wanted = _probe_at_s(circuit) <= now_s or (idle_link and place is FUNCTIONS)
            if place is not FUNCTIONS and circuit.probe_at_s is None:
                silence = self.suspicion.edges[place.name]
                if silence.due_s(slots.get(place.name, ())) <= now_s:
                    wanted, silence.asked_at_s = True, now_s
            if wanted:
                # One that was away may have come back without some of its models: it is asked for all of them.
                away = not circuit.up
                models = [name for name, own in circuit.of_model.items() if away or _probe_at_s(own) <= now_s]
                models.sort(key=lambda name: not circuit.of_model[name].closed)
                due.append(SendProbe(place, tuple(models)))
                self.probing[place] = tuple(models)
                for one in (circuit, *(circuit.of_model[name] for name in models)):
                    one.asked_at_s = now_s
        return due


def _probe_at_s(circuit: Circuit) -> float:
    """Returns when the backend, or a model on it, is to be probed; inf for never."""
    if circuit.probe_at_s is not None:
        return circuit.probe_at_s
    at_s, soonest_s, none_works = math.inf, math.inf, True
    for own in circuit.of_model.values():
        if own.probe_at_s is None:
            none_works = False
            continue
        at_s = min(at_s, own.probe_at_s)
        soonest_s = min(soonest_s, own.probe_at_s - max(0.0, own.pause_s - circuit.longest_pause_s))
    # A pause is only longer than the backend's own for the sake of its other models.
    return soonest_s if none_works else at_s
